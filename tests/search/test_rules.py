"""Selection rules: the registered ones and one of a third party keep to what a search relies on."""

from __future__ import annotations

import random

import pytest

from fieldshift.errors import UserError
from fieldshift.search import RULES, Alternatives, SearchConfig, SelectionRule, register_rule
from fieldshift.search.explain import explain
from fieldshift.search.rules import Magnitude, Perturbation
from fieldshift.search.testing import CHECKS, Measuring, check_rule


class LossPerWeight(SelectionRule):
    """A rule that is not FieldShift's: the loss added by removal, per mixture weight removed."""

    measures = True
    quantity = "loss added per weight removed"

    def removal_costs(self, alternatives: Alternatives) -> list[float]:
        whole, *without = alternatives.measure()
        return [(each.loss - whole.loss) / weight for each, weight in zip(without, alternatives.weights, strict=True)]


@pytest.fixture
def loss_per_weight(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(RULES, "loss-per-weight", LossPerWeight())
    return "loss-per-weight"


@pytest.mark.parametrize("rule", [*RULES.values(), LossPerWeight()], ids=lambda rule: type(rule).__name__)
def test_every_rule_passes_the_conformance_suite(rule: SelectionRule) -> None:
    check_rule(rule)


class Drawing(Magnitude):
    def removal_costs(self, alternatives: Alternatives) -> list[float]:
        return [random.random() for _ in alternatives.weights]


class Counting(Magnitude):
    calls = 0

    def removal_costs(self, alternatives: Alternatives) -> list[float]:
        Counting.calls += 1
        return [float(Counting.calls)] * len(alternatives.weights)


class Short(Magnitude):
    def removal_costs(self, alternatives: Alternatives) -> list[float]:
        return list(alternatives.weights)[:-1]


class Secret(Perturbation):
    measures = False


class Unnamed(Magnitude):
    quantity = " "


BROKEN = {
    "one finite cost per alternative": Short(),
    "the same alternatives give the same costs": Counting(),
    "global random numbers are left alone": Drawing(),
    "it measures if it says so": Secret(),
    "its quantity is named": Unnamed(),
}


@pytest.mark.parametrize(("check", "rule"), list(zip(CHECKS, BROKEN.items(), strict=True)), ids=lambda each: "")
def test_every_check_finds_a_rule_that_violates_it(check, rule) -> None:
    name, broken = rule
    with pytest.raises(AssertionError):
        check(broken)
    with pytest.raises(AssertionError, match=rf"^{type(broken).__name__}: "):
        check_rule(broken)
    assert check.__name__ == f"check_{name.replace(' ', '_')}"


def test_perturbation_is_what_removal_adds_to_the_loss_or_takes_from_the_score() -> None:
    weights = (0.5, 0.3, 0.2)
    for criterion, unit in (("loss", 0.1), ("score", 0.01)):
        costs = RULES["perturbation"].removal_costs(Measuring(weights, criterion).alternatives)
        assert costs == pytest.approx([0.0, unit, 2 * unit])


def test_a_search_decides_by_a_rule_of_a_third_party_and_tunes_as_it_measures(run, quick, loss_per_weight) -> None:
    result = run(quick(selection=loss_per_weight))
    assert result.policy.found["settings"]["selection"] == loss_per_weight
    assert len(result.history) > 2
    for decision in result.decisions:
        least = min(decision["harm"][label] for label in decision["chosen"])
        assert all(cost <= least for label, cost in decision["harm"].items() if label not in decision["chosen"])
    assert run(quick(selection=loss_per_weight)).policy.to_json() == result.policy.to_json()
    assert any("in brackets: loss added per weight removed." in line for line in explain(result.policy))


def test_a_name_is_registered_once_and_an_unknown_one_is_refused_with_the_known() -> None:
    with pytest.raises(UserError, match="'random' is already registered"):
        register_rule("random", Magnitude())
    with pytest.raises(UserError, match=r"selection is 'entropy', but must be one of perturbation, magnitude, random"):
        SearchConfig(selection="entropy")


@pytest.mark.parametrize("cost", [float("nan"), float("inf")])
def test_costs_that_are_not_finite_end_a_search(run, quick, cost, monkeypatch) -> None:
    class Broken(Magnitude):
        def removal_costs(self, alternatives):
            return [cost, *super().removal_costs(alternatives)[1:]]

    monkeypatch.setitem(RULES, "broken", Broken())
    with pytest.raises(UserError, match=r"The selection of edge .* not finite"):
        run(quick(selection="broken"))
