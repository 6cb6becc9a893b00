"""Nodes that leave a cluster during an elastic search or join it, a head that is killed, a folder that nodes do not share.

    python -m tests.faults.nodes [--epochs 12] [--scenarios leaves joins head unshared] [--repetitions 1] [--write]

Starts a cluster of two nodes on this machine, each with one core, and a search of one to two workers on it. `leaves`: the
second node is killed once the search has a checkpoint. `joins`: the second node comes then; give epochs for a minute, since
Ray looks for room every half minute. Both have to end with status 0, tell what happened, and find the policy that the search
finds in one process; with statistics of BatchNorm over all workers the histories agree to rounding. `head`: the head is killed;
the command has to end soon, not with 0, and on a new cluster --resume finds the policy. `unshared`: a file system of its own
hides the folder of --out from the second node (needs root); status 2 and one line before any work. Ends with status 1 where
anything is otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldshift.cluster.connect import NICENESS
from fieldshift.ports import free_port
from tests.faults.table import keep_rows

DEADLINE_S = 900.0
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), **NICENESS}
RAY = str(Path(sys.executable).with_name("ray"))


@contextlib.contextmanager
def node(*words: str, session: Path, cores: int = 1, hidden: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A node whose processes are one group; with `hidden` it sees an empty folder there."""
    command = [RAY, "start", "--block", f"--num-cpus={cores}", "--num-gpus=0", *words]
    if hidden is not None:
        hiding = f"mount -t tmpfs tmpfs {shlex.quote(str(hidden))} && exec {shlex.join(command)}"
        command = ["unshare", "--mount", "sh", "-c", hiding]
    if "--head" in words:
        command.append(f"--temp-dir={session}")
    log = session.parent / f"{session.name}-{secrets.token_hex(2)}.log"
    with log.open("w") as printed:
        started = subprocess.Popen(
            command, stdout=printed, stderr=printed, start_new_session=True, env=os.environ | TOKEN
        )
        try:
            await_text(log, "Ray runtime started", started)
            yield started
        finally:
            end(started)
            log.unlink()


def await_text(log: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while text not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"The node did not start: {log.read_text()[-800:]}")
        time.sleep(0.2)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills a node as a power cut does."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)


def search(out: Path, epochs: int, *words: str) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "fieldshift.cli", "search", f"--search.epochs={epochs}", "--search.tune_epochs=1",
        "--search.batch=32", "--search.sync_batch_norm=true", "--loading.train_limit=480", "--loading.test_limit=80",
        "--tracking.enabled=false", f"--out={out}", *words,
    ]  # fmt: skip
    variables = os.environ | TOKEN | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables)


def await_file(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"The search ended before its first checkpoint: {process.communicate()[0][-800:]}")
        time.sleep(0.1)


@dataclass
class Outcome:
    """What a search came to: its status, output and result, and the seconds since what happened to the cluster."""

    status: int
    printed: str
    found: dict[str, Any]
    seconds: float


def scenario(name: str, home: Path, epochs: int) -> Outcome:
    """The outcome of the search while a node leaves or joins, or the head is killed, or a node does not see the folder."""
    port, session, out = free_port(), Path("/tmp") / f"fs-{secrets.token_hex(3)}", home / name / "out"
    out.parent.mkdir()
    address = f"127.0.0.1:{port}"
    head = ("--head", f"--port={port}", "--include-dashboard=false", "--node-ip-address=127.0.0.1")
    elastic = (f"--cluster.address={address}", "--cluster.workers=2", "--cluster.gpus_per_worker=0")
    if name in {"leaves", "joins"}:
        elastic = (*elastic, "--cluster.min_workers=1")
    second = (f"--address={address}",)
    try:
        with node(*head, session=session) as first, contextlib.ExitStack() as others:
            if name != "joins":
                hidden = out.parent if name == "unshared" else None
                leaving = others.enter_context(node(*second, session=session, hidden=hidden))
            running, begun = search(out, epochs, *elastic), time.monotonic()
            if name != "unshared":
                await_file(out / "search.pt", running)
                begun = time.monotonic()
            if name == "leaves":
                end(leaving)
            elif name == "joins":
                others.enter_context(node(*second, session=session))
            elif name == "head":
                end(first)
            printed, _ = running.communicate(timeout=DEADLINE_S)
            seconds = time.monotonic() - begun
    finally:
        shutil.rmtree(session, ignore_errors=True)
    result = out / "result.json"
    return Outcome(running.returncode, printed, json.loads(result.read_text()) if result.exists() else {}, seconds)


def wrong_with(name: str, came: Outcome, expected: dict[str, Any], home: Path, epochs: int) -> list[str]:
    """What is wrong with an outcome, in words."""
    wrong = []
    if name == "unshared":
        lines = [line for line in came.printed.splitlines() if "is not visible to 1 of the cluster's 2 nodes" in line]
        if came.status != 2 or len(lines) != 1 or (home / name / "out" / "search.pt").exists():
            wrong.append(f"status {came.status}: {came.printed[-800:]}")
        return wrong
    if name == "head":
        if came.status in {0, 2} or "Traceback" in came.printed:
            wrong.append(f"status {came.status}: {came.printed[-1500:]}")
        again = search(home / name / "out", epochs, "--cluster.workers=2", "--cluster.gpus_per_worker=0", "--resume")
        printed, _ = again.communicate(timeout=DEADLINE_S)
        result = home / name / "out" / "result.json"
        came.found = json.loads(result.read_text()) if result.exists() else {}
        if again.returncode:
            wrong.append(f"--resume ended with {again.returncode}: {printed[-800:]}")
    elif came.status:
        wrong.append(f"status {came.status}: {came.printed[-1500:]}")
    if came.found.get("words") != expected["words"]:
        wrong.append(f"another policy: {came.found.get('words')}")
    told = {"leaves": "instead of 2", "joins": "continuing with 2 workers instead of 1"}.get(name, "")
    if told not in came.printed:
        wrong.append(f"'{told}' was not told: {came.printed[-800:]}")
    return wrong


def apart(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """The largest difference of the two histories' training losses; NaN without a history."""
    pairs = zip(found.get("history", []), expected["history"], strict=False)
    return max((abs(ours["train/loss"] - theirs["train/loss"]) for ours, theirs in pairs), default=float("nan"))


FAULTS = {
    "leaves": ("node leaves", "continues with one worker, same policy"),
    "joins": ("node joins", "continues with two workers, same policy"),
    "head": ("head killed (SIGKILL)", "ends with an error; --resume on a new cluster finds the same policy"),
    "unshared": ("unshared folder", "refused in one line before any work"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--scenarios", nargs="+", default=list(FAULTS), choices=list(FAULTS))
    parser.add_argument("--write", action="store_true", help="keep the numbers for the table of faults")
    chosen = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        alone = search(Path(folder) / "alone", chosen.epochs, "--search.sync_batch_norm=false")
        printed, _ = alone.communicate(timeout=DEADLINE_S)
        if alone.returncode:
            print(printed[-800:])
            return 1
        expected = json.loads((Path(folder) / "alone/result.json").read_text())
        for name in chosen.scenarios:
            held, seconds, largest = 0, [], 0.0
            for number in range(chosen.repetitions):
                home = Path(folder) / str(number)
                home.mkdir(exist_ok=True)
                came = scenario(name, home, chosen.epochs)
                wrong = wrong_with(name, came, expected, home, chosen.epochs)
                held += not wrong
                seconds.append(round(came.seconds, 1))
                largest = max(largest, apart(came.found, expected))
                told = [line.strip() for line in came.printed.splitlines() if "resuming" in line or "worker" in line]
                print(
                    f"{name}: {'; '.join(wrong) or 'well'}, {came.seconds:.0f} s, losses {largest:.1e} apart; told: {told}",
                    flush=True,
                )
            failed = failed or held < chosen.repetitions
            if chosen.write:
                fault, outcome = FAULTS[name]
                tried = chosen.repetitions
                row = {"fault": fault, "stage": "search", "faults": tried, "runs": tried, "held": held,
                       "seconds_after": seconds, "outcome": outcome}  # fmt: skip
                keep_rows([row])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
