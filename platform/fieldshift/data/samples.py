"""Identities of files and arrays, and the restoration of an earlier split."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from fieldshift.data.files.content import FileContents, common_folder
from fieldshift.data.files.listing import Listing, facts
from fieldshift.data.identity import PARTS, Identity, PartIdentity
from fieldshift.data.leaks import hashed
from fieldshift.data.split import TensorSplit
from fieldshift.errors import UserError

LARGEST_READ = 8 * 2**30


def file_identity(
    classes: tuple[str, ...], parts: dict[str, Listing], root: str, contents: FileContents, *, own: bool
) -> Identity:
    """The identity of the samples of two listings, from the contents of their files.

    Files of published sets, which do not change under their names, are represented by their sizes if they exceed 8 GiB in
    all. Own data are always read.
    """
    whole = merged(parts)
    files = [*whole.images, *(whole.masks or [])]
    if own or sum(facts(path)[0] for path in files) <= LARGEST_READ:
        hashes = contents.of(files)
    else:
        hashes = [f"{facts(path)[0]:x}" for path in files]
    names = names_below(root, whole.images)
    bounds = (0, len(parts["train"]), len(whole))
    train, test = (
        PartIdentity(
            names=tuple(names[start:end]),
            labels=tuple(whole.targets[start:end]),
            contents=tuple(hashes[start:end]),
            masks=None if whole.masks is None else tuple(hashes[len(whole) + start : len(whole) + end]),
        )
        for start, end in itertools.pairwise(bounds)
    )
    return Identity(classes=classes, train=train, test=test)


def array_identity(classes: tuple[str, ...], parts: dict[str, TensorSplit]) -> Identity:
    """The identity of the samples of two splits, from their pixels."""
    train, test = (
        PartIdentity(
            names=("",) * len(parts[part]),
            labels=tuple(parts[part].targets.tolist()),
            contents=tuple(array_hashes(parts[part].images)),
            masks=None if (masks := parts[part].masks) is None else tuple(array_hashes(masks)),
        )
        for part in PARTS
    )
    return Identity(classes=classes, train=train, test=test)


def files_like(
    name: str,
    like: Identity,
    parts: dict[str, Listing],
    root: str,
    contents: FileContents,
    *,
    drawn: bool,
    other: bool,
) -> tuple[dict[str, Listing], int] | None:
    """Restores the parts that samples have in `like`, and counts those in neither; None if all samples are new.

    drawn: whether the parts were drawn from all samples. Where the data name their test part, a sample stays in its part
    or is left out. other: whether the samples are of another folder than those of `like`.
    """
    whole = merged(parts)
    places = like.part_of(names_below(root, whole.images), contents.of(whole.images), other=other)
    if not any(places):
        return None
    kept = kept_places(name, places, len(parts["train"]), drawn=drawn)
    return {part: whole.kept(chosen) for part, chosen in kept.items()}, places.count(None)


def arrays_like(
    name: str, like: Identity, parts: dict[str, TensorSplit], *, drawn: bool, other: bool
) -> tuple[dict[str, TensorSplit], int] | None:
    """Like `files_like`. Arrays have no names: equal images in both parts of `like` all count as trained on."""
    whole = joined(parts["train"], parts["test"])
    places = like.part_of([""] * len(whole), array_hashes(whole.images), other=other)
    if not any(places):
        return None
    kept = kept_places(name, places, len(parts["train"]), drawn=drawn)
    return {part: whole.subset(torch.tensor(chosen)) for part, chosen in kept.items()}, places.count(None)


def kept_places(name: str, places: Sequence[str | None], train: int, *, drawn: bool) -> dict[str, list[int]]:
    """The positions of the samples of each part; the first `train` samples are those now in train."""
    found: dict[str, list[int]] = {}
    for part in PARTS:
        found[part] = [
            place for place, own in enumerate(places) if own == part and (drawn or (place < train) == (part == "train"))
        ]
        if not found[part]:
            raise UserError(
                f"{name} has none of the images of the run's {part} part; give the data of the run, or data with its own "
                "test part."
            )
    return found


def merged(parts: dict[str, Listing]) -> Listing:
    """The samples of train followed by those of test, in one listing."""
    train, test = parts["train"], parts["test"]
    masks = None if train.masks is None or test.masks is None else [*train.masks, *test.masks]
    return Listing([*train.images, *test.images], [*train.targets, *test.targets], masks)


def joined(train: TensorSplit, test: TensorSplit) -> TensorSplit:
    """The samples of train followed by those of test, in one split."""
    masks = None if train.masks is None or test.masks is None else torch.cat([train.masks, test.masks])
    return TensorSplit(torch.cat([train.images, test.images]), torch.cat([train.targets, test.targets]), masks)


def names_below(root: str, paths: Sequence[str]) -> list[str]:
    """Names of files below `root`, or below their common folder."""
    base = root or common_folder(paths)
    return [path[len(base) :].lstrip(os.sep).replace(os.sep, "/") for path in paths]


def array_hashes(arrays: UInt8[Tensor, "samples ..."]) -> list[str]:
    """A hash of each sample's values."""
    return [hashed(array.tobytes()).hex() for array in arrays.cpu().numpy()]
