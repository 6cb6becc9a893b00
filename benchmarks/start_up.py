"""How long a mistake on the command line waits for its answer, beside the import of torch alone.

    python benchmarks/start_up.py [--full]

Each mistake is a process of its own, as a person starts it; the median is shown. It may take 1.5 seconds on an idle core.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import Record, benchmark_parser

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


from tests.mistakes import prepare, words_of  # noqa: E402 - found only once the root is on the path

TEN = (
    "option", "number", "data set", "data folder", "network", "weights", "policy", "folder of a run", "cores of trials",
    "picture",
)  # fmt: skip
ALLOWED_S = 1.5


def seconds(command: list[str], folder: Path, repeats: int) -> tuple[list[float], str]:
    """The wall-clock times of a command, and the last line it said."""
    path = os.pathsep.join([str(ROOT / "platform"), str(ROOT)])
    times, said = [], ""
    for _ in range(repeats):
        started = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
        )
        times.append(time.perf_counter() - started)
        said = (done.stderr.splitlines() or [""])[-1]
    return times, said


def main() -> None:
    chosen = benchmark_parser(__doc__).parse_args()
    repeats = 9 if chosen.full else 1
    record = Record("start_up", __doc__, vars(chosen))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = prepare(folder)
        torch, _ = seconds([sys.executable, "-c", "import torch"], folder, repeats)
        for mistake in TEN:
            taken, said = seconds([sys.executable, "-m", "fieldshift.cli", *words_of(mistake, files)], folder, repeats)
            record.row("the answer to a mistake", mistake, taken, unit="s", at_most=ALLOWED_S)
            print(f"      {said.replace(name, '')[:120]}")
        record.row("the answer to a mistake", "import torch alone", torch, unit="s")
    record.finish()


if __name__ == "__main__":
    main()
