"""Dilated kernels and motion, each alone and both: pairs of cells that differ in `architecture.dilated` alone."""

from __future__ import annotations

from collections.abc import Iterator

from tables import Cell, Study, markdown, paired, points

BUDGET = "equal compute"
DILATED = "-dilated"
ARM = "das-folded"


def pairs(study: Study) -> Iterator[tuple[str, Cell, Cell]]:
    """The name, the cell with the usual kernels and the one with dilated kernels, of all pairs that were run."""
    for name, dilated in study.cells.items():
        plain = study.cells.get(name.removesuffix(DILATED))
        if name.endswith(DILATED) and plain is not None:
            settings = [{**each.numbers["config"], "architecture": {}} for each in (plain, dilated)]
            kernels = [each.numbers["config"]["architecture"] for each in (plain, dilated)]
            assert settings[0] == settings[1], f"{name} differs from {plain.name} in something else"
            assert {**kernels[0], "dilated": True} == kernels[1] != kernels[0], (
                f"{name} is not {plain.name} with dilation"
            )
            yield plain.name, plain, dilated


def combination_table(study: Study) -> str:
    """One row per pair: the scores of none, either and both, and the paired differences of both to either."""
    rows = []
    for name, plain, dilated in pairs(study):
        arms = ((plain, "none"), (dilated, "none"), (plain, ARM), (dilated, ARM))
        gaps = [paired(dilated, ARM, *other, BUDGET) for other in arms[1:3]]
        rows.append([
            name, str(plain.seeds()), *(cell.score(arm, BUDGET) for cell, arm in arms), *map(points, gaps),
            dilated.motions(),
        ])  # fmt: skip
    heads = [
        "data",
        "seeds",
        "neither",
        "dilated",
        "motion",
        "both",
        "both - dilated",
        "both - motion",
        "found with both",
    ]
    return markdown(heads, rows)
