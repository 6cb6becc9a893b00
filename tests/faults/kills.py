"""Commands whose workers are killed at random moments, against the same commands left alone.

    python -m tests.faults.kills [--repetitions 20] [--stages search selection train compare] [--seed 0] [--write]

One local Ray cluster serves all runs. Each harmed run is a small command that has a worker killed (SIGKILL) at each of some
random moments of the stage's work; what it finds is compared with what the unharmed one did: policy, history and scores, to the
last digit. Prints one line per stage, after that many kills; ends with status 1 where anything differs. `--write` keeps the
numbers for the table of faults.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from fieldshift.cli import INTERRUPTED, TERMINATED
from fieldshift.cli import main as command_line
from fieldshift.cluster import ClusterConfig, connect
from tests.faults.table import keep_rows

SMALL = (
    "--loading.train_limit=240", "--loading.test_limit=80", "--tracking.enabled=false", "--cluster.cpus_per_worker=1",
    "--cluster.max_failures=9", "--cluster.gpus_per_worker=0",
)  # fmt: skip
DEADLINE_S = 600.0
LOOK_S = 0.05
KILLS_PER_RUN = 7
PROGRESS = {"halves.json", "search.pt", "checkpoint.pt"}
"""Files that workers write when they begin, and at every checkpoint."""
TRAINING, TRIAL = "RayTrainWorker", "ImplicitFunc"


@dataclass(frozen=True)
class Stage:
    """A command, how its workers' processes are called, and what of its result has to be the same.

    `after`: the phase of a search that has to be over before the stage begins.
    """

    words: tuple[str, ...]
    process: str
    compared: tuple[str, ...]
    after: str | None = None

    def is_under_way(self, out: Path, since: float) -> bool:
        """Whether workers of the run in that folder have worked on this stage since that time."""
        policy = out / "policy.json"
        if not any(path.stat().st_mtime > since for path in out.rglob("*") if path.name in PROGRESS):
            return False
        return self.after is None or (
            policy.exists() and json.loads(policy.read_text())["found"]["phase"] != self.after
        )


SEARCHED = ("words", "history", "decisions")
SPACE = Path(__file__).with_name("two-nodes.toml")
STAGES = {
    "search": Stage(
        ("search", "--search.epochs=8", "--search.tune_epochs=1", "--search.batch=32", "--cluster.workers=2"),
        TRAINING, SEARCHED,
    ),
    "selection": Stage(
        ("search", f"--space={SPACE}", "--search.epochs=1", "--search.tune_epochs=2", "--search.batch=32",
         "--cluster.workers=2"),
        TRAINING, SEARCHED, after="supernet",
    ),
    "train": Stage(
        ("train", "--recipe.epochs=20", "--recipe.batch=32", "--cluster.workers=2"), TRAINING, ("row",)
    ),
    "compare": Stage(
        ("compare", "--arms", "none", "affine", "--seeds=2", "--recipe.epochs=20", "--recipe.batch=32",
         "--budgets", "equal-epochs", "--cluster.trials_at_once=2"),
        TRIAL, ("rows",),
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
    """What a command came to: its status, moments of kills, deaths told, what it found, its seconds and those of the stage."""

    status: int
    killed_at: list[float]
    told: int
    found: Any
    seconds: float
    worked: float
    printed: str


class Killer(threading.Thread):
    """Sends SIGKILL to a worker of a run at moments of its stage: seconds in which its workers worked."""

    def __init__(self, stage: Stage, out: Path, moments: Sequence[float], chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.stage, self.out, self.waiting, self.chance = stage, out, sorted(moments), chance
        self.worked = 0.0
        self.killed_at: list[float] = []
        self.over = threading.Event()

    def run(self) -> None:
        last, killed, was_working = time.monotonic(), 0.0, False
        while not self.over.wait(LOOK_S):
            now, is_working = time.monotonic(), self.looks_working(killed)
            self.worked += now - last if was_working and is_working else 0.0
            last, was_working = now, is_working
            if is_working and self.waiting and self.worked >= self.waiting[0]:
                with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                    self.chance.choice(working(os.getpid(), self.stage.process)).kill()
                    killed = time.time()
                    self.killed_at.append(self.worked)
                    del self.waiting[0]

    def looks_working(self, killed: float) -> bool:
        with contextlib.suppress(OSError, ValueError):  # a file that is replaced meanwhile
            return not (self.out / "result.json").exists() and self.stage.is_under_way(self.out, killed)
        return False


def run(stage: Stage, folder: Path, moments: Sequence[float], chance: random.Random) -> Outcome:
    """Runs a stage's command in `folder` on the connected cluster; a worker is killed at each of the moments."""
    killer, begin, printed = Killer(stage, folder / "out", moments, chance), time.monotonic(), io.StringIO()
    killer.start()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            status = command_line([*stage.words, *SMALL, "--out", str(folder / "out")])
    finally:
        killer.over.set()
        killer.join()
    seconds, text = time.monotonic() - begin, printed.getvalue()
    result = folder / "out" / "result.json"
    values = json.loads(result.read_text()) if result.exists() else {}
    found = [steady(values.get(name)) for name in stage.compared]
    return Outcome(status, killer.killed_at, text.count("resuming from"), found, seconds, killer.worked, text)


def working(parent: int, name: str) -> list[psutil.Process]:
    """The processes below a command that carry a worker's name and have begun to compute."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if name in " ".join(process.cmdline()) and process.cpu_times().user > 0:
                found.append(process)
    return found


def steady(value: Any) -> Any:
    """A result without what differs from run to run: times and places."""
    if isinstance(value, dict):
        return {name: steady(each) for name, each in value.items() if name not in VARYING}
    return [steady(each) for each in value] if isinstance(value, list) else value


def harmed_alike(name: str, kills: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Kills workers of a stage at that many random moments; the stage's row of the table, and differences in words."""
    stage, chance = STAGES[name], random.Random(f"{name} {seed}")
    wrong: list[str] = []
    harmed: list[Outcome] = []
    done = 0
    with tempfile.TemporaryDirectory() as home:
        whole = run(stage, made(Path(home) / "whole"), [], chance)
        if whole.status != 0:
            return {}, [f"{name}: the unharmed command ended with {whole.status}: {whole.printed[-500:]}"]
        while done < kills and len(harmed) < kills:
            moments = [chance.uniform(0, whole.worked) for _ in range(min(KILLS_PER_RUN, kills - done))]
            outcome = run(stage, made(Path(home) / str(len(harmed))), moments, chance)
            if outcome.status in {INTERRUPTED, TERMINATED}:
                raise KeyboardInterrupt
            harmed.append(outcome)
            done += len(outcome.killed_at)
            if outcome.status != 0 or outcome.found != whole.found:
                what = f"status {outcome.status}" if outcome.status else "another result"
                wrong.append(f"{name}, killed after {outcome.killed_at} s: {what}: {outcome.printed[-1500:]}")
            print(
                f"  {name}: {len(outcome.killed_at)} killed, {outcome.told} told, {outcome.seconds:.0f} s "
                f"({whole.seconds:.0f} unharmed), {'not ' if wrong else ''}alike",
                flush=True,
            )
    cost = sum(each.seconds - whole.seconds for each in harmed) / done
    told, held = sum(each.told for each in harmed), len(harmed) - len(wrong)
    print(
        f"{name}: {done} killed in {len(harmed)} runs, {held} of these like the unharmed one; {told} told; a kill costs "
        f"{cost:.0f} s",
        flush=True,
    )
    row = {
        "fault": "worker killed (SIGKILL)", "stage": name, "faults": done, "runs": len(harmed), "held": held, "told": told,
        "moments_s": [[round(moment, 2) for moment in each.killed_at] for each in harmed],
        "stage_s": round(whole.worked, 1), "seconds": [round(each.seconds, 1) for each in harmed],
        "unharmed_s": round(whole.seconds, 1), "outcome": f"a kill costs {cost:.0f} s, most of it the start of workers",
    }  # fmt: skip
    return row, wrong


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def options(about: str | None, repetitions: int) -> argparse.ArgumentParser:
    """The options that scripts of this folder share."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=repetitions)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="keep the numbers for the table of faults")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    chosen, wrong = options(__doc__, 20).parse_args(arguments), []
    with connect(ClusterConfig(workers=2)):
        for name in chosen.stages:
            row, differences = harmed_alike(name, chosen.repetitions, chosen.seed)
            wrong += differences
            for line in differences:
                print(line, flush=True)
            if chosen.write and row:
                keep_rows([row])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
