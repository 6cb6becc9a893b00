"""Commands that are ended at random moments, by signals or as jobs: how, how soon, and what they leave behind.

    python -m tests.faults.ends [--repetitions 2] [--stages ...] [--ends ...] [--seed 0] [--write]

Each stage runs as a small command on a local Ray cluster and gets SIGINT, SIGTERM, or SIGTERM to its process group, in its
work and, every second time, while it starts; and as a job, which `fieldshift stop` or `ray job stop` ends. Looked at are the
exit status (130, 143; of a job STOPPED), processes after 15 seconds, MLflow runs left RUNNING, and one line how to go on; then
the same command with --resume finishes. Ends with status 1 where anything is otherwise. `--write` keeps the numbers.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient

from fieldshift.ports import free_port
from tests.faults.kills import DEADLINE_S, LOOK_S, SMALL, STAGES, options
from tests.faults.nodes import RAY, TOKEN, node
from tests.faults.table import keep_rows

ENDS_S = 15.0
SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGTERM to its process group": 143}
STOPS = ("fieldshift stop", "ray job stop")
STARTING_S, WORKING_S = 12.0, 4.0
"""The longest time after the start of a command, and after the begin of a stage, at which it is ended."""


def words_of(name: str, out: Path) -> list[str]:
    """A stage's command with tracking, and a training long enough to be met in it."""
    longer = {"train": ["--recipe.epochs=60"], "compare": ["--recipe.epochs=60"], "search": ["--search.epochs=30"]}
    tracked = [word for word in SMALL if "tracking" not in word]
    return [*STAGES[name].words, *longer.get(name, []), *tracked, f"--out={out}"]


def under_way(name: str, out: Path) -> bool:
    try:
        return STAGES[name].is_under_way(out, 0.0)
    except (OSError, ValueError):  # a file that is replaced meanwhile
        return False


def ended(name: str, how: str, after: float, home: Path, *, starting: bool) -> tuple[list[str], float]:
    """What is wrong with how a command ended, in words, and how many seconds its last process took to end."""
    out, log = home / "out", home / "printed.txt"
    command = [sys.executable, "-m", "fieldshift.cli", *words_of(name, out)]
    with (
        log.open("w") as printed,
        subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True) as process,
    ):
        begin = time.monotonic()
        while not starting and process.poll() is None and not under_way(name, out):
            if time.monotonic() - begin > DEADLINE_S:
                process.kill()
                return [f"it did not begin: {log.read_text()[-500:]}"], DEADLINE_S
            time.sleep(LOOK_S)
        time.sleep(after)
        if process.poll() is not None:
            return [f"it had ended with {process.returncode}: {log.read_text()[-500:]}"], 0.0
        family = psutil.Process(process.pid).children(recursive=True)
        sent = signal.SIGINT if how == "SIGINT" else signal.SIGTERM
        (os.killpg if "group" in how else os.kill)(process.pid, sent)
        begin = time.monotonic()
        try:
            status = process.wait(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return [f"it did not end: {log.read_text()[-500:]}"], DEADLINE_S
        seconds, left = all_ended(family, begin)
    wrong = too_slow(seconds) + left_behind(left, out, log.read_text(), opened=not starting)
    if status != SIGNALS[how]:
        wrong.append(f"status {status}: {log.read_text()[-800:]}")
    resumed = ["--resume"] if (out / "config.yaml").exists() else []
    again = subprocess.run([*command, *resumed], capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    if again.returncode != 0:
        wrong.append(f"--resume ended with {again.returncode}: {(again.stdout + again.stderr)[-800:]}")
    return wrong, seconds


def all_ended(family: Sequence[psutil.Process], begin: float) -> tuple[float, list[psutil.Process]]:
    """Seconds since `begin` when the last of these processes had ended, and those left after the time they have."""
    there = [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    _, left = psutil.wait_procs(there, timeout=max(0.0, ENDS_S - (time.monotonic() - begin)))
    return time.monotonic() - begin, left


def too_slow(seconds: float) -> list[str]:
    """What is wrong with the time after which the last process had ended, in words."""
    return [f"it took {seconds:.1f} s"] if seconds > ENDS_S + LOOK_S else []


def left_behind(left: Sequence[psutil.Process], out: Path, printed: str, *, opened: bool) -> list[str]:
    """What an ended command left that it should not, in words; `opened`: its run was open when it was ended."""
    wrong = []
    if left:
        wrong.append(f"{len(left)} processes were left: {', '.join(sorted(each.name() for each in left))}")
    store = out / "mlflow.db"
    if opened and "--resume" not in printed:
        wrong.append(f"no line how to go on: {printed[-800:]}")
    if store.exists():
        client = MlflowClient(f"sqlite:///{store}")
        runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
        states = Counter(run.info.status for run in runs)
        if states["RUNNING"] or states["FAILED"] or (opened and not states["KILLED"]):
            wrong.append(f"MLflow runs were left {dict(states)}")
    return wrong


def stopped(name: str, how: str, after: float, home: Path, address: str, head: int) -> tuple[list[str], float]:
    """As `ended`, for the command as a job of a cluster that another command stops."""
    out, log = home / "out", home / "printed.txt"

    def fieldshift(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "fieldshift.cli", *words], env=os.environ | TOKEN, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=DEADLINE_S,
        )  # fmt: skip
        return done.stdout

    job = fieldshift("submit", "--address", address, "--", *words_of(name, out)).split()[1].rstrip(":")
    begin = time.monotonic()
    while not under_way(name, out):
        if time.monotonic() - begin > DEADLINE_S:
            return [f"it did not begin: {fieldshift('logs', job, '--address', address)[-800:]}"], DEADLINE_S
        time.sleep(LOOK_S)
    time.sleep(after)
    family = [each for each in psutil.Process(head).children(recursive=True) if belongs(each, out)]
    begin = time.monotonic()
    if how == "fieldshift stop":
        fieldshift("stop", job, "--address", address)
    else:
        subprocess.run([RAY, "job", "stop", "--address", address, job], env=os.environ | TOKEN, capture_output=True,
                       timeout=DEADLINE_S, check=False)  # fmt: skip
    seconds, left = all_ended(family, begin)
    log.write_text(fieldshift("logs", job, "--address", address))
    wrong = too_slow(seconds) + left_behind(left, out, log.read_text(), opened=True)
    if "STOPPED" not in fieldshift("jobs", "--address", address):
        wrong.append(f"the job is not STOPPED: {fieldshift('jobs', '--address', address)}")
    again = fieldshift("submit", "--address", address, "--follow", "--", *words_of(name, out), "--resume")
    if "SUCCEEDED" not in again:
        wrong.append(f"--resume did not succeed: {again[-800:]}")
    return wrong, seconds


def belongs(process: psutil.Process, out: Path) -> bool:
    """Whether a process of the cluster is one of the job's: its command, or an actor that works for it."""
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return str(out) in title or any(name in title for name in ("RayTrainWorker", "ImplicitFunc", "TrainController"))


def report(name: str, how: str, moment: str, wrong: list[str], seconds: float) -> None:
    print(f"{name}, {how} {moment}: ended in {seconds:.1f} s; {'; '.join(wrong) or 'well'}", flush=True)


def row_of(how: str, name: str, found: Sequence[tuple[list[str], float]]) -> dict[str, Any]:
    slowest = max(seconds for _, seconds in found)
    return {
        "fault": how, "stage": name, "faults": len(found), "runs": len(found), "held": sum(not wrong for wrong, _ in found),
        "ended_s": [round(seconds, 1) for _, seconds in found], "outcome": f"the last process ended after {slowest:.0f} s",
    }  # fmt: skip


def by_signals(
    names: Sequence[str], signals: Sequence[str], repetitions: int, chance: random.Random
) -> list[dict[str, Any]]:
    rows = []
    for name in names:
        for how in signals:
            found = []
            for number in range(repetitions):
                starting = number % 2 == 1
                after = chance.uniform(0, STARTING_S if starting else WORKING_S)
                with tempfile.TemporaryDirectory() as home:
                    found.append(ended(name, how, after, Path(home), starting=starting))
                report(name, how, f"{after:.1f} s into its {'start' if starting else 'work'}", *found[-1])
            rows.append(row_of(how, name, found))
    return rows


def as_jobs(names: Sequence[str], stops: Sequence[str], chance: random.Random) -> list[dict[str, Any]]:
    port, session, rows = free_port(), Path("/tmp") / f"fs-{chance.randrange(16**6):06x}", []
    words = ("--head", f"--port={free_port()}", f"--dashboard-port={port}", "--dashboard-host=127.0.0.1",
             f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}")  # fmt: skip
    try:
        with node(*words, session=session, cores=2) as head:
            for name in names:
                for how in stops:
                    with tempfile.TemporaryDirectory() as home:
                        after = chance.uniform(0, WORKING_S)
                        found = stopped(name, how, after, Path(home), f"http://127.0.0.1:{port}", head.pid)
                    report(name, how, f"{after:.1f} s into its work", *found)
                    rows.append(row_of(how, name, [found]))
    finally:
        shutil.rmtree(session, ignore_errors=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, 2)
    parser.add_argument("--ends", nargs="+", default=[*SIGNALS, *STOPS], choices=[*SIGNALS, *STOPS])
    chosen = parser.parse_args(arguments)
    chance = random.Random(chosen.seed)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # commands would inherit that a shell's background ignores it
    rows = by_signals(chosen.stages, [how for how in SIGNALS if how in chosen.ends], chosen.repetitions, chance)
    if stops := [how for how in STOPS if how in chosen.ends]:
        rows += as_jobs(chosen.stages, stops, chance)
    if chosen.write:
        keep_rows(rows)
    return 1 if any(row["held"] < row["runs"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
