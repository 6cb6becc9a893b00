"""Selection: every edge keeps one operation, then every node keeps some of its edges, by the cost of their removal."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from fieldshift.errors import UserError
from fieldshift.search.cell import Cell
from fieldshift.search.config import SearchConfig
from fieldshift.search.derivation import incoming_edges, live_nodes
from fieldshift.search.measurement import Batches, Measured, measure_weights, measure_without_edges, standard_error
from fieldshift.search.rules import RULES, Alternatives, SelectionRule
from fieldshift.search.supernet import AnySupernet
from fieldshift.tensor_cache import index
from fieldshift.training.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One decision, as stored in policies and logs.

    Attributes:
        kind: option (the operation of an edge) or edges (of a node).
        at: the position in words, "edge 0->2" or "node 5".
        chosen: labels of the kept alternatives.
        harm: label -> cost of removal by the selection rule: loss added, score lost, a weight or a random number.
        margin: cost of removing the weakest kept alternative minus that of the strongest dropped one.
        margin_error: standard error of the margin over the images it was measured on, in pairs [D: the research
            code reports none]; None if losses were not compared. A margin of at most two standard errors may be chance.
        whole: loss and score without removal; empty if nothing was measured.
    """

    kind: str
    at: str
    chosen: list[str]
    harm: dict[str, float]
    margin: float
    whole: dict[str, float]
    margin_error: float | None = None


def next_edge(cell: Cell, seed: int) -> int | None:
    """The next edge without an operation, in a random order that depends on the seed alone."""
    order = list(range(len(cell.edges)))
    random.Random(seed).shuffle(order)
    return next((e for e in order if cell.decided[e] is None), None)


def next_node(cell: Cell, edges_per_node: int) -> int | None:
    """The next node with too many edges, from the output back; nodes that no longer reach the output are skipped [D]."""
    crowded = (
        n for n in live_nodes(cell.space, cell.kept) if len(incoming_edges(cell.space, n, cell.kept)) > edges_per_node
    )
    return next(crowded, None)


def is_open(cell: Cell, edges_per_node: int) -> bool:
    """Whether any decision is left."""
    return not cell.is_decided or next_node(cell, edges_per_node) is not None


@dataclass(frozen=True, kw_only=True)
class Selector:
    """The inputs of decisions: the supernet, batches over the whole alpha half, and the settings with the rule's name."""

    supernet: AnySupernet
    batches: Batches
    objective: Objective
    config: SearchConfig
    seed: int

    @property
    def rule(self) -> SelectionRule:
        """The registered rule of `config.selection`."""
        return RULES[self.config.selection]

    def choose_operation(self, edge: int) -> Decision:
        """Chooses the operation of one edge and writes it to the cell; the network is unchanged, bit for bit."""
        cell = self.supernet.cell
        mixture = cell.weights().detach()

        def measure() -> list[Measured]:
            at = index((edge,), mixture.device)
            without = [
                mixture.index_put((at, index((o,), mixture.device)), mixture.new_zeros(()))
                for o in range(len(cell.operations))
            ]
            return measure_weights(self.supernet, [mixture, *without], edge, self.batches, self.objective)

        labels = [operation.label for operation in cell.operations]
        still = [operation.is_identity for operation in cell.operations]
        decision, ranked = self._decide(
            "option", cell.edge_names[edge], labels, mixture[edge], measure, kept=1, still=still
        )
        cell.decided[edge] = ranked[0]
        return decision

    def choose_edges(self, node: int, edges_per_node: int) -> Decision:
        """Keeps a node's edges with the highest cost of removal; without an edge the node is the mean of the others."""
        cell = self.supernet.cell
        incoming = incoming_edges(cell.space, node, cell.kept)
        strengths = cell.alpha.detach().softmax(-1).amax(-1)[incoming]

        def measure() -> list[Measured]:
            return measure_without_edges(self.supernet, [None, *incoming], self.batches, self.objective)

        labels = [f"{cell.edges[e][0]}->{node} {cell.operations[cell.decided[e] or 0].label}" for e in incoming]
        decision, ranked = self._decide("edges", f"node {node}", labels, strengths, measure, kept=edges_per_node)
        for i in ranked[edges_per_node:]:
            cell.kept[incoming[i]] = False
        return decision

    def _decide(
        self,
        kind: str,
        at: str,
        labels: Sequence[str],
        weights: Tensor,
        measure: Callable[[], list[Measured]],
        *,
        kept: int,
        still: Sequence[bool] = (),
    ) -> tuple[Decision, list[int]]:
        """The decision for the `kept` alternatives whose removal costs most, and all of them in that order.

        `still` tells which alternatives are the identity, none if it is empty.
        """
        variants: list[Measured] = []

        def measured_once() -> list[Measured]:
            variants.extend([] if variants else measure())
            return variants

        criterion, strengths = self.config.criterion, weights.tolist()
        costs = self.rule.removal_costs(
            Alternatives(at=at, weights=strengths, criterion=criterion, seed=self.seed, measure=measured_once)
        )
        if not all(map(math.isfinite, costs)):
            raise UserError(
                f"The selection of {at} measured costs that are not finite ({', '.join(map(str, costs))}); the state before"
                " it is kept. Lower --search.learning_rate."
            )
        ranked = by_cost(costs, variants, strengths, still)
        dropped = ranked[kept:]
        error = None
        if variants and criterion == "loss" and dropped:
            error = standard_error(variants[1 + ranked[kept - 1]].losses - variants[1 + dropped[0]].losses)
        decision = Decision(
            kind=kind,
            at=at,
            chosen=[labels[i] for i in sorted(ranked[:kept])],
            harm=dict(zip(labels, costs, strict=True)),
            margin=costs[ranked[kept - 1]] - costs[dropped[0]] if dropped else 0.0,
            whole={"loss": variants[0].loss, "score": variants[0].score} if variants else {},
            margin_error=error,
        )
        return decision, ranked


def by_cost(
    costs: Sequence[float], variants: Sequence[Measured], strengths: Sequence[float], still: Sequence[bool] = ()
) -> list[int]:
    """The alternatives in order of decreasing cost of removal.

    Ties (common, since scores are shares of few images) are broken by the loss that removal adds, then by the
    larger weight [D: the research code keeps the first in the order of the space]. Where all alternatives are equal in cost
    and loss, nothing speaks for a motion: the identity comes first, if `still` marks one [D].
    """
    added = [each.loss for each in variants[1:]] or [0.0] * len(costs)
    nothing_differs = len(set(zip(costs, added, strict=True))) == 1
    first = [nothing_differs and each for each in still] or [False] * len(costs)
    return sorted(range(len(costs)), key=lambda i: (-costs[i], -added[i], not first[i], -strengths[i]))
