"""What MLflow costs a run: a store of its own, beside what MLflow needs to make and migrate one, and the share of a step.

    python benchmarks/tracking_store.py [--full]

Each run is a process of its own that opens a store in an empty folder, logs parameters and a metric to one run, and closes
it. `first` has an empty cache, so MLflow migrates its database; `later` copies what the first kept. Importing MLflow is
shown by itself. The aim is at most 2 s a later run, its import included; the median of the runs counts.

Then the built-in data train the default network on videos of three frames, with and without tracking in turn, every epoch
logged as a command logs it and the machine's load measured every second. The aim is at most 1 % of a step: of the time within
the calls of tracking, and of the ratio of the two in seconds of the processor.
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
SHARE = 0.01
EPOCHS, BATCH = 2, 64


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


def training(folder: Path | None) -> tuple[float, float, int]:
    """CPU seconds of a training, the share of its time within the calls of tracking, and its steps; tracked or not."""
    import torch

    from fieldshift.data import load_dataset
    from fieldshift.experiment.training_runs import epoch_metrics
    from fieldshift.motions import Policy
    from fieldshift.networks import video_network
    from fieldshift.tracking import Run, TrackingConfig, open_store
    from fieldshift.tracking.system import measured
    from fieldshift.training import FramePlan, Recipe, objective_for, train_network

    data = load_dataset("digit-pairs-left")
    torch.manual_seed(0)
    network = video_network(
        "tiny-resnet", temporal="tsm", frames=3, num_classes=len(data.classes), in_channels=data.channels
    )
    run = Run() if folder is None else open_store(TrackingConfig(), folder).run("fieldshift", "run", key=folder.name)
    inside = 0.0

    def report(metrics: dict[str, float], epoch: int) -> None:
        nonlocal inside
        began = time.perf_counter()
        run.log_metrics(epoch_metrics(metrics), step=epoch)
        inside += time.perf_counter() - began

    with measured(run, began=time.time(), interval=1.0):
        started, processor = time.perf_counter(), time.process_time()
        train_network(
            network, data.train, plan=FramePlan(policy=Policy.single("translate_x", 0.45, frames=3)),
            recipe=Recipe(epochs=EPOCHS, batch=BATCH), objective=objective_for("classification", len(data.classes)), seed=0,
            report=report,
        )  # fmt: skip
        share, spent = inside / (time.perf_counter() - started), time.process_time() - processor
    run.close("FINISHED")
    return spent, share, EPOCHS * (len(data.train) // BATCH)


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
        first, *later = (in_process(Path(folder)) for _ in range(10 if options.full else 2))
    table = "a store of its own"
    for name, shown in (("import", "import of MLflow"), ("store", "opening, logging, closing")):
        record.row(table, shown, [run[name] for run in later], unit="s", peer="first run", theirs=[first[name]])
    record.row(table, "together", [run["wall"] for run in later], unit="s", at_most=AIM)
    tracked, plain, shares = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        training(None)
        for number in range(12 if options.full else 1):
            both = {}
            for place in (None, Path(folder) / str(number))[:: 1 if number % 2 else -1]:
                both[place is None] = training(place)
            (spent, share, steps), (alone, _, _) = both[False], both[True]
            tracked.append(1000 * spent / steps)
            plain.append(1000 * alone / steps)
            shares.append(100 * share)
    table = "a training step, epochs and load of the machine logged"
    record.row(table, "within the calls of tracking", shares, unit="%", at_most=100 * SHARE)
    record.row(table, "with tracking", tracked, unit="CPU ms", peer="without", theirs=plain, at_most=1 + SHARE)
    record.finish()


if __name__ == "__main__":
    main()
