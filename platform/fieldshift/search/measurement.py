"""Loss and score of variants of a supernet over the whole alpha half: the numbers that decisions rest on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldshift.search.supernet import AnySupernet, batch_statistics
from fieldshift.training.batch_statistics import meets_others, uncounted
from fieldshift.training.distributed import sum_across_workers
from fieldshift.training.frames import as_floats
from fieldshift.training.objectives import Objective

Batches = Callable[[], Iterator[tuple[Tensor, Tensor, Tensor]]]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Loss and score (accuracy or mIoU, in [0, 1]) of one variant of the supernet over the whole alpha half.

    `losses` (N,) are those of this worker's images.
    """

    loss: float
    score: float
    losses: Float[Tensor, " images"]


class Measurement:
    """The loss and the score of one variant, added up over batches and workers."""

    def __init__(self, objective: Objective, device: torch.device) -> None:
        self.objective = objective
        self.score = objective.new_score(device)
        self.losses = [torch.zeros(0, dtype=torch.float64, device=device)]

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Counts the images of a batch."""
        if not len(targets):
            return
        self.score.update(logits, targets)
        self.losses.append(self.objective.loss(logits, targets, reduction="none").double())

    def result(self) -> Measured:
        """Loss and score over all workers."""
        losses = torch.cat(self.losses)
        loss, count = sum_across_workers(torch.stack([losses.sum(), losses.new_tensor(len(losses))])).tolist()
        return Measured(loss=loss / count, score=self.score.compute(), losses=losses)


@torch.no_grad()
def measure_weights(
    supernet: AnySupernet, variants: Sequence[Tensor], edge: int, batches: Batches, objective: Objective
) -> list[Measured]:
    """Measures the supernet under each of several mixture weights (E, O), over all samples of all workers.

    The variants differ at one edge: what does not depend on it is computed once per batch.
    """
    measurements = [Measurement(objective, variants[0].device) for _ in variants]
    with batch_statistics(supernet.network):
        for images, targets, _ in batches():
            for pixels in pixels_to_measure(images, supernet.network):
                known = supernet.known_before(edge, pixels, variants[0])
                for measurement, weights in zip(measurements, variants, strict=True):
                    measurement.add(supernet(pixels, weights, known), targets)
    return [measurement.result() for measurement in measurements]


@torch.no_grad()
def measure_without_edges(
    supernet: AnySupernet, removed: Sequence[int | None], batches: Batches, objective: Objective
) -> list[Measured]:
    """Measures the decided cell without each of the edges (None: with all), over all samples of all workers."""
    cell = supernet.cell
    measurements, kept = [Measurement(objective, cell.alpha.device) for _ in removed], list(cell.kept)
    with batch_statistics(supernet.network):
        try:
            for images, targets, _ in batches():
                for measurement, edge in zip(measurements, removed, strict=True):
                    cell.kept = [stays and e != edge for e, stays in enumerate(kept)]
                    for pixels in pixels_to_measure(images, supernet.network):
                        measurement.add(supernet(pixels), targets)
        finally:
            cell.kept = kept
    return [measurement.result() for measurement in measurements]


def pixels_to_measure(images: Tensor, network: nn.Module) -> Iterator[Tensor]:
    """Yields the part of a batch that this worker measures, in [0, 1], if any.

    While statistics are shared, a worker without images evaluates an empty picture, which is not counted, with the others.
    """
    if len(images):
        yield as_floats(images)
    elif meets_others(network):
        with uncounted(network):
            yield torch.zeros(1, *images.shape[1:], device=images.device)


def standard_error(differences: Float[Tensor, " images"]) -> float:
    """The standard error of the mean of float64 `differences` (N,), over all workers' images; 0 for a single one."""
    sums = torch.stack([differences.sum(), differences.square().sum(), differences.new_tensor(len(differences))])
    total, squares, count = sum_across_workers(sums).tolist()
    return math.sqrt(max(0.0, squares - total**2 / count) / max(1.0, count - 1) / count)
