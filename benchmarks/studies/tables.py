"""The table of README.md, made from the raw numbers of the committed studies.

    python benchmarks/studies/tables.py            # prints it
    python benchmarks/studies/tables.py --write    # puts it between its marks in README.md

Every number is the judged test score in percent, mean and half of the 95 % interval over seeds, of one arm at one reading.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
READINGS = {"equal epochs": "epochs", "equal compute": "compute", "equal compute, search included": "with search"}
BEGIN, END = "<!-- made by benchmarks/studies/tables.py -->", "<!-- end -->"
SORTED_BY = ("left", "equal compute")


def results() -> dict[str, dict[str, Any]]:
    """The raw numbers of each data set, those that the repository has."""
    cells: dict[str, dict[str, Any]] = json.loads((ROOT / "benchmarks/results/digit-pairs.json").read_text())["cells"]
    return cells


def table(studies: dict[str, dict[str, Any]]) -> str:
    """One row per arm, one column per data set and reading, in Markdown."""
    cells = {(name, row["reading"], row["arm"]): row for name, study in studies.items() for row in study["summary"]}
    arms = dict.fromkeys(arm for _, _, arm in cells)
    order = sorted(arms, key=lambda arm: -score(cells.get((*SORTED_BY, arm))))
    columns = [(name, reading) for name in studies for reading in READINGS]
    lines = [
        f"| arm | {' | '.join(f'{name}, {READINGS[reading]}' for name, reading in columns)} |",
        f"| --- |{' ---: |' * len(columns)}",
    ]
    for arm in order:
        shown = f"**{arm}**" if arm.startswith("das-folded") else arm
        lines.append(f"| {shown} | {' | '.join(words(cells.get((*column, arm))) for column in columns)} |")
    return "\n".join(lines)


def score(row: dict[str, Any] | None) -> float:
    return -1.0 if row is None else float(row["judged_mean"])


def words(row: dict[str, Any] | None) -> str:
    """The judged mean and half of its interval, in percent."""
    if row is None:
        return "-"
    low, high = ("tta_low", "tta_high") if row["judged"] == "averaged" else ("low", "high")
    half = "" if row[low] is None else f" ± {50 * (row[high] - row[low]):.1f}"
    return f"{100 * row['judged_mean']:.1f}{half}"


def written(text: str) -> str:
    """A page with the table between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(results())}\n\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    chosen = parser.parse_args()
    print(table(results()))
    if chosen.write:
        page = ROOT / "README.md"
        page.write_text(written(page.read_text()))


if __name__ == "__main__":
    main()
