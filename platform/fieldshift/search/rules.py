"""Selection rules: the cost of removing each of several alternatives, by which a search keeps operations and edges.

A rule is a class with one method, registered under the name of `search.selection`:

    class Entropy(SelectionRule):
        quantity = "the entropy"

        def removal_costs(self, alternatives: Alternatives) -> list[float]: ...

    register_rule("entropy", Entropy())

`fieldshift.search.testing.check_rule` checks that a rule keeps to what the search relies on. A search on several workers, or
through Ray, needs the module that registers the rule imported in every worker.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fieldshift.errors import UserError


class Quality(Protocol):
    """Loss and score (accuracy or mIoU, in [0, 1]) of the network over half of the training set."""

    @property
    def loss(self) -> float: ...

    @property
    def score(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Alternatives:
    """The alternatives of one decision: the operations of an edge, or the incoming edges of a node.

    Attributes:
        at: the edge or node in words, "edge 0->2" or "node 5".
        weights: the mixture weight of each alternative, in [0, 1].
        criterion: loss or score, the quantity that measurements are compared by.
        seed: of the search; random draws depend on it and on `at` alone.
        measure: measures the network with all alternatives, then without each of them, on all workers; the network is
            unchanged, and repeated calls measure once.
    """

    at: str
    weights: Sequence[float]
    criterion: str
    seed: int
    measure: Callable[[], Sequence[Quality]]


class SelectionRule(ABC):
    """A rule by which an edge keeps one operation and a node some of its edges: those whose removal costs most.

    `measures` tells whether the rule measures the network, which a search then tunes between its decisions; `quantity`
    names the costs in explanations.
    """

    measures: bool = False
    quantity: str = "the cost of removal"

    @abstractmethod
    def removal_costs(self, alternatives: Alternatives) -> list[float]:
        """The cost of removing each alternative, a finite number in any unit. The alternatives with the largest are kept."""


class Perturbation(SelectionRule):
    """Perturbation (DARTS-PT, Wang et al., ICLR 2021): the loss added, or the score lost, by removing an alternative.

    The size of alpha is not the strength of an operation: it shows how close its output is to what the network already
    prefers. Therefore a mixture weight is set to 0, the others are not renormalised, and the network is measured again.
    """

    measures = True

    def removal_costs(self, alternatives: Alternatives) -> list[float]:
        whole, *without = alternatives.measure()
        if alternatives.criterion == "loss":
            return [each.loss - whole.loss for each in without]
        return [whole.score - each.score for each in without]


class Magnitude(SelectionRule):
    """Magnitude (DARTS, Liu et al., ICLR 2019): the mixture weight of an alternative."""

    quantity = "the weight in the mixture"

    def removal_costs(self, alternatives: Alternatives) -> list[float]:
        return list(alternatives.weights)


class Random(SelectionRule):
    """Random selection, a control: a number in [0, 1) drawn from the seed and the position."""

    quantity = "a random number"

    def removal_costs(self, alternatives: Alternatives) -> list[float]:
        draw = random.Random(f"{alternatives.seed} {alternatives.at}")
        return [draw.random() for _ in alternatives.weights]


RULES: dict[str, SelectionRule] = {}


def register_rule(name: str, rule: SelectionRule) -> SelectionRule:
    """Adds a rule to the registry and returns it; a taken name raises UserError."""
    if name in RULES:
        raise UserError(f"The selection rule '{name}' is already registered; choose another name.")
    RULES[name] = rule
    return rule


register_rule("perturbation", Perturbation())
register_rule("magnitude", Magnitude())
register_rule("random", Random())
