"""Own data as a folder of images, one subfolder a class: `folder:PATH`."""

from __future__ import annotations

from pathlib import Path

import torch

from fieldshift.data.collection import FileCollection
from fieldshift.data.listing import Listing, image_files, subfolders
from fieldshift.data.loading import LoadingConfig
from fieldshift.data.names import existing_folder
from fieldshift.data.partition import stratified
from fieldshift.data.problems import Findings
from fieldshift.errors import UserError

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing")
VALIDATION_NAMES = ("val", "valid", "validation")
EXAMPLE = "PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg, or PATH/CLASS/*.jpg"


def folder_collection(path: str, loading: LoadingConfig, findings: Findings, *, seed: int) -> FileCollection:
    """The images of a folder with a subfolder for each class, below `train` and `test` (or `val`) where these exist.

    With both `test` and `val` the test images are used and the others are left alone, as the protocol then says. Where
    neither exists, a seeded share (loading.test_share) of every class is set apart to test on. Raises UserError when
    there are no classes, and for a class without training images.
    """
    root = existing_folder(path, "data")
    top = subfolders(root, root, findings)
    train_name = first_of(TRAIN_NAMES, top)
    test_name, other_name = first_of(TEST_NAMES, top), first_of(VALIDATION_NAMES, top)
    if train_name is None:
        if (test_name is not None and other_name is not None) or (test_name is not None and len(top) == 1):
            raise UserError(f"{root} has '{test_name}' but no 'train'; lay it out as {EXAMPLE}.")
        found = {name: list(image_files(folder, root, findings)) for name, folder in top.items()}
        return split_apart(path, found, loading, findings, seed)
    for stray in sorted(set(top) - {train_name, test_name, other_name}):
        findings.note("not used", top[stray], "is neither train, test nor val", "move it elsewhere, or rename it")
    train = classes_of(top[train_name], root, findings)
    test_part = test_name or other_name
    if test_part is None:
        return split_apart(path, train, loading, findings, seed)
    protocol = f"trained on {train_name}/, tested on {test_part}/"
    if test_name is not None and other_name is not None:
        protocol += f" ({other_name}/ is not used)"
        findings.note("not used", top[other_name], "is not used, as there is a test folder", "nothing, if so meant")
    test = classes_of(top[test_part], root, findings)
    names = classes_of_both(train, test, root, findings)
    listings = [labelled(part, names) for part in (train, test)]
    if not len(listings[1]):
        raise UserError(f"{root} has no test image of any class that train has; lay it out as {EXAMPLE}.")
    return FileCollection(
        name=f"folder:{path}",
        task="classification",
        classes=tuple(names),
        train=listings[0],
        test=listings[1],
        protocol=protocol,
        is_own=True,
    )


def labelled(found: dict[str, list[str]], names: list[str]) -> Listing:
    images = [image for name in names for image in found.get(name, [])]
    return Listing(images, [label for label, name in enumerate(names) for _ in found.get(name, [])])


def first_of(names: tuple[str, ...], found: dict[str, Path]) -> str | None:
    return next((name for name in names if name in found), None)


def classes_of(folder: Path, root: Path, findings: Findings) -> dict[str, list[str]]:
    return {
        name: list(image_files(inner, root, findings)) for name, inner in subfolders(folder, root, findings).items()
    }


def split_apart(
    path: str, found: dict[str, list[str]], loading: LoadingConfig, findings: Findings, seed: int
) -> FileCollection:
    names = filled_classes(found, path, findings)
    whole = labelled(found, names)
    kept, held = stratified(torch.tensor(whole.targets, dtype=torch.int64), 1 - loading.test_share, seed)
    train, test = whole.kept(kept.tolist()), whole.kept(held.tolist())
    if not len(train) or not len(test):
        raise UserError(f"{len(whole)} image(s) in {path} cannot be split {loading.test_share} to test; add images.")
    unseen = [name for label, name in enumerate(names) if label not in set(train.targets)]
    if unseen:
        raise UserError(f"The class '{unseen[0]}' in {path} has too few images to train and test on; add images to it.")
    return FileCollection(
        name=f"folder:{path}",
        task="classification",
        classes=tuple(names),
        train=train,
        test=test,
        protocol=f"a share of {loading.test_share} of each class set apart to test on, seed {seed}",
        is_own=True,
        drawn=True,
    )


def classes_of_both(
    train: dict[str, list[str]], test: dict[str, list[str]], root: Path, findings: Findings
) -> list[str]:
    names = filled_classes(train, root, findings)
    for name in sorted(set(test) - set(names)):
        if test[name]:
            findings.add("class only in test", Path(test[name][0]).parent, f"holds the class '{name}' that train lacks",
                         "add it to train or take it out of test")  # fmt: skip
    for name in names:
        if not test.get(name):
            findings.note("class not in test", root / name, "has no test image", "add some, or its score says nothing")
    return names


def filled_classes(found: dict[str, list[str]], root: str | Path, findings: Findings) -> list[str]:
    """The names of the classes that have images, sorted. Raises UserError when there are not at least two."""
    for name in sorted(found):
        if not found[name]:
            findings.add("empty class", Path(root) / name, "is a class without an image",
                         "add images or delete the folder")  # fmt: skip
    names = sorted(name for name in found if found[name])
    if len(names) < 2:
        raise UserError(f"{root} has {len(names)} class folder(s) with images, but must have 2 or more: {EXAMPLE}.")
    return names
