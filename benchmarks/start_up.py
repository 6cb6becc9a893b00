"""How long a mistake on the command line waits for its answer, beside the import of torch alone.

    python benchmarks/start_up.py [--repeats 5]

Each mistake is a process of its own, as a person starts it; the median is shown. It may take 1.5 seconds on an idle core.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peak_memory import state_peak

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


from tests.mistakes import prepare, words_of  # noqa: E402 - found only once the root is on the path

TEN = (
    "option", "number", "data set", "data folder", "network", "weights", "policy", "folder of a run", "cores of trials",
    "picture",
)  # fmt: skip
ALLOWED_S = 1.5


def seconds(command: list[str], folder: Path, repeats: int) -> tuple[float, str]:
    """The median wall-clock time of a command, and the last line it said."""
    path = os.pathsep.join([str(ROOT / "platform"), str(ROOT)])
    times, said = [], ""
    for _ in range(repeats):
        started = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
        )
        times.append(time.perf_counter() - started)
        said = (done.stderr.splitlines() or [""])[-1]
    return statistics.median(times), said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = prepare(folder)
        torch, _ = seconds([sys.executable, "-c", "import torch"], folder, repeats)
        print(f"{torch:6.2f} s  python -c 'import torch'")
        for mistake in TEN:
            words = words_of(mistake, files)
            taken, said = seconds([sys.executable, "-m", "fieldshift.cli", *words], folder, repeats)
            late = "" if taken <= ALLOWED_S else f"  (over {ALLOWED_S} s)"
            shown = " ".join(word.replace(name, "") for word in words)
            print(f"{taken:6.2f} s  fieldshift {shown}{late}\n          {said.replace(name, '')[:150]}")
    state_peak()


if __name__ == "__main__":
    main()
