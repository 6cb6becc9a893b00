"""Selection: the option that an edge keeps and the edges that a node keeps, judged by the cost of removing them.

The size of alpha is not the strength of an option: it shows how close its output is to what the network already prefers
(DARTS-PT). Therefore an option's mixture weight is set to 0, the others are not renormalised, and the loss or score on
the whole alpha half shows what was lost.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fieldshift.search.choices import Choices
from fieldshift.search.config import SearchConfig
from fieldshift.search.derivation import incoming_edges, live_nodes
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
    losses: Tensor


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One decision, as stored in policies and logs.

    Attributes:
        kind: option (of an edge) or edges (of a node).
        at: the position in words, "edge 0->2" or "node 5".
        chosen: labels of the kept candidates.
        harm: label -> cost of removal (loss added or score lost); or the weight, for magnitude.
        margin: harm of the weakest kept candidate minus the harm of the strongest dropped one.
        margin_error: standard error of the margin over the images it was measured on, in pairs [D: the research
            code reports none]; None if losses were not compared. A margin below two standard errors may be chance.
        whole: loss and score without removal; empty if nothing was measured.
    """

    kind: str
    at: str
    chosen: list[str]
    harm: dict[str, float]
    margin: float
    whole: dict[str, float]
    margin_error: float | None = None


def next_edge(cell: Choices, seed: int) -> int | None:
    """The next edge without an option, in a random order that depends on the seed alone."""
    order = list(range(len(cell.edges)))
    random.Random(seed).shuffle(order)
    return next((e for e in order if cell.decided[e] is None), None)


def next_node(cell: Choices, edges_per_node: int) -> int | None:
    """The next node with too many edges, from the output back; nodes that no longer reach the output are skipped [D]."""
    crowded = (
        n for n in live_nodes(cell.space, cell.kept) if len(incoming_edges(cell.space, n, cell.kept)) > edges_per_node
    )
    return next(crowded, None)


def is_open(cell: Choices, edges_per_node: int) -> bool:
    """Whether any decision is left."""
    return not cell.is_decided or next_node(cell, edges_per_node) is not None


@dataclass(frozen=True, kw_only=True)
class Judge:
    """The inputs of decisions: the supernet, batches over the whole alpha half, and the rules of `config`."""

    supernet: AnySupernet
    batches: Batches
    objective: Objective
    config: SearchConfig
    seed: int

    def harms(
        self, place: str, strengths: Sequence[float], measured: Callable[[], list[Measured]]
    ) -> tuple[list[float], list[Measured]]:
        """The harm of removing each of several candidates, by the rule of `config.selection`, and the measurements.

        `strengths` are their weights; `measured` returns the whole, then the whole without each of them.
        """
        if self.config.selection == "magnitude":
            return list(strengths), []
        if self.config.selection == "random":
            draw = random.Random(f"{self.seed} {place}")
            return [draw.random() for _ in strengths], []
        variants = whole, *without = measured()
        if self.config.criterion == "loss":
            return [each.loss - whole.loss for each in without], list(variants)
        return [whole.score - each.score for each in without], list(variants)


def decide_option(edge: int, judge: Judge) -> Decision:
    """Chooses the option of one edge and writes it to the cell; the network is unchanged, bit for bit."""
    cell = judge.supernet.cell
    weights = cell.weights().detach()
    options = range(len(cell.options))
    place = cell.edge_names[edge]

    def measured() -> list[Measured]:
        without = [weights.index_put((torch.tensor(edge), torch.tensor(o)), weights.new_zeros(())) for o in options]
        return measure([weights, *without], edge, judge)

    harm, variants = judge.harms(place, weights[edge].tolist(), measured)
    ranked = by_harm(harm, variants, weights[edge].tolist())
    cell.decided[edge] = ranked[0]
    labels = [option.label for option in cell.options]
    return decision("option", place, labels, harm, ranked, kept=1, variants=variants, criterion=judge.config.criterion)


def decide_edges(node: int, edges_per_node: int, judge: Judge) -> Decision:
    """Keeps a node's edges with the highest cost of removal; without an edge the node is the mean of the others."""
    cell = judge.supernet.cell
    incoming = incoming_edges(cell.space, node, cell.kept)
    place = f"node {node}"
    strengths = cell.alpha.detach().softmax(-1).amax(-1)[incoming].tolist()
    harm, variants = judge.harms(place, strengths, lambda: measure_without_edges([None, *incoming], judge))
    ranked = by_harm(harm, variants, strengths)
    for i in ranked[edges_per_node:]:
        cell.kept[incoming[i]] = False
    labels = [f"{cell.edges[e][0]}->{node} {cell.options[cell.decided[e] or 0].label}" for e in incoming]
    criterion = judge.config.criterion
    return decision("edges", place, labels, harm, ranked, kept=edges_per_node, variants=variants, criterion=criterion)


def by_harm(harm: Sequence[float], variants: Sequence[Measured], strengths: Sequence[float]) -> list[int]:
    """The candidates in order of decreasing harm.

    Ties (common, since scores are shares of few images) are broken by the loss that removal adds, then by the
    larger weight [D: the research code keeps the first in the order of the space].
    """
    added = [each.loss for each in variants[1:]] or [0.0] * len(harm)
    return sorted(range(len(harm)), key=lambda i: (-harm[i], -added[i], -strengths[i]))


def decision(
    kind: str,
    at: str,
    labels: Sequence[str],
    harm: Sequence[float],
    ranked: Sequence[int],
    *,
    kept: int,
    variants: Sequence[Measured],
    criterion: str,
) -> Decision:
    error = None
    if variants and criterion == "loss" and len(ranked) > kept:
        error = standard_error(variants[1 + ranked[kept - 1]].losses - variants[1 + ranked[kept]].losses)
    return Decision(
        kind=kind,
        at=at,
        chosen=[labels[i] for i in sorted(ranked[:kept])],
        harm=dict(zip(labels, harm, strict=True)),
        margin=harm[ranked[kept - 1]] - harm[ranked[kept]] if len(ranked) > kept else 0.0,
        whole={"loss": variants[0].loss, "score": variants[0].score} if variants else {},
        margin_error=error,
    )


def standard_error(differences: Tensor) -> float:
    """The standard error of the mean of `differences` (N,) float64, over all workers' images; 0 for a single one."""
    sums = torch.stack([differences.sum(), differences.square().sum(), differences.new_tensor(len(differences))])
    total, squares, count = sum_across_workers(sums).tolist()
    return math.sqrt(max(0.0, squares - total**2 / count) / max(1.0, count - 1) / count)


@torch.no_grad()
def measure(variants: Sequence[Tensor], edge: int, judge: Judge) -> list[Measured]:
    """Loss and score of the supernet under each of the mixture weights, over all samples of all workers.

    The variants differ at one edge: what does not depend on it is computed once per batch.
    """
    supernet, tallies = judge.supernet, [Tally(judge) for _ in variants]
    with batch_statistics(supernet.network):
        for images, targets, _ in judge.batches():
            for pixels in shown(images, supernet.network):
                known = supernet.known_before(edge, pixels, variants[0])
                for tally, weights in zip(tallies, variants, strict=True):
                    tally.add(supernet(pixels, weights, known), targets)
    return [tally.result() for tally in tallies]


@torch.no_grad()
def measure_without_edges(removed: Sequence[int | None], judge: Judge) -> list[Measured]:
    """Loss and score of the decided cell without each of the edges (None: with all), over all workers' samples."""
    supernet, tallies = judge.supernet, [Tally(judge) for _ in removed]
    kept = list(supernet.cell.kept)
    with batch_statistics(supernet.network):
        try:
            for images, targets, _ in judge.batches():
                for tally, edge in zip(tallies, removed, strict=True):
                    supernet.cell.kept = [stays and e != edge for e, stays in enumerate(kept)]
                    for pixels in shown(images, supernet.network):
                        tally.add(supernet(pixels), targets)
        finally:
            supernet.cell.kept = kept
    return [tally.result() for tally in tallies]


def shown(images: Tensor, network: nn.Module) -> Iterator[Tensor]:
    """Yields the part of a batch that this worker measures, in [0, 1], if any.

    While statistics are shared, a worker without images evaluates an empty picture, which is not counted, with the others.
    """
    if len(images):
        yield as_floats(images)
    elif meets_others(network):
        with uncounted(network):
            yield torch.zeros(1, *images.shape[1:], device=images.device)


class Tally:
    """Adds up loss and score over batches and workers."""

    def __init__(self, judge: Judge) -> None:
        device = judge.supernet.cell.alpha.device
        self.objective = judge.objective
        self.score = judge.objective.new_score(device)
        self.losses = [torch.zeros(0, dtype=torch.float64, device=device)]

    def add(self, logits: Tensor, targets: Tensor) -> None:
        if not len(targets):
            return
        self.score.update(logits, targets)
        self.losses.append(self.objective.loss(logits, targets, reduction="none").double())

    def result(self) -> Measured:
        losses = torch.cat(self.losses)
        loss, count = sum_across_workers(torch.stack([losses.sum(), losses.new_tensor(len(losses))])).tolist()
        return Measured(loss=loss / count, score=self.score.compute(), losses=losses)
