"""A node that leaves a cluster in the middle of an elastic search, and one that joins.

    python -m tests.faults.nodes [--epochs 12]

Starts a cluster of two nodes on this machine, each with one core, and a search of one to two workers on it. `leaves`: the
second node is killed once the search has a checkpoint. `joins`: the second node comes then. Both have to end with status 0,
tell what happened, and find the policy that the search finds in one process; with statistics of BatchNorm over all workers the
histories agree to rounding. Ends with status 1 where anything is otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fieldshift.cluster.connect import NICENESS
from fieldshift.ports import free_port

DEADLINE_S = 900.0
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), **NICENESS}
RAY = str(Path(sys.executable).with_name("ray"))


@contextlib.contextmanager
def node(*words: str, session: Path, cores: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """A node whose processes are one group."""
    command = [RAY, "start", "--block", f"--num-cpus={cores}", "--num-gpus=0", *words]
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


def scenario(name: str, home: Path, epochs: int) -> tuple[int, str, dict[str, Any]]:
    """The status, the output and the result of the search while a node leaves or joins."""
    port, session = free_port(), Path("/tmp") / f"fs-{secrets.token_hex(3)}"
    address = f"127.0.0.1:{port}"
    head = ("--head", f"--port={port}", "--include-dashboard=false", "--node-ip-address=127.0.0.1")
    elastic = (
        f"--cluster.address={address}",
        "--cluster.workers=2",
        "--cluster.min_workers=1",
        "--cluster.gpus_per_worker=0",
    )
    second = (f"--address={address}",)
    try:
        with node(*head, session=session), contextlib.ExitStack() as others:
            if name == "leaves":
                leaving = others.enter_context(node(*second, session=session))
            running = search(home / name, epochs, *elastic)
            await_file(home / name / "search.pt", running)
            if name == "leaves":
                end(leaving)
            else:
                others.enter_context(node(*second, session=session))
            printed, _ = running.communicate(timeout=DEADLINE_S)
    finally:
        shutil.rmtree(session, ignore_errors=True)
    result = home / name / "result.json"
    return running.returncode, printed, json.loads(result.read_text()) if result.exists() else {}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--scenarios", nargs="+", default=["leaves", "joins"], choices=["leaves", "joins"])
    chosen = parser.parse_args(arguments)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        alone = search(home / "alone", chosen.epochs, "--search.sync_batch_norm=false")
        printed, _ = alone.communicate(timeout=DEADLINE_S)
        if alone.returncode:
            print(printed[-800:])
            return 1
        expected = json.loads((home / "alone/result.json").read_text())
        for name in chosen.scenarios:
            begun = time.monotonic()
            status, printed, found = scenario(name, home, chosen.epochs)
            alike = found.get("words") == expected["words"]
            apart = max(
                (abs(ours["train/loss"] - theirs["train/loss"])
                 for ours, theirs in zip(found.get("history", []), expected["history"], strict=False)),
                default=float("nan"),
            )  # fmt: skip
            told = [line.strip() for line in printed.splitlines() if "resuming" in line or "worker" in line]
            print(
                f"{name}: status {status}, {'the same' if alike else 'ANOTHER'} policy, losses at most {apart:.1e} apart, "
                f"{time.monotonic() - begun:.0f} s; told: {told}",
                flush=True,
            )
            if status or not alike:
                wrong += 1
                print(printed[-1500:])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
