"""Files of a run that are cut short, changed in one byte or exchanged for another run's, and two runs in one folder.

    python -m tests.faults.files [--repetitions 10] [--seed 0] [--write]

Two small runs are made of each command, killed where that leaves the file. Then, at random places, their sealed files are
damaged (checkpoint, search state, weights, finished trial), and the command that reads them has to refuse with status 2 and
one line. Of two trainings that start at once in one folder, one has to end well and the other to be refused likewise, having
written nothing. Ends with status 1 where anything is otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fieldshift.cli import main as command_line
from tests.faults.table import keep_rows

SMALL = ("--loading.train_limit=120", "--loading.test_limit=40", "--tracking.enabled=false")
TRAIN = ("train", "--recipe.epochs=2", "--recipe.batch=32", *SMALL)
LONG = ("train", "--recipe.epochs=200", "--recipe.batch=32", *SMALL)
SEARCH = ("search", "--search.epochs=100", "--search.tune_epochs=1", "--search.batch=32", *SMALL)
COMPARE = ("compare", "--arms", "none", "--seeds=1", "--recipe.epochs=1", "--recipe.batch=32", "--budgets", "equal-epochs",
           "--cluster.trials_at_once=0", *SMALL)  # fmt: skip
SUBJECTS = {
    "checkpoint.pt": (LONG, True), "search.pt": (SEARCH, True), "weights.safetensors": (TRAIN, False),
    "ray/trials/*.json": (COMPARE, False),
}  # fmt: skip
"""Files with the command that writes them, and whether it is killed when it has."""


def cut(content: bytes, _other: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def changed(content: bytes, _other: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :]


def exchanged(_content: bytes, other: bytes, _chance: random.Random) -> bytes:
    return other


DAMAGES: dict[str, Callable[[bytes, bytes, random.Random], bytes]] = {
    "file cut short": cut, "file changed in one bit": changed, "file exchanged for another run's": exchanged,
}  # fmt: skip


def called(*words: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = command_line(list(words))
    return status, out.getvalue(), err.getvalue()


def made(words: Sequence[str], name: str, out: Path, *own: str, killed: bool) -> Path:
    """The folder of a run that ended well, or was killed when it had written a file."""
    command = [sys.executable, "-m", "fieldshift.cli", *words, *own, f"--out={out}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while killed and process.poll() is None and not list(out.glob(name)):
            time.sleep(0.05)
        if killed:
            process.kill()
    if not list(out.glob(name)):
        raise RuntimeError(f"{words[0]} ended with {process.returncode} and left no {name}.")
    return out


def refused(name: str, damage: str, folders: tuple[Path, Path], chance: random.Random) -> str:
    """What is wrong with how a damaged file is refused, in words; "" if nothing."""
    words, _ = SUBJECTS[name]
    with tempfile.TemporaryDirectory() as home:
        run = Path(home) / "run"
        shutil.copytree(folders[0], run)
        if name != "weights.safetensors":
            (run / "result.json").unlink(missing_ok=True)
        file, other = next(run.glob(name)), next(folders[1].glob(name))
        before = file.read_bytes()
        file.write_bytes(DAMAGES[damage](before, other.read_bytes(), chance))
        if file.read_bytes() == before:
            return ""
        again: tuple[str, ...] = (*words, "--resume", f"--out={run}")
        if name == "weights.safetensors":
            again = ("evaluate", f"--run={run}", f"--out={Path(home) / 'score'}")
        status, _, complaint = called(*again)
        if status == 2 and complaint.count("\n") == 1 and file.name in complaint:
            return ""
        return f"status {status}: {complaint[-400:] or 'accepted'}"


def at_once(home: Path) -> str:
    """What is wrong with two trainings that start at once in one folder, in words; "" if nothing."""
    out = home / "both"
    command = [sys.executable, "-m", "fieldshift.cli", *TRAIN, f"--out={out}"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = sorted(
        ((process.returncode, error) for (_, error), process in [(each.communicate(), each) for each in both])
    )
    shutil.rmtree(out)
    (first, _), (second, complaint) = ends
    if (first, second) == (0, 2) and complaint.count("\n") == 1 and "--out" in complaint:
        return ""
    return f"statuses {first} and {second}: {complaint[-400:]}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="keep the numbers for the table of faults")
    chosen = parser.parse_args(arguments)
    chance, rows = random.Random(chosen.seed), []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for number, (name, (words, killed)) in enumerate(SUBJECTS.items()):
            folders = (
                made(words, name, home / f"{number}-1", killed=killed),
                made(words, name, home / f"{number}-2", "--seed=7", killed=killed),
            )
            for damage in DAMAGES:
                wrong = [refused(name, damage, folders, chance) for _ in range(chosen.repetitions)]
                rows.append(row_of(damage, name, wrong, "refused with status 2 and one line that names the file"))
        wrong = [at_once(home) for _ in range(chosen.repetitions)]
        rows.append(row_of("two runs in one folder", "train", wrong, "one ends well, the other is refused in one line"))
    if chosen.write:
        keep_rows(rows)
    return 1 if any(row["held"] < row["runs"] for row in rows) else 0


def row_of(fault: str, stage: str, wrong: Sequence[str], outcome: str) -> dict[str, Any]:
    tried, held = len(wrong), sum(not each for each in wrong)
    print(f"{stage}, {fault}: {held} of {tried} as they should be; {next(filter(None, wrong), '')}", flush=True)
    return {"fault": fault, "stage": stage, "faults": tried, "runs": tried, "held": held, "outcome": outcome}


if __name__ == "__main__":
    sys.exit(main())
