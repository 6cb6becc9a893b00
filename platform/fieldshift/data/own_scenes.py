"""Own scenes with masks in the folder layout of Pascal VOC: `voc:PATH`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from fieldshift.data.cache import cached_arrays
from fieldshift.data.collection import FileCollection
from fieldshift.data.content import FileContents
from fieldshift.data.dataset import digest_of, names_of
from fieldshift.data.listing import Listing, image_files, subfolders
from fieldshift.data.loading import LoadingConfig
from fieldshift.data.names import existing_folder
from fieldshift.data.partition import stratified
from fieldshift.data.problems import BadFileError, Findings
from fieldshift.data.reading import UNKNOWN_LABEL, load_labels
from fieldshift.data.split import IGNORE
from fieldshift.errors import UserError

MASKS = "SegmentationClass"
IMAGES = "JPEGImages"
NOT_IMAGES = (MASKS, "SegmentationObject", "Annotations", "ImageSets")
CLASS_FILES = ("classes.txt", "labels.txt")


def scene_collection(path: str, loading: LoadingConfig, findings: Findings, *, seed: int) -> FileCollection:
    """Scenes of `JPEGImages` (or the one other image folder) with the masks of the same names in `SegmentationClass`.

    ImageSets/Segmentation/train.txt and test.txt (or val.txt) name the parts; with both, the test scenes are used.
    Without lists a seeded share (loading.test_share) of the masked images is set apart. Masks hold class numbers, and
    255 for pixels to ignore; classes.txt names the classes, a line each, else they are counted in the masks.
    """
    root = existing_folder(path, "data")
    images = by_stem(image_folder(root, findings), root, findings)
    masks = by_stem(root / MASKS, root, findings)
    lists = {part: named_in(root, part) for part in ("train", "val", "test")}
    train_names, test_part = lists["train"], "test" if lists["test"] is not None else "val"
    if train_names is not None and lists[test_part] is not None:
        protocol = f"trained on train.txt, tested on {test_part}.txt"
        if test_part == "test" and lists["val"] is not None:
            protocol += " (val.txt is not used)"
        names = {"train": train_names, "test": lists[test_part] or []}
    else:
        every = train_names if train_names is not None else sorted(set(images) & set(masks))
        if train_names is None:
            for stem in sorted(set(images) - set(masks)):
                findings.note("no mask", images[stem], f"has no mask in {MASKS}", "draw one if it should be used")
        kept, held = stratified(torch.zeros(len(every), dtype=torch.int64), 1 - loading.test_share, seed)
        names = {"train": [every[place] for place in kept], "test": [every[place] for place in held]}
        protocol = f"a share of {loading.test_share} set apart to test on, seed {seed}"
    parts = {part: matched(stems, images, masks, root, findings) for part, stems in names.items()}
    for part, listing in parts.items():
        if not len(listing):
            raise UserError(f"{root} has no scene with a mask to {part} on; add some to {IMAGES} and {MASKS}.")
    both = [*(parts["train"].masks or []), *(parts["test"].masks or [])]
    classes = class_names(root) or names_of(count_classes(both, loading))
    return FileCollection(
        name=f"voc:{path}",
        task="segmentation",
        classes=classes,
        train=parts["train"],
        test=parts["test"],
        protocol=protocol,
        label_map=plain_labels(len(classes)),
        is_own=True,
        drawn=train_names is None or lists[test_part] is None,
    )


def plain_labels(count: int) -> tuple[int, ...]:
    """The label map of masks that hold the class numbers themselves, and 255 for what is to be ignored."""
    return tuple(value if value < count or value == IGNORE else UNKNOWN_LABEL for value in range(256))


def image_folder(root: Path, findings: Findings) -> Path:
    found = subfolders(root, root, findings)
    if MASKS not in found:
        raise UserError(f"{root} has no folder {MASKS} with masks; lay it out as {IMAGES}/NAME.jpg, {MASKS}/NAME.png.")
    if IMAGES in found:
        return found[IMAGES]
    others = [name for name in found if name not in NOT_IMAGES]
    if len(others) != 1:
        there = f"the folders {', '.join(others)}" if others else "no image folder"
        raise UserError(f"{root} has {there} beside {MASKS}; call the one with the images {IMAGES}.")
    return found[others[0]]


def by_stem(folder: Path, root: Path, findings: Findings) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in image_files(folder, root, findings):
        stem = Path(path).relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            findings.add("two of a name", path, f"has the name of {found[stem]}", "rename or delete one of them")
        else:
            found[stem] = path
    return found


def named_in(root: Path, part: str) -> list[str] | None:
    """The names listed in ImageSets/Segmentation/PART.txt, None where there is no such file."""
    path = root / "ImageSets" / "Segmentation" / f"{part}.txt"
    if not path.is_file():
        return None
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8, one name a line.") from None
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise UserError(f"{path} names '{twice}' twice; take one of the lines out.")
    return names


def matched(names: list[str], images: dict[str, str], masks: dict[str, str], root: Path, findings: Findings) -> Listing:
    listing = Listing([], [], [])
    assert listing.masks is not None
    for name in names:
        if name not in images:
            findings.add("missing file", root / name, "is listed but has no image", "add it or take it out of the list")
        elif name not in masks:
            findings.add("missing mask", images[name], f"has no mask in {MASKS}", "add it or take it out of the list")
        else:
            listing.images.append(images[name])
            listing.masks.append(masks[name])
            listing.targets.append(0)
    return listing


def class_names(root: Path) -> tuple[str, ...]:
    for name in CLASS_FILES:
        if (root / name).is_file():
            try:
                text = (root / name).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                raise UserError(f"{root / name} is not UTF-8 text; save it as UTF-8, one class a line.") from None
            names = tuple(line.strip() for line in text.splitlines() if line.strip())
            if not 2 <= len(names) <= UNKNOWN_LABEL:
                raise UserError(f"{root / name} names {len(names)} classes, but must name 2 to {UNKNOWN_LABEL}.")
            return names
    return ()


def count_classes(masks: list[str], loading: LoadingConfig) -> int:
    """One more than the largest label in `masks` (255 apart); every mask is read once, then remembered."""

    def largest(path: str) -> int:
        try:
            labels = np.asarray(load_labels(path, loading.pixel_limit))
        except BadFileError:
            return -1
        known = labels[labels != IGNORE]
        return int(known.max()) if known.size else -1

    def look() -> dict[str, np.ndarray]:
        with ThreadPoolExecutor(max(1, loading.workers)) as pool:
            return {"count": np.array(max(pool.map(largest, masks), default=-1) + 1)}

    state = list(zip(masks, FileContents(loading.workers).of(masks), strict=True))
    count = int(cached_arrays(f"classes-{digest_of(state)}", look)["count"])
    if not 2 <= count <= UNKNOWN_LABEL:
        raise UserError(f"The masks hold {count} class(es), but must hold 2 to {UNKNOWN_LABEL}: number them from 0.")
    return count
