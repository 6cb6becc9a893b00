"""The order of samples in an epoch, the same for any number of workers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from fieldshift.data.split import Split
from fieldshift.errors import UserError

Batch = tuple[UInt8[Tensor, "batch channels height width"], Int64[Tensor, "batch ..."], Int64[Tensor, " batch"]]

LOOK_AHEAD = 2


def epoch_order(count: int, *, seed: int, epoch: int, shuffle: bool = True) -> Int64[Tensor, " samples"]:
    """The indices 0 .. count - 1 in the order of one epoch; a function of (count, seed, epoch) only."""
    if not shuffle:
        return torch.arange(count)
    # Combine the two numbers into one seed such that (1, 2) and (2, 1) differ.
    mixed = (seed * 0x9E3779B97F4A7C15 + epoch * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**63
    return torch.randperm(count, generator=torch.Generator().manual_seed(mixed))


def batch_count(count: int, batch_size: int, *, drop_last: bool = False) -> int:
    """The number of global batches of an epoch over `count` samples."""
    return count // batch_size if drop_last else -(-count // batch_size)


def batches(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    rank: int = 0,
    world: int = 1,
    drop_last: bool = False,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """Yields one epoch of `split` as (images uint8 (B, C, H, W), targets int64, indices int64 (B,)) on `device`.

    `batch_size` is the GLOBAL batch: its samples do not depend on `world`, and rank r gets the contiguous slice from
    B * r // world to B * (r + 1) // world. Nothing is padded or repeated: over all ranks every sample occurs exactly
    once. All ranks get the same number of batches; when the last global batch has fewer samples than there are ranks,
    the part of some ranks is empty (B = 0). Raises UserError for a batch smaller than the number of ranks, and for a
    `drop_last` that leaves no batch.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank must be in 0 .. {world - 1} for a world of {world}, got {rank}.")
    if batch_size < world:
        raise UserError(f"A global batch of {batch_size} cannot feed {world} workers; make the batch at least {world}.")
    total = batch_count(len(split), batch_size, drop_last=drop_last)
    if total == 0:
        raise UserError(f"{len(split)} samples are fewer than one batch of {batch_size}; make the batch smaller.")
    order = epoch_order(len(split), seed=seed, epoch=epoch, shuffle=shuffle).to(split.targets.device)
    parts = []
    for number in range(total):
        whole = order[number * batch_size : (number + 1) * batch_size]
        parts.append(whole[len(whole) * rank // world : len(whole) * (rank + 1) // world])
    return gathered(split, parts, torch.device(device))


def gathered(split: Split, parts: list[Tensor], device: torch.device) -> Iterator[Batch]:
    for number, indices in enumerate(parts):
        if split.streams:
            for coming in parts[number : number + 1 + LOOK_AHEAD]:
                split.prefetch(coming)
        images, targets = split.gather(indices)
        if device.type == "cuda" and not images.is_cuda:
            # The copy overlaps with GPU computation only from pinned memory.
            images, targets, indices = images.pin_memory(), targets.pin_memory(), indices.pin_memory()
        yield (
            images.to(device, non_blocking=True),
            targets.to(device, non_blocking=True),
            indices.to(device, non_blocking=True),
        )
