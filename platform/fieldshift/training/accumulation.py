"""Gradient accumulation: a worker's part of a batch is computed in micro-batches, one after another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from jaxtyping import Float, Int
from torch import Tensor, nn

from fieldshift.training import distributed


def micro_batches(
    video: Float[Tensor, "batch frames channels height width"], targets: Int[Tensor, "batch ..."], number: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """`number` parts of a batch, in order, whose sizes differ by at most one."""
    yield from zip(video.tensor_split(number), targets.tensor_split(number), strict=True)


def micro_batch_count(samples: int, batch: int, accumulate: int) -> int:
    """The number of micro-batches of every worker: `accumulate`, or fewer where a worker gets fewer images in a step."""
    return max(1, min(accumulate, min(batch, samples) // distributed.world_size()))


def gradients_shared(model: nn.Module, shared: bool) -> AbstractContextManager[object]:
    """Makes a backward pass within the block average the gradients over workers, which only a step's last one needs."""
    if shared or not distributed.is_distributed():
        return nullcontext()
    kept: AbstractContextManager[object] = model.no_sync()  # type: ignore[operator]
    return kept
