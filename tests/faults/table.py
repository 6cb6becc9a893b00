"""The table of faults: one row per fault and stage, kept as the raw numbers that docs/scaling.md shows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fieldshift.whole_file import write_whole

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FILE = BENCHMARKS / "results" / "faults.json"


def keep_rows(rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows into the table with their machine and commit, in place of earlier ones of the same fault and stage."""
    sys.path.append(str(BENCHMARKS))
    from record import machine

    kept = json.loads(FILE.read_text())["faults"] if FILE.exists() else []
    new = [{**row, "machine": machine()} for row in rows]
    table = {(row["fault"], row["stage"]): row for row in [*kept, *new]}
    write_whole(FILE, json.dumps({"faults": list(table.values())}, indent=1) + "\n")
