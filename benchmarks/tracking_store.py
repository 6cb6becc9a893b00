"""What an MLflow store of its own costs a run, beside what MLflow needs to make and migrate one.

    python benchmarks/tracking_store.py [--runs 3]

Each run is a process of its own that opens a store in an empty folder, logs parameters and a metric to one run, and closes
it. `first` has an empty cache, so MLflow migrates its database; `later` copies what the first kept. Importing MLflow is
shown by itself. The aim is at most 2 s a later run, its import included; the median of the runs counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peak_memory import state_peak

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="later runs")
    parser.add_argument("--one", action="store_true", help="do one run and print its seconds as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(seconds()))
        return
    with tempfile.TemporaryDirectory() as folder:
        first, *later = (in_process(Path(folder)) for _ in range(1 + options.runs))
    typical = {name: statistics.median(run[name] for run in later) for name in first}
    print(f"{'run':<7} {'import s':>9} {'store s':>9} {'together s':>11} {'processor s':>12}")
    for name, row in (("first", first), ("later", typical)):
        print(f"{name:<7} {row['import']:>9.2f} {row['store']:>9.2f} {row['wall']:>11.2f} {row['processor']:>12.2f}")
    reached = "met" if typical["wall"] <= AIM else "NOT met"
    print(f"a store of its own costs a run {typical['wall']:.2f} s, aim at most {AIM:g} s: {reached}")
    state_peak()


if __name__ == "__main__":
    main()
