"""Commands that are ended by a signal at random moments: how, how soon, and what they leave behind.

    python -m tests.faults.ends [--repetitions 3] [--seed 0]

Each repetition starts a small command on a local Ray cluster, sends it SIGINT or SIGTERM at a random moment of its work and
looks: the exit status (130, 143), no process of it after 15 seconds, no MLflow run left RUNNING, one line how to go on;
then the same command with --resume finishes. Ends with status 1 where anything is otherwise.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil
from mlflow import MlflowClient

from tests.faults.kills import DEADLINE_S, LOOK_S, SMALL, STAGES, options, working

ENDS_S = 15.0
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def ended(name: str, sent: signal.Signals, after: float, home: Path) -> tuple[list[str], float]:
    """What is wrong with how a command ended, in words, and how many seconds it took."""
    stage, wrong = STAGES[name], []
    words = [word for word in SMALL if "tracking" not in word]
    command = [sys.executable, "-m", "fieldshift.cli", *stage.words, *words, "--out", str(home / "out")]
    log = home / "printed.txt"
    with log.open("w") as printed, subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT) as process:
        family = wait_for_work(process, stage.process, after)
        process.send_signal(sent)
        begin = time.monotonic()
        try:
            status = process.wait(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return [f"it did not end: {log.read_text()[-500:]}"], DEADLINE_S
        seconds = time.monotonic() - begin
    left = [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    _, left = psutil.wait_procs(left, timeout=max(0.0, ENDS_S - seconds))
    if left:
        wrong.append(f"{len(left)} processes were left: {', '.join(sorted(each.name() for each in left))}")
    if status != STATUS[sent]:
        wrong.append(f"status {status}: {log.read_text()[-800:]}")
    if "--resume" not in log.read_text():
        wrong.append(f"no line how to go on: {log.read_text()[-800:]}")
    client = MlflowClient(f"sqlite:///{home / 'out' / 'mlflow.db'}")
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    states = Counter(run.info.status for run in runs)
    if states["RUNNING"] or states["FAILED"] or not states["KILLED"]:
        wrong.append(f"MLflow runs were left {dict(states)}")
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    if again.returncode != 0:
        wrong.append(f"--resume ended with {again.returncode}: {(again.stdout + again.stderr)[-800:]}")
    return wrong, seconds


def wait_for_work(process: subprocess.Popen[bytes], name: str, after: float) -> list[psutil.Process]:
    """Waits until so many seconds after a worker has begun; the processes of the command by then."""
    begin, since = time.monotonic(), None
    while since is None or time.monotonic() - since < after:
        if process.poll() is not None or time.monotonic() - begin > DEADLINE_S:
            break
        if since is None and working(process.pid, name):
            since = time.monotonic()
        time.sleep(LOOK_S)
    return psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(__doc__, 3, arguments)
    chance, failures = random.Random(chosen.seed), 0
    for name in chosen.stages:
        for number in range(chosen.repetitions):
            sent, after = (signal.SIGINT, signal.SIGTERM)[number % 2], chance.uniform(0, 8)
            with tempfile.TemporaryDirectory() as home:
                wrong, seconds = ended(name, sent, after, Path(home))
            failures += bool(wrong)
            print(f"{name}, {sent.name} {after:.1f} s into its work: ended in {seconds:.1f} s; {'; '.join(wrong) or 'well'}",
                  flush=True)  # fmt: skip
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
