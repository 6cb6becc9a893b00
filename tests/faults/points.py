"""Studies whose command or workers are killed at random moments: the runs and points in MLflow, against an unharmed study.

    python -m tests.faults.points [--repetitions 6] [--harms command worker] [--seed 0] [--write]

Each study has two forms and two seeds on a local Ray cluster. Its command, or one of its workers, is killed (SIGKILL) once it
has recorded random shares of its points; a killed command goes on with --resume. Compared with the unharmed study are the runs,
the points of every metric by step, and their values. Also looked at are runs left open, and processes that a killed command
left after three minutes. Ends with status 1 where anything is otherwise. `--write` keeps the numbers for the table of faults.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from fieldshift.experiment.session import IDENTITY
from tests.faults.kills import DEADLINE_S, LOOK_S, TRAINING, TRIAL, working
from tests.faults.table import keep_rows

STUDY = (
    "study", "--arms", "none", "das", "das-folded", "--seeds=2", "--searches=one", "--frame_counts", "1", "3",
    "--search.epochs=2", "--search.tune_epochs=0", "--search.batch=32", "--recipe.epochs=3", "--recipe.batch=32",
    "--loading.train_limit=240", "--loading.test_limit=80", "--cluster.workers=1", "--cluster.cpus_per_worker=1",
    "--cluster.gpus_per_worker=0", "--cluster.max_failures=9",
)  # fmt: skip
GONE_S = 180.0
HARMS = {"command": "command killed (SIGKILL), resumed", "worker": "worker killed (SIGKILL)"}
POINTS = """SELECT kept.value, metrics.key, metrics.step, metrics.value FROM metrics
    JOIN tags AS kept ON kept.run_uuid = metrics.run_uuid AND kept.key = 'fieldshift.key'
    WHERE metrics.key NOT LIKE 'system/%'"""
TIMED = ("_s", "seconds", "per_second", "_hours")
"""How the names of metrics end whose values are times, or depend on them."""

Point = tuple[str, str, int]


@dataclass
class Trace:
    """What a study left in MLflow: points by run, metric and step, and the states of its runs by key.

    `with_workers`: the number of points until the last one that a worker reported.
    """

    with_workers: int = 0
    points: Counter[Point] = field(default_factory=Counter)
    values: dict[Point, float] = field(default_factory=dict)
    states: dict[str, list[str]] = field(default_factory=dict)


def trace_of(folder: Path) -> Trace:
    found = Trace()
    mark = (folder / IDENTITY).read_text().strip()
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db", timeout=60)) as opened:
        for key, name, step, value in opened.execute(POINTS):
            point = (key.replace(mark, "RUN"), name, step)
            found.points[point] += 1
            found.values[point] = value
        last = "SELECT max(timestamp) FROM metrics WHERE key LIKE 'train/%'"
        found.with_workers = opened.execute(f"SELECT count(*) FROM ({POINTS} AND timestamp <= ({last}))").fetchone()[0]
        states = "SELECT kept.value, runs.status FROM runs JOIN tags AS kept ON kept.run_uuid = runs.run_uuid"
        for key, status in opened.execute(f"{states} AND kept.key = 'fieldshift.key'"):
            found.states.setdefault(key.replace(mark, "RUN"), []).append(status)
    return found


def recorded(folder: Path) -> int:
    """The number of points that a study has recorded, also while it writes."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as opened:
        return int(opened.execute("SELECT count(*) FROM metrics WHERE key NOT LIKE 'system/%'").fetchone()[0])
    return 0


def differences(whole: Trace, harmed: Trace) -> list[str]:
    """What of a harmed study differs from the unharmed one, in words."""
    wrong = []
    for what, keys in (("lost", whole.points - harmed.points), ("more", harmed.points - whole.points)):
        if keys:
            wrong.append(f"{keys.total()} points {what}, first {sorted(keys)[:3]}")
    if whole.states != harmed.states:
        found = sorted(set(whole.states) ^ set(harmed.states)) or [
            (key, each) for key, each in harmed.states.items() if each != whole.states[key]
        ]
        wrong.append(f"other runs or states: {found[:3]}")
    other = [
        point for point, value in whole.values.items()
        if not point[1].endswith(TIMED) and harmed.values.get(point, value) != value
    ]  # fmt: skip
    if other:
        wrong.append(f"{len(other)} other values, first {other[:3]}")
    return wrong


def study(home: Path, moments: Sequence[int], harm: str, chance: random.Random) -> tuple[list[int], list[str]]:
    """Runs a study to its end and harms it at these numbers of recorded points; moments of the kills, and what was wrong."""
    out, log, waiting = home / "out", home / "printed.txt", sorted(moments)
    killed: list[int] = []
    wrong: list[str] = []
    deadline = time.monotonic() + 3 * DEADLINE_S
    status = None
    while status is None:
        resumed = ["--resume"] if killed and harm == "command" else []
        command = [sys.executable, "-m", "fieldshift.cli", *STUDY, f"--out={out}", *resumed]
        with log.open("a") as printed, subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT) as process:
            while (status := process.poll()) is None:
                if time.monotonic() > deadline:
                    process.kill()
                    return killed, [*wrong, f"it did not end: {log.read_text()[-800:]}"]
                if waiting and (count := recorded(out)) >= waiting[0]:
                    victims = [process.pid] if harm == "command" else workers(process.pid)
                    if victims:
                        family = psutil.Process(process.pid).children(recursive=True)
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(chance.choice(victims), 9)
                        killed.append(count)
                        waiting = [each for each in waiting[1:] if each > count]
                        if harm == "command":
                            process.wait()
                            _, left = psutil.wait_procs(family, timeout=GONE_S)
                            wrong += [f"{each.name()} was left after {GONE_S:g} s" for each in left]
                            break
                time.sleep(LOOK_S)
        if harm == "command" and killed and process.returncode == -9:
            status = None
    if status != 0:
        said = log.read_text()
        failed = [line for line in said.splitlines() if "failed" in line.lower()]
        wrong.append(f"status {status}: {' '.join(failed[-5:])} {said[-500:]}")
    return killed, wrong


def workers(command: int) -> list[int]:
    return [process.pid for name in (TRAINING, TRIAL) for process in working(command, name)]


def harmed_alike(harm: str, kills: int, whole: Trace, seconds: float, chance: random.Random) -> dict[str, Any]:
    """The row of the table for a study that is harmed at that many moments."""
    total = whole.points.total() if harm == "command" else whole.with_workers
    with tempfile.TemporaryDirectory() as home:
        begin = time.monotonic()
        share = [(number + chance.random()) / kills for number in range(kills)]
        killed, wrong = study(Path(home), [max(1, round(each * total)) for each in share], harm, chance)
        taken = time.monotonic() - begin
        wrong += differences(whole, trace_of(Path(home) / "out"))
    told = "; ".join(wrong) or f"{whole.points.total()} points of {len(whole.states)} runs, none lost and none twice"
    print(
        f"{HARMS[harm]} after {killed} of {whole.points.total()} points, {taken:.0f} s ({seconds:.0f} unharmed): {told}",
        flush=True,
    )
    return {
        "fault": HARMS[harm], "stage": "study", "faults": len(killed), "runs": 1, "held": int(not wrong),
        "points": killed, "seconds": [round(taken, 1)], "unharmed_s": round(seconds, 1), "outcome": told,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=6)
    parser.add_argument("--harms", nargs="+", default=list(HARMS), choices=list(HARMS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="keep the numbers for the table of faults")
    chosen = parser.parse_args(arguments)
    chance = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as home:
        begin = time.monotonic()
        _, wrong = study(Path(home), [], "worker", chance)
        if wrong:
            print(wrong[0])
            return 1
        whole, seconds = trace_of(Path(home) / "out"), time.monotonic() - begin
    rows = [harmed_alike(harm, chosen.repetitions, whole, seconds, chance) for harm in chosen.harms]
    if chosen.write:
        keep_rows(rows)
    return 0 if all(row["held"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
