"""The record of a benchmark: rows that are printed as they are measured, and written as JSON to `benchmarks/results/`."""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binom

from fieldshift.report import hardware
from fieldshift.report.intervals import estimate
from fieldshift.run_folder import versions
from fieldshift.whole_file import write_whole
from fieldshift.wording import counted

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
MEMORY_LIMIT = 8 * 2**30
FEWEST = 3
"""Pairs that an interval of their ratio takes."""
PACKAGES = ("torch", "torchvision", "ray", "mlflow", "numpy", "kornia")


def benchmark_parser(text: str) -> argparse.ArgumentParser:
    """A parser with the option that every benchmark has."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="more repetitions and sizes than `make bench`")
    return parser


def commit() -> str:
    """The commit of these files, and whether tracked files differ from it."""
    found, changed = (
        subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()
        for words in (
            ["rev-parse", "--short", "HEAD"],
            ["status", "--porcelain", "--untracked-files=no", "--", ":!results"],
        )
    )
    return f"{found}{' with changed files' if changed else ''}"


def machine() -> dict[str, Any]:
    """The machine, the commit and the versions of the packages that a measurement was taken with."""
    return {"hardware": hardware(), "threads": torch.get_num_threads(), "commit": commit(), **versions(*PACKAGES)}


class Record:
    """The rows of one benchmark.

    Args:
        name: the script's name, and that of its file of results.
        text: the script's docstring; its first line is the question.
        settings: the options of this run.
    """

    def __init__(self, name: str, text: str, settings: dict[str, Any]) -> None:
        self.name, self.question = name, text.strip().split("\n", 1)[0]
        self.settings = {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
        self.rows: list[dict[str, Any]] = []
        self.started = datetime.now(UTC)
        print(
            f"{self.question}\n{hardware()}, torch {torch.__version__}, {counted(torch.get_num_threads(), 'thread')}",
            flush=True,
        )

    def row(
        self,
        table: str,
        case: str,
        ours: Sequence[float],
        *,
        unit: str,
        peer: str = "",
        theirs: Sequence[float] = (),
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> float:
        """Adds a measurement, prints it and returns what is judged: the ratio to the peer, or the median without one.

        ours, theirs: every repetition; those of the same index are neighbours in time, and the ratio is the median of
        their ratios. Where their numbers differ it is the ratio of the medians. at_most, at_least: the goal.
        """
        middle = statistics.median(ours)
        ratio = None
        if theirs:
            paired = len(ours) == len(theirs)
            pairs = zip(ours, theirs, strict=True) if paired else [(middle, statistics.median(theirs))]
            ratio = statistics.median(a / b for a, b in pairs)
        row = {
            "table": table, "case": case, "unit": unit, "ours": list(ours), "peer": peer, "theirs": list(theirs),
            "ratio": ratio, "at_most": at_most, "at_least": at_least,
        }  # fmt: skip
        if not any(each["table"] == table for each in self.rows):
            print(f"\n{table}")
        self.rows.append(row)
        print(f"  {case:46} {' '.join(words for words in described(row) if words)}", flush=True)
        return middle if ratio is None else ratio

    def finish(self) -> None:
        """Writes the JSON; memory above the limit ends the benchmark with status 1."""
        peak = peak_memory()
        self.row(
            "memory", "peak of a process of this benchmark", [peak / 2**30], unit="GiB", at_most=MEMORY_LIMIT / 2**30
        )
        on = "-cuda" if torch.cuda.is_available() else ""
        contents = {
            "benchmark": self.name,
            "question": self.question,
            "machine": machine(),
            "began": self.started.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - self.started).total_seconds(), 1),
            "settings": self.settings,
            "rows": self.rows,
        }
        form = "-full" if self.settings.get("full") else ""
        write_whole(RESULTS / f"{self.name}{form}{on}.json", json.dumps(contents, indent=1) + "\n")
        if peak > MEMORY_LIMIT:
            sys.exit(1)


def described(row: dict[str, Any]) -> list[str]:
    """The measured value, the peer's, their ratio, and the goal, in words; empty where there is none."""
    unit = row["unit"]
    return [
        with_unit(row["ours"], unit),
        f"{row['peer']} {with_unit(row['theirs'], unit)}" if row["theirs"] else "",
        f"ratio {ratio_words(row)}" if row["ratio"] is not None else "",
        goal(row),
    ]


def goal(row: dict[str, Any]) -> str:
    """The goal and whether it is met; undecided where it lies within the 95 % interval of the ratio."""
    judged = statistics.median(row["ours"]) if row["ratio"] is None else row["ratio"]
    low, high = interval(row) or (judged, judged)
    met = {
        "at_most": row["at_most"] is not None and judged <= row["at_most"],
        "at_least": row["at_least"] is not None and judged >= row["at_least"],
    }
    parts = []
    for name, reached in met.items():
        if row[name] is not None:
            word = "undecided" if low < row[name] < high else "met" if reached else "NOT met"
            parts.append(f"{name.replace('_', ' ')} {row[name]:g}: {word}")
    return ", ".join(parts)


def interval(row: dict[str, Any]) -> tuple[float, float] | None:
    """The 95 % interval of the paired ratios; None with fewer than three pairs.

    With six pairs or more it is that of their median, between two of them (binomial, no assumption on their distribution),
    with fewer that of their geometric mean.
    """
    pairs = list(zip(row["ours"], row["theirs"], strict=False))
    if len(row["ours"]) != len(row["theirs"]) or len(pairs) < FEWEST or any(min(pair) <= 0 for pair in pairs):
        return None
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    outside = int(binom.ppf(0.025, len(ratios), 0.5))  # ratios left out at each end, and one
    if outside > 0:
        return ratios[outside - 1], ratios[-outside]
    found = estimate([math.log(ratio) for ratio in ratios])
    return math.exp(found.low), math.exp(found.high)


def ratio_words(row: dict[str, Any]) -> str:
    """The ratio with its interval and the number of repetitions; empty where there is no peer."""
    if row["ratio"] is None:
        return ""
    spread, pairs = interval(row), len(row["ours"]) if len(row["ours"]) == len(row["theirs"]) else 0
    counts = f"n = {pairs}" if pairs else f"n = {len(row['ours'])}, {len(row['theirs'])}, not paired"
    return f"{row['ratio']:.3f} ({f'{spread[0]:.2f} to {spread[1]:.2f}, ' if spread else ''}{counts})"


def with_unit(values: Sequence[float], unit: str) -> str:
    """The median of the repetitions with its unit."""
    return f"{shown(statistics.median(values))} {unit}".rstrip()


def shown(value: float) -> str:
    """A measured value with three significant digits."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(0, digits)}f}"


LARGE_APART = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
"""Environment of a process whose memory is measured: what takes a MiB is given back as soon as it is freed."""


def measured_apart(commands: Sequence[list[str]]) -> list[int]:
    """The numbers that processes print last, at most two at once: peaks of memory, in bytes. Ends where one fails."""

    def printed(command: list[str]) -> int:
        done = subprocess.run(
            command, check=False, stdout=subprocess.PIPE, text=True, env={**os.environ, **LARGE_APART}
        )
        if done.returncode:
            sys.exit("A process of this benchmark ended with an error.")
        return int(done.stdout.split()[-1])

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(printed, commands))


def own_peak() -> int:
    """The most resident memory that this program has had so far, in bytes.

    Linux keeps `ru_maxrss` when a process starts another program: there it is at least the memory of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    return _unit() * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_memory() -> int:
    """The most resident memory of this process or of any one that it started and waited for, in bytes."""
    return max(own_peak(), _unit() * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def _unit() -> int:
    return 1 if sys.platform == "darwin" else 1024
