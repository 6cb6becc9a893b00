"""The smallest images and batches that a network can read, determined by shapes alone before any work."""

from __future__ import annotations

import torch
from torch import nn

from fieldshift.errors import UserError, reason_of
from fieldshift.networks.twin import twin
from fieldshift.wording import counted

LARGEST_SIDE = 512


def check_batch_and_size(
    network: nn.Module,
    name: str,
    *,
    images: int,
    rows: int,
    channels: int,
    size: tuple[int, int],
    training: bool,
    per_worker: bool = True,
) -> None:
    """Raises UserError where a 2D network cannot read images (N, C, H, W) of `size` (H, W), or so few per step.

    images: number per step and worker, or of all workers together where not `per_worker`; rows: the network's rows per image,
    its frames. training: whether batch normalisation needs several values per channel. Nothing is computed, and the network is
    not changed.
    """
    if passes(network, (images * rows, channels, *size), training):
        return
    for more in (2, 4, 8):
        if training and passes(network, (more * images * rows, channels, *size), training):
            raise UserError(
                f"The network {name} cannot learn from {counted(images, 'image')} per step: one of its normalisations has a "
                f"single value per channel; give --recipe.batch {more * images} or more{' per worker' if per_worker else ''}."
            )
    side = max(size)
    while side < LARGEST_SIDE:
        side *= 2
        if passes(network, (max(images, 2) * rows, channels, side, side), training):
            raise UserError(
                f"The network {name} cannot read images of {size[0]} x {size[1]} px, which are too small for it "
                f"(those of {side} x {side} px are not); enlarge them, or use another network, such as tiny-resnet."
            )
    reason = failure(network, (images * rows, channels, *size), training)
    raise UserError(f"The network {name} cannot read images of {channels} x {size[0]} x {size[1]}: {reason}.")


def passes(network: nn.Module, shape: tuple[int, ...], training: bool) -> bool:
    """Whether the network can read images of this shape."""
    return failure(network, shape, training) is None


def failure(network: nn.Module, shape: tuple[int, ...], training: bool) -> str | None:
    """The reason why the network cannot read images of this shape, in one line; None where it can."""
    try:
        with torch.no_grad():
            twin(network).train(training)(torch.empty(shape, device="meta"))
    except NotImplementedError:  # an operation needs values: shapes alone do not tell
        return None
    except (RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
        return None if "meta" in str(error) else reason_of(error)  # a value that meta tensors do not have
    return None
