"""The numbers of a result as a table of comma-separated values, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

TABLES = ("rows", "samples", "summary", "layers", "history")
"""The parts of results that are tables: one row per trial, sample, arm, layer or pass. The first that a result has counts."""


def result_table(values: Mapping[str, Any]) -> str | None:
    """The table of a result as CSV; of a single network its one row, and None for a result without numbers of its own.

    Columns are the plain values of all rows, in the order in which they first occur; values inside an object are named
    `object.name`, a list of plain values is joined by spaces, and longer structures, such as the history of a training,
    are left to result.json.
    """
    rows = rows_of(values)
    if not rows:
        return None
    cells = [flat(row) for row in rows]
    columns = dict.fromkeys(name for row in cells for name in row)
    text = io.StringIO()
    table = csv.DictWriter(text, [*columns], lineterminator="\n")
    table.writeheader()
    table.writerows(cells)
    return text.getvalue()


def rows_of(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of a result's table."""
    for name in TABLES:
        if values.get(name) and isinstance(values[name], list):
            return list(values[name])
    if isinstance(values.get("row"), Mapping):
        return [values["row"]]
    return [{name: value for name, value in values.items() if name != "data"}] if "score" in values else []


def flat(row: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The plain values of a row by column; None is an empty cell."""
    values: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{above}{name}.")
        elif not isinstance(value, list):
            values[above + name] = value
        elif not any(isinstance(each, (list, Mapping)) for each in value):
            values[above + name] = " ".join(map(str, value))
    return values
