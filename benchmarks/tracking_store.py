"""What an MLflow store of its own costs a run, beside what MLflow needs to make and migrate one.

    python benchmarks/tracking_store.py [--full]

Each run is a process of its own that opens a store in an empty folder, logs parameters and a metric to one run, and closes
it. `first` has an empty cache, so MLflow migrates its database; `later` copies what the first kept. Importing MLflow is
shown by itself. The aim is at most 2 s a later run, its import included; the median of the runs counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import Record, benchmark_parser

AIM = 2.0


def seconds() -> dict[str, float]:
    """What this process spends on a store in an empty folder, in seconds of wall time, and of the processor."""
    import torch  # noqa: F401 - a run has imported it anyway, and MLflow shares much of what it imports

    from fieldshift.tracking import TrackingConfig, open_store

    started = time.perf_counter(), time.process_time()
    from mlflow import MlflowClient  # noqa: F401

    imported = time.perf_counter() - started[0]
    with tempfile.TemporaryDirectory() as folder:
        run = open_store(TrackingConfig(), Path(folder)).run("fieldshift", "run", key="run")
        run.log_params({"recipe": {"epochs": 3}})
        run.log_metrics({"train/loss": 1.0}, step=1)
        run.close("FINISHED")
    wall, processor = time.perf_counter() - started[0], time.process_time() - started[1]
    return {"import": imported, "store": wall - imported, "wall": wall, "processor": processor}


def in_process(cache: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--one"], env={**os.environ, "FIELDSHIFT_CACHE": str(cache)}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--one", action="store_true", help="do one run and print its seconds as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(seconds()))
        return
    record = Record("tracking_store", __doc__, vars(options))
    with tempfile.TemporaryDirectory() as folder:
        first, *later = (in_process(Path(folder)) for _ in range(10 if options.full else 4))
    table = "a store of its own"
    for name, shown in (("import", "import of MLflow"), ("store", "opening, logging, closing")):
        record.row(table, shown, [run[name] for run in later], unit="s", peer="first run", theirs=[first[name]])
    record.row(table, "together", [run["wall"] for run in later], unit="s", at_most=AIM)
    record.finish()


if __name__ == "__main__":
    main()
