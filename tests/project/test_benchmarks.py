"""Every benchmark that `make bench` runs records its rows and its peak of memory, and ends with status 1 above the limit."""

from __future__ import annotations

import ast
import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RUN = runpy.run_path(str(BENCHMARKS / "__main__.py"), run_name="benchmarks")["scripts"]()


@pytest.mark.parametrize("script", RUN, ids=lambda path: path.stem)
def test_a_benchmark_ends_by_writing_its_record(script: Path) -> None:
    (main,) = [
        node for node in ast.parse(script.read_text()).body if isinstance(node, ast.FunctionDef) and node.name == "main"
    ]
    assert ast.unparse(main.body[-1]) == "record.finish()"
    assert f"Record('{script.stem}', __doc__, vars(" in ast.unparse(main)


@pytest.mark.parametrize(("mebibytes", "limit", "status"), [(0, 8, 0), (300, 0.25, 1)])
def test_a_record(mebibytes: int, limit: float, status: int, tmp_path: Path) -> None:
    program = (
        "import pathlib, subprocess, sys, record\n"
        f"record.MEMORY_LIMIT, record.RESULTS = int({limit} * 2**30), pathlib.Path({str(tmp_path)!r})\n"
        "kept = record.Record('example', 'A question?\\n\\nMore.', {'size': 3})\n"
        "kept.row('table', 'even', [2.0, 4.0, 9.0], unit='ms', peer='other', theirs=[1.0, 4.0, 3.0], at_most=1.5)\n"
        "kept.row('table', 'sure', [2.0, 4.0, 9.0], unit='', peer='other', theirs=[1.0, 2.1, 4.4], at_most=1.5)\n"
        "kept.row('table', 'uneven', [2.0, 4.0, 9.0], unit='ms', peer='other', theirs=[8.0], at_least=0.5)\n"
        "kept.row('table', 'many', [float(n) for n in range(9, 0, -1)], unit='', peer='other', theirs=[1.0] * 9, at_most=9)\n"
        "kept.row('table', 'alone', [2.0, 4.0, 9.0], unit='ms', at_most=4.0, at_least=5.0)\n"
        f"subprocess.run([sys.executable, '-c', 'bytearray({mebibytes} * 2**20)'], check=True)\n"
        "kept.finish()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=BENCHMARKS, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == status, done.stderr
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text())
    even, _, uneven, _, alone, memory = kept["rows"]
    assert even["ratio"] == 2.0
    logs = np.log([2.0, 1.0, 3.0])
    low, high = np.exp(scipy.stats.t.interval(0.95, 2, logs.mean(), scipy.stats.sem(logs)))
    assert f"ratio 2.000 ({low:.2f} to {high:.2f}, n = 3) at most 1.5: undecided" in done.stdout
    assert "n = 3) at most 1.5: NOT met" in done.stdout
    found = scipy.stats.quantile_test(range(1, 10), p=0.5).confidence_interval(0.95)  # of the median
    assert f"ratio 5.000 ({found.low:.2f} to {found.high:.2f}, n = 9) at most 9: met" in done.stdout
    assert uneven["ratio"] == 0.5
    assert "ratio 0.500 (n = 3, 1, not paired) at least 0.5: met" in done.stdout
    assert alone["ratio"] is None
    assert "4.00 ms at most 4: met, at least 5: NOT met" in done.stdout
    assert memory["ours"][0] >= mebibytes / 1024
    assert memory["at_most"] == limit
    assert kept["question"] == "A question?"
    assert kept["settings"] == {"size": 3}
    assert kept["machine"]["torch"]


@pytest.mark.parametrize(
    ("value", "text"), [(10281.4, "10,300"), (1.0, "1.00"), (0.012345, "0.0123"), (999.6, "1,000"), (0, "0")]
)
def test_values_have_three_digits(value: float, text: str) -> None:
    assert runpy.run_path(str(BENCHMARKS / "record.py"))["shown"](value) == text
