"""Divides a split: the two halves of a bilevel search and the held-out part of a tuning run, stratified by class."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from fieldshift.data.split import Split
from fieldshift.errors import UserError
from fieldshift.whole_file import write_whole
from fieldshift.wording import counted


def halves(split: Split, seed: int) -> tuple[Int64[Tensor, " first"], Int64[Tensor, " second"]]:
    """Divides the split's indices into two disjoint halves, stratified by class: one for the weights, one for alpha.

    The halves are sorted, contain every index once, and differ by at most one sample, overall and in each class. Raises
    UserError when there are fewer than two samples.
    """
    if len(split) < 2:
        raise UserError(
            f"A split of {counted(len(split), 'sample')} cannot be halved; give at least 2 training samples."
        )
    return stratified(split.targets, 0.5, seed)


def holdout(split: Split, fraction: float, seed: int) -> tuple[Int64[Tensor, " kept"], Int64[Tensor, " held"]]:
    """Divides the split's indices into (kept, held out), with `fraction` in (0, 1) of every class held out.

    Both are sorted and disjoint and contain every index once. Raises UserError if either would be empty.
    """
    if not 0 < fraction < 1:
        raise UserError(f"The fraction to hold out is {fraction}, but must be above 0 and below 1.")
    kept, held = stratified(split.targets, 1 - fraction, seed)
    if len(kept) == 0 or len(held) == 0:
        raise UserError(
            f"Holding out {fraction} of {len(split)} samples leaves {len(kept)} and {len(held)}; give more samples or"
            " a fraction nearer to one half."
        )
    return kept, held


def write_parts(path: Path, digest: str, **parts: Int64[Tensor, " _"]) -> None:
    """Writes the use of each training sample, by index in the data set with this digest, as JSON."""
    values = {"data": digest, **{name: indices.tolist() for name, indices in parts.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(values, separators=(",", ":")) + "\n")


def limited(targets: Int64[Tensor, " samples"], limit: int | None, seed: int) -> Int64[Tensor, " kept"]:
    """The sorted indices of `limit` samples in the proportions of the classes; all if there are not more."""
    if limit is None or limit >= len(targets):
        return torch.arange(len(targets))
    if limit < 1:
        raise UserError(f"A limit of {limit} samples was given, but must be at least 1; leave it out for all of them.")
    return stratified(targets, limit / len(targets), seed)[0]


def stratified(
    targets: Int64[Tensor, " samples"], share: float, seed: int
) -> tuple[Int64[Tensor, " first"], Int64[Tensor, " second"]]:
    """Two sorted parts of the indices, the first holding round(share * N) samples, spread evenly over every class.

    The shuffled classes are concatenated; sample i goes to the first part where floor((i + 1) * share) steps up (with one
    rounding offset), so that no class and no prefix deviates by more than one sample.
    """
    targets = targets.cpu()
    count = len(targets)
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(count, generator=generator)
    by_class = shuffled[torch.argsort(targets[shuffled], stable=True)]
    first_size = round(share * count)
    steps = torch.div(torch.arange(count + 1) * first_size, max(count, 1), rounding_mode="floor")
    chosen = steps[1:] > steps[:-1]
    return by_class[chosen].sort().values, by_class[~chosen].sort().values
