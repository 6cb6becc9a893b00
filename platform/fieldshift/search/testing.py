"""The conformance suite for selection rules: `check_rule(rule)` raises AssertionError with one line for a violated property.

Use it for new rules:

    from fieldshift.search.testing import check_rule
    check_rule(MyRule())

Needs neither pytest nor torch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fieldshift.search.rules import Alternatives, SelectionRule

CRITERIA = ("loss", "score")


class Measured(NamedTuple):
    """A measurement of no network."""

    loss: float
    score: float


class Measuring:
    """Alternatives whose measurements are counted."""

    def __init__(self, weights: Sequence[float], criterion: str, *, at: str = "edge 0->2", seed: int = 3) -> None:
        self.calls = 0
        self.alternatives = Alternatives(
            at=at, weights=tuple(weights), criterion=criterion, seed=seed, measure=self._measure
        )

    def _measure(self) -> list[Measured]:
        self.calls += 1
        count = len(self.alternatives.weights)
        return [Measured(1.0, 0.5), *(Measured(1.0 + 0.1 * i, 0.5 - 0.01 * i) for i in range(count))]


def check_rule(rule: SelectionRule) -> None:
    """Checks each property that a search relies on; AssertionError names the first failure. The rule need not be registered."""
    for check in CHECKS:
        try:
            check(rule)
        except AssertionError as error:
            name = check.__name__.removeprefix("check_").replace("_", " ")
            raise AssertionError(f"{type(rule).__name__}: {name}: {error or 'does not hold'}") from error


def _weights(count: int) -> list[float]:
    total = sum(range(1, count + 1))
    return [(1 + (2 * i) % count) / total for i in range(count)]


def check_one_finite_cost_per_alternative(rule: SelectionRule) -> None:
    """Any number of alternatives, one included, gets as many finite numbers."""
    for criterion in CRITERIA:
        for count in (1, 2, 7):
            costs = rule.removal_costs(Measuring(_weights(count), criterion).alternatives)
            assert len(costs) == count, f"{count} alternatives got {len(costs)} costs"
            assert all(isinstance(cost, float) and math.isfinite(cost) for cost in costs), f"costs are {costs}"


def check_the_same_alternatives_give_the_same_costs(rule: SelectionRule) -> None:
    """Costs depend on the alternatives alone, so that a search can be resumed and workers agree."""
    for criterion in CRITERIA:
        first = rule.removal_costs(Measuring(_weights(5), criterion).alternatives)
        rule.removal_costs(Measuring(_weights(4), criterion, at="node 7", seed=8).alternatives)
        again = rule.removal_costs(Measuring(_weights(5), criterion).alternatives)
        assert first == again, f"{first} became {again} after another decision"


def check_global_random_numbers_are_left_alone(rule: SelectionRule) -> None:
    """Python's global generator is not used: the order of decisions would then matter."""
    before, costs = random.getstate(), []
    try:
        for seed in range(2):
            random.seed(seed)
            costs.append(rule.removal_costs(Measuring(_weights(5), "loss").alternatives))
    finally:
        random.setstate(before)
    assert costs[0] == costs[1], "the rule draws from the global generator; use random.Random with the seed"


def check_it_measures_if_it_says_so(rule: SelectionRule) -> None:
    """`measures` holds: a rule without it never measures, one with it does."""
    measuring = Measuring(_weights(3), "loss")
    rule.removal_costs(measuring.alternatives)
    assert bool(measuring.calls) == rule.measures, (
        f"measures is {rule.measures}, but it measured {measuring.calls} times"
    )


def check_its_quantity_is_named(rule: SelectionRule) -> None:
    """The quantity is one line of words, for explanations."""
    assert rule.quantity.strip(), "quantity is empty"
    assert "\n" not in rule.quantity, "quantity has several lines"


CHECKS: tuple[Callable[[SelectionRule], None], ...] = (
    check_one_finite_cost_per_alternative,
    check_the_same_alternatives_give_the_same_costs,
    check_global_random_numbers_are_left_alone,
    check_it_measures_if_it_says_so,
    check_its_quantity_is_named,
)
