"""What a cell that is run again with new seeds says, beside the cell that it repeats."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from tables import Study, markdown, outcome, points

BUDGET = "equal compute"
PAIRS = (("das-folded", "none"), ("das-folded", "dilated"), ("das-folded", "random-policy-folded"), ("dilated", "none"))


def repeated(study: str) -> dict[str, tuple[str, str]]:
    """The study and the cell that each cell of this study repeats, from its configuration."""
    configuration = tomllib.loads((Path(__file__).parent / f"{study}.toml").read_text())
    return {name: (first, cell) for name, (first, cell) in configuration["repeats"].items()}


def repeats_table(studies: Mapping[str, Study], study: str) -> str:
    """One row per cell and pair of arms: the difference in the first run, and that with new seeds, at equal compute."""
    rows = []
    for name, (first, cell) in repeated(study).items():
        if name not in studies[study].cells:
            continue
        ours, theirs = studies[study].cells[name], studies[first].cells[cell]
        for arm, opponent in PAIRS:
            if not (ours.has(arm, BUDGET) and ours.has(opponent, BUDGET)):
                continue
            before, after = (each.gap(arm, opponent, BUDGET) for each in (theirs, ours))
            rows.append([
                f"{first}, {cell}", f"`{arm}` - `{opponent}`", str(before.pairs), points(before), str(after.pairs),
                points(after), outcome(after),
            ])  # fmt: skip
    heads = ["study, cell", "difference", "seeds", "points", "new seeds", "points with new seeds", "outcome"]
    return markdown(heads, rows)
