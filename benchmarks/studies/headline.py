"""The tables of README.md: the scores as they are judged, and without test-time averaging."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from tables import BUDGETS, Cell, Study, markdown, points

from fieldshift.report.intervals import Difference, paired_difference


def headline_table(study: Study, budgets: Sequence[str], arms: Sequence[str]) -> str:
    """One row per arm, the best of the first cell and budget first: passes per image, scores, and scores without averaging."""
    columns = [(cell, budget) for cell in study.cells.values() for budget in budgets]
    cell, budget = columns[0]
    rows = []
    for arm in [arm for arm in cell.arms(budget) if arm in arms]:
        shown = f"**{arm}**" if arm.startswith("das-folded") else arm
        judged = [cell.score(arm, budget) for cell, budget in columns]
        single = [cell.score(arm, budgets[0], averaged=False) for cell in study.cells.values()]
        rows.append([shown, f"{cell.row(arm, budget)['passes']:.0f}", *judged, *single])
    heads = [f"{cell.name}, {BUDGETS[budget]}" for cell, budget in columns]
    singles = [f"{name}, {BUDGETS[budgets[0]]}, not averaged" for name in study.cells]
    return markdown(["arm", "passes", *heads, *singles], rows)


def gains_table(study: Study, arm: str, budgets: Iterable[str]) -> str:
    """The differences of an arm to the best 2D arm and the best enlarged field, as judged and without averaging."""
    columns = [(cell, budget) for cell in study.cells.values() for budget in budgets]
    rows = []
    for averaged, kind in ((True, ""), (False, ", not averaged")):
        for enlarged, label in ((False, "best 2D arm"), (True, "best enlarged field")):
            gaps = [gap(cell, arm, budget, enlarged=enlarged, averaged=averaged) for cell, budget in columns]
            rows.append([f"{label}{kind}", *map(points, gaps)])
    return markdown(["against", *(f"{cell.name}, {BUDGETS[budget]}" for cell, budget in columns)], rows)


def gap(cell: Cell, arm: str, budget: str, *, enlarged: bool, averaged: bool) -> Difference:
    """The difference of an arm to the best arm without motion, with or without an enlarged field and averaging."""
    opponents = [cell.judged(name, budget, averaged=averaged) for name in cell.opponents(budget, enlarged=enlarged)]
    best = max(opponents, key=lambda scores: statistics.mean(scores.values()))
    return paired_difference(cell.judged(arm, budget, averaged=averaged), best)
