"""The tables of README.md: the scores as they are judged, and without test-time averaging."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tables import BUDGETS, Cell, Study, markdown, points

from fieldshift.report.intervals import Difference, estimate, paired_difference


def headline_table(study: Study, budgets: Sequence[str], arms: Sequence[str]) -> str:
    """One row per arm, the best of the first cell and budget first: passes per image, scores, and scores without averaging."""
    columns = [(cell, budget) for cell in study.cells.values() for budget in budgets]
    cell, budget = columns[0]
    rows = []
    for arm in [arm for arm in cell.arms(budget) if arm in arms]:
        shown = f"**{arm}**" if arm.startswith("das-folded") else arm
        judged = [cell.score(arm, budget) for cell, budget in columns]
        single = [not_averaged(cell, arm, budgets[0]) for cell in study.cells.values()]
        rows.append([shown, f"{cell.row(arm, budget)['passes']:.0f}", *judged, *single])
    heads = [f"{cell.name}, {BUDGETS[budget]}" for cell, budget in columns]
    singles = [f"{name}, {BUDGETS[budgets[0]]}, not averaged" for name in study.cells]
    return markdown(["arm", "passes", *heads, *singles], rows)


def gains_table(study: Study, arm: str, budgets: Iterable[str]) -> str:
    """The differences of an arm to the best 2D arm and the best enlarged field, as judged and without averaging."""
    columns = [(cell, budget) for cell in study.cells.values() for budget in budgets]
    rows = []
    for label, enlarged in (("best 2D arm", False), ("best enlarged field", True)):
        judged = [cell.gap(arm, cell.opponents(budget, enlarged=enlarged)[0], budget) for cell, budget in columns]
        rows.append([label, *map(points, judged)])
    for label, enlarged in (("best 2D arm, not averaged", False), ("best enlarged field, not averaged", True)):
        rows.append(
            [label, *(points(gap_not_averaged(cell, arm, budget, enlarged=enlarged)) for cell, budget in columns)]
        )
    return markdown(["against", *(f"{cell.name}, {BUDGETS[budget]}" for cell, budget in columns)], rows)


def not_averaged(cell: Cell, arm: str, budget: str) -> str:
    """The mean score without averaging and half of its 95 % interval, in percent."""
    found = estimate(cell.row(arm, budget)["scores"])
    return f"{100 * found.mean:.1f} ± {50 * (found.high - found.low):.1f}"


def gap_not_averaged(cell: Cell, arm: str, budget: str, *, enlarged: bool) -> Difference:
    """The difference of an arm to the arm without motion that is best without averaging, with or without an enlarged field."""

    def single(name: str) -> dict[int, float]:
        row = cell.row(name, budget)
        return dict(zip(row["seeds"], row["scores"], strict=True))

    others = {name: single(name) for name in cell.opponents(budget, enlarged=enlarged)}
    best = max(others.values(), key=lambda scores: sum(scores.values()) / len(scores))
    return paired_difference(single(arm), best)
