"""The chart of a search's decisions: marks of choices that may be chance, and the axis by what was measured."""

from __future__ import annotations

from typing import Any

import pytest

from fieldshift.report import decision_chart


def decision(**settings: Any) -> dict[str, Any]:
    return {"kind": "option", "at": "edge 0->1", "harm": {"zoom": 0.1, "rotate": 0.05}, "chosen": ("zoom",), **settings}


@pytest.mark.parametrize(
    ("settings", "marked"),
    [
        ({}, False),
        ({"margin": 0.05, "margin_error": None}, False),
        ({"margin": 0.05, "margin_error": 0.02}, False),
        ({"margin": 0.05, "margin_error": 0.03}, True),
        ({"margin": 0.0, "margin_error": 0.0}, True),
    ],
)
def test_a_margin_of_at_most_two_standard_errors_is_marked(settings: dict[str, Any], marked: bool) -> None:
    (panel,) = decision_chart([decision(**settings)]).axes
    assert panel.get_title(loc="left") == "1. edge 0->1" + " (may be chance)" * marked


@pytest.mark.parametrize(
    ("criterion", "words"), [(None, "lost when"), ("loss", "loss added when"), ("score", "score lost when")]
)
def test_the_axis_names_what_was_measured(criterion: str | None, words: str) -> None:
    assert decision_chart([decision()], criterion=criterion).get_supxlabel().startswith(words)
