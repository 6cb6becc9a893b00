"""Own data as a folder of images with one subfolder per class: `folder:PATH`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fieldshift.data.collection import FileCollection
from fieldshift.data.files.folder_names import is_mask_word, is_picture_word, name_key
from fieldshift.data.files.formats import without_ending
from fieldshift.data.files.listing import Listing, image_files, subfolders
from fieldshift.data.loading import LoadingConfig
from fieldshift.data.names import existing_folder
from fieldshift.data.own.folder_layout import EXAMPLE, FolderLayout, folder_layout, note_loose, peek, unwrapped
from fieldshift.data.partition import stratified
from fieldshift.data.problems import UNTESTED, Findings
from fieldshift.errors import UserError, nearest_name
from fieldshift.wording import counted

MASK_FILE = re.compile(r"(?P<stem>.+)[ _\-.](masks?|gt|groundtruth|seg|segmentation|labels?|annotations?)([ _\-]?\d+)?")


@dataclass
class ClassImages:
    """The images of one class in one part, and their folders."""

    name: str
    folders: list[Path]
    images: list[str] = field(default_factory=list)


Classes = dict[str, ClassImages]
"""Classes by `name_key`."""


def folder_collection(path: str, loading: LoadingConfig, findings: Findings, *, seed: int) -> FileCollection:
    """Collects the images of a folder with one subfolder per class, alone or in parts (docs/own-data.md has the table).

    Parts are folders named train and test (or val), regardless of case and including the usual other words; with both test
    and val the test images are used. Without a test part, a seeded share (loading.test_share) of every class is held out.
    Raises UserError where a folder of folders is ambiguous, when there are no classes, and for a class without training
    images.
    """
    root = existing_folder(path, "data")
    layout = folder_layout(root, loading, findings)
    train = classes_in(layout.train, root, findings)
    if not layout.test:
        return split_apart(path, root, layout, train, loading, findings, seed)
    protocol = f"trained on {shown(layout.train)}, tested on {shown(layout.test)}"
    if layout.others:
        protocol += f" ({', '.join(f'{name}/' for name in layout.others)} is not used)"
    test = classes_in(layout.test, root, findings)
    keys = classes_of_both(train, test, root, findings)
    listings = [labelled(part, keys) for part in (train, test)]
    if not len(listings[1]):
        raise UserError(f"{root} has no test image of any class in train; lay it out as {EXAMPLE}.")
    return FileCollection(
        name=f"folder:{path}",
        task="classification",
        classes=tuple(train[key].name for key in keys),
        train=listings[0],
        test=listings[1],
        protocol=protocol,
        is_own=True,
    )


def shown(folders: tuple[Path, ...]) -> str:
    return " and ".join(f"{folder.name}/" for folder in folders)


def labelled(found: Classes, keys: list[str]) -> Listing:
    images = [found[key].images if key in found else [] for key in keys]
    return Listing(
        [path for each in images for path in each], [label for label, each in enumerate(images) for _ in each]
    )


def classes_in(parts: tuple[Path, ...], root: Path, findings: Findings) -> Classes:
    """The classes in the folders of one part; folders with the same name (see `name_key`) are one class."""
    found: Classes = {}
    for part in parts:
        inner = unwrapped(part, keep_parts=False)
        if part != root:
            note_loose(inner, peek([inner]), findings)
        for name, folders in subfolders(inner, root, findings).items():
            here = found.setdefault(name_key(name), ClassImages(name, []))
            for folder in folders:
                here.folders.append(folder)
                here.images += class_images(folder, root, findings)
    return found


def class_images(folder: Path, root: Path, findings: Findings) -> list[str]:
    """The images of a class folder; masks next to them are left out with a note."""
    here = peek([folder])
    pictures = [name for name in here.folders if is_picture_word(name)]
    masks = [name for name in here.folders if is_mask_word(name)]
    left_out = [folder / name for name in masks] if here.pictures or pictures else []
    if here.pictures:  # next to pictures a folder "mask" may be anything, unless its files have their names
        left_out = [inner for inner in left_out if pairs_with(inner, folder)]
    for inner in left_out:
        findings.note(
            "mask", inner, "seems to hold masks (by its name), not samples of the class", "no action needed if intended"
        )
    images = list(image_files(folder, root, findings, without=frozenset(map(str, left_out))))
    stems = {without_ending(path).casefold() for path in images}
    kept = []
    for image in images:
        named = MASK_FILE.fullmatch(without_ending(image).casefold())
        if named is not None and named["stem"] in stems:
            findings.note(
                "mask", image, "is the mask of a picture by its name, not a sample", "no action needed if intended"
            )
        else:
            kept.append(image)
    return kept


def pairs_with(masks: Path, pictures: Path) -> bool:
    names = [{without_ending(entry.name).casefold() for entry in folder.iterdir() if entry.is_file()}
             for folder in (masks, pictures)]  # fmt: skip
    cores = {found["stem"] if (found := MASK_FILE.fullmatch(name)) else name for name in names[0]}
    return 2 * len(cores & names[1]) >= len(cores) > 0


def split_apart(
    path: str, root: Path, layout: FolderLayout, found: Classes, loading: LoadingConfig, findings: Findings, seed: int
) -> FileCollection:
    keys = filled_classes(found, root, findings)
    whole = labelled(found, keys)
    kept, held = stratified(torch.tensor(whole.targets, dtype=torch.int64), 1 - loading.test_share, seed)
    train, test = whole.kept(kept.tolist()), whole.kept(held.tolist())
    unsplit = ""
    unseen = [found[key].name for label, key in enumerate(keys) if label not in set(train.targets)]
    if not len(train) or not len(test):
        share = f"a test share of {loading.test_share}"
        unsplit = f"{counted(len(whole), 'image')} in {path} cannot be split with {share}; add images."
    elif unseen:
        unsplit = f"The class '{unseen[0]}' in {path} has too few images to train and test on; add images to it."
    if not len(train):
        train, test = test, train
    note_untested(found, [key for label, key in enumerate(keys) if label not in set(test.targets)], findings,
                  "add some or raise --loading.test_share, or its score is meaningless")  # fmt: skip
    where = "" if layout.train[0] == root else f" in {shown(layout.train)}"
    drawn = f"a share of {loading.test_share} of each class{where} is held out, seed {seed}"
    return FileCollection(
        name=f"folder:{path}",
        task="classification",
        classes=tuple(found[key].name for key in keys),
        train=train,
        test=test,
        protocol=f"no part to test on, so {drawn}",
        is_own=True,
        drawn=drawn,
        unsplit=unsplit,
    )


def classes_of_both(train: Classes, test: Classes, root: Path, findings: Findings) -> list[str]:
    keys = filled_classes(train, root, findings)
    for key in sorted(set(test) - set(keys)):
        if test[key].images:
            near = nearest_name(test[key].name, [train[each].name for each in keys if each not in test])
            findings.stop("class-only-in-test", test[key].folders[0],
                          f"holds the class '{test[key].name}' that train lacks",
                          f"did you mean '{near}'? Rename the folder" if near else
                          "add it to train or take it out of test")  # fmt: skip
    untested = [key for key in keys if key not in test or not test[key].images]
    note_untested(train, untested, findings, "add some, or its score is meaningless")
    return keys


def note_untested(found: Classes, keys: list[str], findings: Findings, remedy: str) -> None:
    for key in keys:
        findings.note(UNTESTED, found[key].folders[0], "is a class that has no test image", remedy)


def filled_classes(found: Classes, root: Path, findings: Findings) -> list[str]:
    """The keys of the classes with images, in the order of the names. Raises UserError for fewer than two."""
    for key in sorted(found):
        if not found[key].images:
            findings.add("empty class", found[key].folders[0], "is a class without an image",
                         "add images or delete the folder")  # fmt: skip
    keys = sorted((key for key in found if found[key].images), key=lambda key: found[key].name)
    if len(keys) < 2:
        raise UserError(
            f"{root} has {counted(len(keys), 'class folder')} with images, but must have 2 or more: {EXAMPLE}."
        )
    return keys
