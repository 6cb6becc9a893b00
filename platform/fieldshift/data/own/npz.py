"""Own data as arrays: `npz:PATH`, with the array names of MedMNIST."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fieldshift.data.collection import ArrayCollection
from fieldshift.data.dataset import names_of
from fieldshift.data.files.mask_decoding import GREY, RunMasks, decode, in_words, listed, numbers_of, observed
from fieldshift.data.files.mask_files import StoredMask
from fieldshift.data.files.mask_table import MaskTable, Pairs
from fieldshift.data.loading import LoadingConfig
from fieldshift.data.names import existing_file
from fieldshift.data.own.mask_census import check_amounts
from fieldshift.data.partition import stratified
from fieldshift.data.problems import UNTESTED, Findings
from fieldshift.data.split import IGNORE, TensorSplit
from fieldshift.errors import UserError, one_line
from fieldshift.tasks import Task

Array = NDArray[Any]

PARTS = ("train", "val", "test")
LARGEST_BYTES = 64 * 2**30
MOST_CLASSES = 100_000


def npz_collection(
    path: str, loading: LoadingConfig, findings: Findings, *, seed: int, of_run: RunMasks | None = None
) -> ArrayCollection:
    """Collects the arrays train_images, train_labels and test_images, test_labels (or val_*) of an npz file.

    Images are uint8 (N, H, W) or (N, H, W, C) with C 1 or 3; labels are whole numbers from 0, (N,) or (N, 1) for
    classification, or (N, H, W) masks, with 255 for ignored pixels, for segmentation. Without test and val arrays a seeded
    share is held out. `of_run`: what the numbers in masks mean for an earlier run. Object arrays are never unpickled. Raises
    UserError for anything else.
    """
    arrays = read_arrays(path)
    named = {part for part in PARTS if f"{part}_images" in arrays or f"{part}_labels" in arrays}
    if "train" not in named:
        raise UserError(
            f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}, but must hold train_images and train_labels (and"
            " test_ or val_ ones); rename its arrays."
        )
    parts = {part: checked_part(path, part, arrays) for part in PARTS if part in named}
    for name in sorted(set(arrays) - {f"{part}_{kind}" for part in PARTS for kind in ("images", "labels")}):
        findings.note("not used", f"{path}:{name}", "is not one of MedMNIST's arrays", "rename it if it should be used")
    shapes = {images.shape[1:] for images, _ in parts.values()}
    if len(shapes) > 1 or len({labels.ndim for _, labels in parts.values()}) > 1:
        raise UserError(f"{path} has images or labels of different shapes in its parts; make {', '.join(parts)} alike.")
    task: Task = "segmentation" if parts["train"][1].ndim == 3 else "classification"
    parts = {part: usable(path, part, arrays, task=task, findings=findings) for part, arrays in parts.items()}
    protocol, drawn = "as the file names its parts", ""
    if "test" in parts:
        protocol = "trained on train, tested on test" + (" (val is not used)" if "val" in parts else "")
    elif "val" in parts:
        protocol, parts["test"] = "trained on train, tested on val", parts["val"]
    else:
        images, labels = parts["train"]
        strata = torch.from_numpy(labels) if task == "classification" else torch.zeros(len(labels), dtype=torch.int64)
        kept, held = (part.numpy() for part in stratified(strata, 1 - loading.test_share, seed))
        parts["train"], parts["test"] = (images[kept], labels[kept]), (images[held], labels[held])
        protocol = drawn = f"a share of {loading.test_share} held out to test on, seed {seed}"
    for part in ("train", "test"):
        if len(parts[part][0]) == 0:
            raise UserError(f"{path} leaves no sample to {part} on; add samples.")
    masks_as, meaning = "", None
    numbers: Pairs = ()
    if task == "classification":
        note_untested(path, parts["train"][1], parts["test"][1], findings)
    if task == "segmentation":
        masks_as, numbers = renumber(path, parts, of_run, findings)
    least = len(of_run.classes) if of_run is not None and task == "segmentation" else 0
    count = class_count(path, parts["train"][1], task, findings, least)
    classes = of_run.classes if of_run is not None and count == least else names_of(count)
    if task == "segmentation":
        meaning = MaskTable(((GREY, tuple(pair for pair in numbers if pair[1] == IGNORE or pair[1] < count)),))
        pixels = {part: np.bincount(parts[part][1].reshape(-1), minlength=256) for part in ("train", "test")}
        check_amounts(pixels, classes, path, None, [IGNORE], findings, trains=of_run is None)
    return ArrayCollection(
        name=f"npz:{path}",
        task=task,
        classes=classes,
        train=as_split(*parts["train"], task),
        test=as_split(*within(path, parts["test"], count=count, task=task, findings=findings), task),
        protocol=protocol + masks_as,
        meaning=meaning,
        is_own=True,
        drawn=drawn,
    )


def read_arrays(path: str) -> dict[str, Array]:
    source = existing_file(path)
    try:
        with zipfile.ZipFile(source) as archive:
            unfolded = sum(entry.file_size for entry in archive.infolist())
        if unfolded > LARGEST_BYTES:
            raise UserError(
                f"{path} decompresses to {unfolded} bytes, over the limit of {LARGEST_BYTES}; use an image folder."
            )
        with source.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: read_array(path, name, archive) for name in archive.files}
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{path} is not an npz file that can be read ({one_line(error, 120)}); write it with numpy.savez."
        ) from error


def read_array(path: str, name: str, archive: Any) -> Array:
    try:
        array = archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise UserError(
            f"{path}:{name} is an array of Python objects, which are never unpickled here; save it as a plain array"
            " of uint8 (images) or whole numbers (labels)."
        ) from None
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path}:{name} is not an array; write the file with numpy.savez.")
    return array


def checked_part(path: str, part: str, arrays: dict[str, Array]) -> tuple[Array, Array]:
    for kind in ("images", "labels"):
        if f"{part}_{kind}" not in arrays:
            raise UserError(f"{path} has no array {part}_{kind} next to its partner; add it.")
    images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    if images.dtype != np.uint8:
        raise UserError(f"{path}:{part}_images has the type {images.dtype}, but must be uint8 (0 to 255); convert it.")
    if images.size == 0:
        raise UserError(f"{path}:{part}_images has no sample ({images.shape}); add some, or remove the part.")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or min(images.shape[1:3]) < 2:
        raise UserError(f"{path}:{part}_images is {images.shape}, but must be (N, H, W) or (N, H, W, 1 or 3), sides of"
                        " 2 or more; transpose it.")  # fmt: skip
    if labels.dtype.kind not in "iu":
        raise UserError(f"{path}:{part}_labels has the type {labels.dtype}, but must hold whole numbers; convert it.")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        raise UserError(
            f"{path}:{part}_labels is {labels.shape}: several labels per sample, but must be (N,) or (N, 1)."
        )
    if labels.shape not in (images.shape[:1], images.shape[:3]):
        raise UserError(f"{path}:{part}_labels is {labels.shape}, but must be ({len(images)},) or {images.shape[:3]}.")
    return images, labels


def usable(
    path: str, part: str, arrays: tuple[Array, Array], *, task: Task, findings: Findings
) -> tuple[Array, NDArray[np.int64]]:
    """The samples whose labels can be class numbers; the others are added to `findings`."""
    images, labels = arrays
    flat = labels.reshape(len(labels), -1)
    # Compared before the conversion: a large unsigned number would become negative.
    largest = IGNORE if task == "segmentation" else MOST_CLASSES - 1
    wrong = ((flat < 0) | (flat > largest)).any(1) if flat.shape[1] else np.zeros(len(flat), dtype=bool)
    for place in np.flatnonzero(wrong)[:1] if not findings.skip else np.flatnonzero(wrong):
        value = flat[place][(flat[place] < 0) | (flat[place] > largest)][0]
        findings.add("unknown label", f"{path}:{part}_labels[{place}]", f"holds the label {value}",
                     f"number the classes from 0 (at most {largest})")  # fmt: skip
    return images[~wrong], labels[~wrong].astype(np.int64)


def renumber(
    path: str, parts: dict[str, tuple[Array, NDArray[np.int64]]], of_run: RunMasks | None, findings: Findings
) -> tuple[str, Pairs]:
    """Converts masks of 0 and 255, or of evenly spaced values, to class numbers in place, as for mask files.

    Returns words on it, and the classes of the numbers.
    """
    used = {part: parts[part] for part in ("train", "test")}
    values = set(np.unique(np.concatenate([np.unique(labels) for _, labels in used.values()])).tolist())
    if of_run is None:
        pairs = numbers_of(GREY, values, None, path)
    else:
        counts = Counter(values)  # each once: amounts are counted later
        pairs = dict(decode({GREY: counts}, of_run.named(None, Path(path)), path, of_run).table.pairs)[GREY]
    if unknown := sorted(values - set(dict(pairs))):
        raise UserError(
            f"The masks of {path} hold {listed(unknown)}, which have no meaning beside those of the training "
            f"({in_words(pairs, of_run.classes if of_run else ())}); give masks with the numbers of the training."
        )
    if of_run is not None and (words := of_run.new_classes(pairs, values)):
        findings.note("new mask numbers", path, f"has masks with {words}: {in_words(pairs, of_run.classes)}",
                      "give masks with the numbers of the training if they mean something else")  # fmt: skip
    kept = observed(pairs, values)
    if all(code == label for code, label in pairs):
        return "", kept
    table = MaskTable(((GREY, pairs),))
    for part, (images, labels) in used.items():
        flat = labels.reshape(len(labels), -1).astype(np.uint8)
        found = table.labels(StoredMask(GREY, flat)).astype(np.int64)
        parts[part] = (images, found.reshape(labels.shape))
    names = tuple(str(label) for label in range(len(pairs)))
    return f"; masks: {in_words(pairs, names)}{' (as in the training)' if of_run else ''}", kept


def class_count(path: str, train: NDArray[np.int64], task: Task, findings: Findings, least: int) -> int:
    """The number of classes up to the largest label, and at least `least`, as arrays name no classes."""
    seen = np.unique(train)
    if task == "segmentation":
        seen = seen[seen != IGNORE]
    if len(seen) == 0:
        raise UserError(f"{path} has no labelled pixel in train_labels (all are {IGNORE}); give masks with classes.")
    count = max(least, int(seen[-1]) + 1)
    if task == "segmentation":
        return counted(path, count)
    for missing in sorted(set(range(count)) - set(seen.tolist()))[:100]:
        findings.note("empty class", f"{path}:train_labels", f"lacks the class {missing}", "renumber the classes")
    return counted(path, count)


def note_untested(path: str, train: NDArray[np.int64], test: NDArray[np.int64], findings: Findings) -> None:
    for missing in sorted(set(np.unique(train).tolist()) - set(np.unique(test).tolist()))[:100]:
        findings.note(UNTESTED, f"{path}:test_labels", f"lacks the class {missing}",
                      "add some, or its score is meaningless")  # fmt: skip


def counted(path: str, count: int) -> int:
    if count < 2:
        raise UserError(f"{path} has {count} class in train_labels, but must have 2 or more; check its labels.")
    return count


def within(
    path: str, test: tuple[Array, NDArray[np.int64]], *, count: int, task: Task, findings: Findings
) -> tuple[Array, NDArray[np.int64]]:
    """The test samples whose classes are in train too; the others are added to `findings`."""
    images, labels = test
    flat = labels.reshape(len(labels), -1)
    strange = flat >= count
    if task == "segmentation":
        strange &= flat != IGNORE
    wrong = strange.any(1)
    for place in np.flatnonzero(wrong)[:1]:
        value = flat[place][strange[place]][0]
        more = f" (and {wrong.sum() - 1} more)" if wrong.sum() > 1 else ""
        findings.stop("class-only-in-test", f"{path}:test_labels[{place}]{more}",
                      f"holds the class {value} that train lacks", "add it to train or take it out of test")  # fmt: skip
    if wrong.all():
        raise UserError(f"{path} has no test sample of a class that train has; check its labels.")
    return images[~wrong], labels[~wrong]


def as_split(images: Array, labels: NDArray[np.int64], task: Task) -> TensorSplit:
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    if task == "classification":
        return TensorSplit(pixels, torch.from_numpy(labels))
    masks = torch.from_numpy(labels.astype(np.uint8))
    return TensorSplit(pixels, torch.zeros(len(pixels), dtype=torch.int64), masks)
