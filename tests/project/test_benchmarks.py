"""Every benchmark that `make bench` runs states its peak of memory, and ends with status 1 above the limit."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RUN = sorted(path for path in BENCHMARKS.glob("*.py") if path.name != "peak_memory.py")


@pytest.mark.parametrize("script", RUN, ids=lambda path: path.stem)
def test_a_benchmark_ends_by_stating_its_peak(script: Path) -> None:
    (main,) = [
        node for node in ast.parse(script.read_text()).body if isinstance(node, ast.FunctionDef) and node.name == "main"
    ]
    assert ast.unparse(main.body[-1]) == "state_peak()"


@pytest.mark.parametrize(("mebibytes", "limit", "status"), [(0, 8, 0), (300, 0.25, 1)])
def test_the_peak_is_that_of_the_processes_too(mebibytes: int, limit: float, status: int) -> None:
    program = (
        "import subprocess, sys, peak_memory\n"
        f"peak_memory.LIMIT = int({limit} * 2**30)\n"
        f"subprocess.run([sys.executable, '-c', 'bytearray({mebibytes} * 2**20)'], check=True)\n"
        "peak_memory.state_peak()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=BENCHMARKS, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == status, done.stderr
    assert float(done.stdout.split()[2]) >= mebibytes / 1024
