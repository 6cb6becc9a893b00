"""Commands whose workers are killed at random moments, against the same commands left alone.

    python -m tests.faults.kills [--repetitions 20] [--stages search train compare] [--seed 0]

Each repetition runs a small command on a local Ray cluster, sends SIGKILL to one of its workers at a random moment of the
work, and compares what the command found with what the unharmed one did: policy, history and scores, to the last digit.
Prints one line per stage; ends with status 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SMALL = (
    "--loading.train_limit=480", "--loading.test_limit=80", "--tracking.enabled=false", "--cluster.cpus_per_worker=1",
    "--cluster.max_failures=10", "--cluster.gpus_per_worker=0",
)  # fmt: skip
DEADLINE_S = 600.0
LOOK_S = 0.05


@dataclass(frozen=True)
class Stage:
    """A command, how its workers' processes are called, and what of its result has to be the same."""

    words: tuple[str, ...]
    process: str
    compared: tuple[str, ...]


STAGES = {
    "search": Stage(
        ("search", "--search.epochs=5", "--search.tune_epochs=1", "--search.batch=32", "--cluster.workers=2"),
        "RayTrainWorker",
        ("words", "history", "decisions"),
    ),
    "train": Stage(
        ("train", "--recipe.epochs=12", "--recipe.batch=32", "--cluster.workers=2"), "RayTrainWorker", ("row",)
    ),
    "compare": Stage(
        ("compare", "--arms", "none", "affine", "--seeds=2", "--recipe.epochs=12", "--recipe.batch=32",
         "--budgets", "equal-epochs", "--cluster.trials_at_once=2"),
        "ImplicitFunc",
        ("rows",),
    ),
}  # fmt: skip
VARYING = {
    "seconds",
    "device_seconds",
    "device_seconds_per_epoch",
    "search_seconds",
    "evaluation_seconds",
    "images_per_second",
    "folder",
    "device_hours",
    "cost/device_hours",
}


@dataclass(frozen=True)
class Outcome:
    """What a command came to: its status, workers killed, deaths told, what it found, its seconds and those with workers."""

    status: int
    kills: int
    told: int
    found: Any
    seconds: float
    worked: float
    printed: str


def run(stage: Stage, folder: Path, kill_after: float | None, chance: random.Random) -> Outcome:
    """Runs a stage's command in `folder`; a worker is killed so many seconds after the first one works."""
    command = [sys.executable, "-m", "fieldshift.cli", *stage.words, *SMALL, "--out", str(folder / "out")]
    begin, kills, working_since = time.monotonic(), 0, None
    log = folder / "printed.txt"
    with (
        log.open("w") as printed,
        subprocess.Popen(
            command, stdout=printed, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
        ) as process,
    ):
        while process.poll() is None:
            if time.monotonic() - begin > DEADLINE_S:
                process.kill()
                raise TimeoutError(
                    f"{' '.join(command)} did not end in {DEADLINE_S:g} seconds: {log.read_text()[-500:]}"
                )
            workers = working(process.pid, stage.process)
            if workers and working_since is None:
                working_since = time.monotonic()
            due = (
                kill_after is not None and working_since is not None and time.monotonic() - working_since >= kill_after
            )
            if due and not kills and workers:
                chance.choice(workers).kill()
                kills += 1
            time.sleep(LOOK_S)
    text = log.read_text()
    result = folder / "out" / "result.json"
    values = json.loads(result.read_text()) if result.exists() else {}
    found = [steady(values.get(name)) for name in stage.compared]
    now = time.monotonic()
    worked = 0.0 if working_since is None else now - working_since
    return Outcome(process.returncode, kills, text.count("resuming from"), found, now - begin, worked, text)


def working(parent: int, name: str) -> list[psutil.Process]:
    """The processes below a command that carry a worker's name and have begun to compute."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        try:
            title = " ".join(process.cmdline())
            if name in title and process.cpu_times().user > 0:
                found.append(process)
        except psutil.Error:
            continue
    return found


def steady(value: Any) -> Any:
    """A result without what differs from run to run: times and places."""
    if isinstance(value, dict):
        return {name: steady(each) for name, each in value.items() if name not in VARYING}
    return [steady(each) for each in value] if isinstance(value, list) else value


def harmed_alike(name: str, repetitions: int, seed: int) -> list[str]:
    """Kills a worker of a stage at that many random moments; the differences from the unharmed run, in words."""
    stage, chance = STAGES[name], random.Random(seed)
    wrong, seconds, told, kills = [], [], 0, 0
    with tempfile.TemporaryDirectory() as home:
        whole = run(stage, made(Path(home) / "whole"), None, chance)
        if whole.status != 0:
            return [f"{name}: the unharmed command ended with {whole.status}: {whole.printed[-500:]}"]
        for number in range(repetitions):
            after = chance.uniform(0, 0.9 * whole.worked)
            harmed = run(stage, made(Path(home) / str(number)), after, chance)
            told, kills = told + harmed.told, kills + harmed.kills
            seconds.append(harmed.seconds)
            if harmed.status != 0 or harmed.found != whole.found:
                what = f"status {harmed.status}" if harmed.status else "another result"
                wrong.append(f"{name}, killed after {after:.1f} s: {what}: {harmed.printed[-1500:]}")
    print(
        f"{name}: {repetitions} runs, {repetitions - len(wrong)} like the unharmed one; {kills} killed, {told} told; "
        f"{whole.seconds:.0f} s unharmed, at most {max(seconds, default=0):.0f} s harmed",
        flush=True,
    )
    return wrong


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def options(about: str | None, repetitions: int, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a script of this folder."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=repetitions)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(__doc__, 20, arguments)
    wrong = [line for name in chosen.stages for line in harmed_alike(name, chosen.repetitions, chosen.seed)]
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
