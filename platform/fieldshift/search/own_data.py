"""The images and labels that `find_policy` is given: what they contain, how they are normalised, and their mistakes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fieldshift.data import Split
from fieldshift.data.dataset import Statistics, digest_of, grey_levels, names_of
from fieldshift.data.split import IGNORE
from fieldshift.errors import UserError
from fieldshift.search.run import of_classes
from fieldshift.settings import shown
from fieldshift.wording import counted

READ_AT_ONCE = 256


@dataclass(frozen=True)
class Contents:
    """The counts of the images' grey levels (C, 256), a digest of all samples, and a warning about the masks, if any."""

    levels: Tensor
    digest: str
    warnings: tuple[str, ...]


def read_through(train: Split, classes: int) -> Contents:
    """Reads all samples once.

    Raises UserError for labels that the classes do not have, and for masks in which at most one class is labelled.
    """
    levels, state = torch.zeros(1, 256, dtype=torch.int64), hashlib.sha256()
    pixels, ignored, are_masks = torch.zeros(classes, dtype=torch.int64), 0, False
    for places in torch.arange(len(train)).split(READ_AT_ONCE):
        images, labels = train.gather(places)
        levels = levels + grey_levels(images).cpu()
        state.update(digest_of(images, labels).encode())
        are_masks = labels.ndim > 1
        labelled = labels[labels != IGNORE] if are_masks else labels
        ignored += labels.numel() - labelled.numel()
        if len(labelled):
            check_labels(int(labelled.min()), int(labelled.max()), classes)
            pixels += torch.bincount(labelled, minlength=classes).cpu()
    warnings = tuple(missing_in_masks(pixels.tolist(), ignored)) if are_masks else ()
    return Contents(levels, state.hexdigest()[:16], warnings)


def check_labels(least: int, most: int, classes: int) -> None:
    """Raises UserError unless labels from the least to the most are those of that many classes."""
    if least < 0:
        raise UserError(f"The smallest label is {least}, but labels count from 0.")
    if most >= classes:
        raise UserError(f"The largest label is {most}, but the model has {classes} outputs, for labels from 0.")


def missing_in_masks(pixels: list[int], ignored: int) -> list[str]:
    """A warning about the classes without a pixel, from the number of pixels of each class and of the ignored ones.

    Raises UserError where no pixel has a class, and where all others than those of one class are ignored.
    """
    names = names_of(len(pixels))
    present = [name for name, number in zip(names, pixels, strict=True) if number]
    if not present:
        raise UserError(f"No pixel of the masks is labelled (all are {IGNORE}); give masks with classes.")
    if len(present) == 1 and ignored:
        raise UserError(
            f"The masks have only the values {present[0]} and {IGNORE} (= ignored); give 0 and 1 for two classes."
        )
    missing = [name for name in names if name not in present]
    return [f"Warning: the masks have no pixel of {of_classes(missing, names)}; add images."] if missing else []


def given_statistics(mean: Any, std: Any, channels: int) -> Statistics | None:
    """The given mean and deviation per channel, None where neither is given. Raises UserError where they do not fit."""
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise UserError("Only one of mean and std is given; give both, or neither for those of the images.")
    means, deviations = numbers("mean", mean, channels), numbers("std", std, channels)
    if not all(0 <= each <= 1 for each in means):
        raise UserError(
            f"mean is {means}, but each must be from 0 to 1: images are scaled to [0, 1]; divide a mean and a std on the scale "
            "0 to 255 by 255."
        )
    if not all(0 < each < math.inf for each in deviations):
        raise UserError(f"std is {deviations}, but each must be above 0 and finite.")
    return means, deviations


def numbers(name: str, given: Any, channels: int) -> tuple[float, ...]:
    """The numbers, one per channel, of a list, an array or a tensor. Raises UserError for anything else."""
    try:
        found = tuple(map(float, given)) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else ()
    except (TypeError, ValueError, RuntimeError):
        found = ()
    if len(found) != channels:
        raise UserError(
            f"{name} is {shown(given)}, but must be a list of {counted(channels, 'number')}, one per channel."
        )
    return found
