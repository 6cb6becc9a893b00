"""Commands whose workers are killed at random moments, against the same commands left alone.

    python -m tests.faults.kills [--repetitions 20] [--stages search selection train compare] [--seed 0] [--write]

One local Ray cluster serves all runs. Each repetition runs a small command, sends SIGKILL to one of its workers at a random
moment of the stage's work, and compares what the command found with what the unharmed one did: policy, history and scores, to
the last digit. A run that ends before its moment does not count and is repeated. Prints one line per stage; ends with status 1
where anything differs. `--write` keeps the numbers for the table of faults.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from fieldshift.cli import main as command_line
from fieldshift.cluster import ClusterConfig, connect
from tests.faults.table import keep_rows

SMALL = (
    "--loading.train_limit=240", "--loading.test_limit=80", "--tracking.enabled=false", "--cluster.cpus_per_worker=1",
    "--cluster.max_failures=10", "--cluster.gpus_per_worker=0",
)  # fmt: skip
DEADLINE_S = 600.0
LOOK_S = 0.05
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

    def has_begun(self, out: Path) -> bool:
        """Whether the run in that folder has come to this stage."""
        policy = out / "policy.json"
        if self.after is None:
            return True
        return policy.exists() and json.loads(policy.read_text())["found"]["phase"] != self.after


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
    """What a command came to: its status, the moment of the kill, deaths told, what it found, its seconds and those of the stage."""

    status: int
    killed_at: float | None
    told: int
    found: Any
    seconds: float
    worked: float
    printed: str


class Killer(threading.Thread):
    """Sends SIGKILL to one worker of a run so many seconds after its stage has begun; without a moment it only looks."""

    def __init__(self, stage: Stage, out: Path, moment: float | None, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.stage, self.out, self.moment, self.chance = stage, out, moment, chance
        self.begun: float | None = None
        self.killed_at: float | None = None
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(LOOK_S):
            workers = working(os.getpid(), self.stage.process)
            if self.begun is None and workers and self.stage.has_begun(self.out):
                self.begun = time.monotonic()
            if self.begun is None or self.moment is None or not workers:
                continue
            since = time.monotonic() - self.begun
            if since >= self.moment:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.chance.choice(workers).kill()
                    self.killed_at = since
                    return


def run(stage: Stage, folder: Path, moment: float | None, chance: random.Random) -> Outcome:
    """Runs a stage's command in `folder` on the connected cluster; a worker is killed at that moment of the stage."""
    killer, begin, printed = Killer(stage, folder / "out", moment, chance), time.monotonic(), io.StringIO()
    killer.start()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            status = command_line([*stage.words, *SMALL, "--out", str(folder / "out")])
    finally:
        killer.over.set()
        killer.join()
    now, text = time.monotonic(), printed.getvalue()
    result = folder / "out" / "result.json"
    values = json.loads(result.read_text()) if result.exists() else {}
    found = [steady(values.get(name)) for name in stage.compared]
    worked = 0.0 if killer.begun is None else now - killer.begun
    return Outcome(status, killer.killed_at, text.count("resuming from"), found, now - begin, worked, text)


def working(parent: int, name: str) -> list[psutil.Process]:
    """The processes below a command that carry a worker's name and have loaded torch."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        with contextlib.suppress(psutil.Error, OSError):
            if name in " ".join(process.cmdline()) and "libtorch" in Path(f"/proc/{process.pid}/maps").read_text():
                found.append(process)
    return found


def steady(value: Any) -> Any:
    """A result without what differs from run to run: times and places."""
    if isinstance(value, dict):
        return {name: steady(each) for name, each in value.items() if name not in VARYING}
    return [steady(each) for each in value] if isinstance(value, list) else value


def harmed_alike(name: str, repetitions: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Kills a worker of a stage at that many random moments; the stage's row of the table, and differences in words."""
    stage, chance = STAGES[name], random.Random(f"{name} {seed}")
    wrong: list[str] = []
    harmed: list[Outcome] = []
    with tempfile.TemporaryDirectory() as home:
        whole = run(stage, made(Path(home) / "whole"), None, chance)
        if whole.status != 0:
            return {}, [f"{name}: the unharmed command ended with {whole.status}: {whole.printed[-500:]}"]
        for number in range(3 * repetitions):
            outcome = run(stage, made(Path(home) / str(number)), chance.uniform(0, whole.worked), chance)
            if outcome.killed_at is None and outcome.status == 0:
                continue
            harmed.append(outcome)
            if outcome.status != 0 or outcome.found != whole.found or outcome.told != 1:
                what = f"status {outcome.status}" if outcome.status else "another result, or not told"
                wrong.append(f"{name}, killed after {outcome.killed_at or 0:.1f} s: {what}: {outcome.printed[-1500:]}")
            if len(harmed) == repetitions:
                break
    extra = [each.seconds - whole.seconds for each in harmed]
    print(
        f"{name}: {len(harmed)} killed, {len(harmed) - len(wrong)} like the unharmed run; {whole.seconds:.0f} s unharmed; "
        f"a kill costs {statistics.median(extra):.0f} s (at most {max(extra):.0f})",
        flush=True,
    )
    row = {
        "fault": "worker killed (SIGKILL)", "stage": name, "runs": len(harmed), "held": len(harmed) - len(wrong),
        "moments_s": [round(each.killed_at or 0.0, 2) for each in harmed], "unharmed_s": round(whole.seconds, 1),
        "stage_s": round(whole.worked, 1), "harmed_s": [round(each.seconds, 1) for each in harmed],
    }  # fmt: skip
    return row, wrong


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def options(about: str | None, repetitions: int, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a script of this folder."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=repetitions)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="keep the numbers for the table of faults")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    chosen, wrong = options(__doc__, 20, arguments), []
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
