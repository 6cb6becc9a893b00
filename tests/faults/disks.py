"""A training whose disk is full at one of its writes, and goes on when there is space. Needs root, for a disk of its own.

    python -m tests.faults.disks [--sizes 40 120 330 420 500] [--write]

Mounts a disk of so many KiB in memory, trains into it, and looks: status 2, one line that names a file, no temporary file, a
last checkpoint that loads; then, with more space, --resume ends with status 0 and the score of a run on a large disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fieldshift.training.checkpoint import read_checkpoint
from tests.faults.table import keep_rows

WORDS = ("train", "--loading.train_limit=300", "--loading.test_limit=100", "--recipe.epochs=3", "--recipe.batch=32",
         "--tracking.enabled=false")  # fmt: skip


def train(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fieldshift.cli", *WORDS, f"--out={out}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def score_of(out: Path) -> float:
    return float(json.loads((out / "result.json").read_text())["row"]["score"])


def wrong_on(size: int, disk: Path, expected: float) -> list[str]:
    """What is wrong with a training on a disk of that many KiB, in words."""
    found = []
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)], check=True)
    try:
        out = disk / "run"
        full = train(out)
        if full.returncode != 2 or full.stderr.count("\n") != 1 or "No space left on device" not in full.stderr:
            found.append(f"status {full.returncode}: {full.stderr[-400:]}")
        if left := [path.name for path in out.rglob("*writing*")]:
            found.append(f"temporary files were left: {left}")
        if (out / "checkpoint.pt").exists():
            read_checkpoint(out / "checkpoint.pt")
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        again = train(out, "--resume")
        if again.returncode != 0 or score_of(out) != expected:
            found.append(f"resumed with status {again.returncode}: {again.stderr[-400:]}")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[40, 120, 330, 420, 500])
    parser.add_argument("--write", action="store_true", help="keep the numbers for the table of faults")
    chosen = parser.parse_args(arguments)
    wrong = 0
    with tempfile.TemporaryDirectory() as home:
        whole = Path(home) / "whole"
        if train(whole).returncode:
            print("the training fails on a large disk too")
            return 1
        disk = Path(home) / "disk"
        disk.mkdir()
        for size in chosen.sizes:
            found = wrong_on(size, disk, score_of(whole))
            wrong += bool(found)
            print(f"{size} KiB: {'; '.join(found) or 'well'}", flush=True)
    if chosen.write:
        tried = len(chosen.sizes)
        row = {"fault": "full disk", "stage": "train", "faults": tried, "runs": tried, "held": tried - wrong,
               "sizes_kib": chosen.sizes, "outcome": "one line; with more space --resume finds the same score"}  # fmt: skip
        keep_rows([row])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
