"""What Ray costs a training: its loop in a worker beside the same loop without Ray, a start, a checkpoint with its report.

    python benchmarks/ray_overhead.py [--full]

tiny-resnet on the built-in digits, one thread, one worker on a local cluster, beside a process without Ray. Both are new at
every repetition and take turns; the seconds are those that the training itself counts. Rates are those after the first epoch,
which has a row of its own: it includes the costs of a new process, and beside a worker Ray is still starting others. A start is
a run of a function that returns at once, beside Ray's own TorchTrainer with such a function. Checkpoint and report are timed
within the worker, against the epochs that they belong to. Aims: the loop in a worker at least 0.97 times as fast, a start at
most 1.3 times Ray's, checkpoint and report at most 2 % of an epoch.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from record import Record, benchmark_parser

from fieldshift.cluster import ClusterConfig, WorkerContext, connect, run_workers
from fieldshift.data import load_dataset
from fieldshift.motions import Policy
from fieldshift.training import Recipe, arm_named, network_card, objective_for, train_network
from fieldshift.training import loop as training_loop
from fieldshift.training.checkpoint import write_checkpoint

ONE = ClusterConfig(workers=1)
IMAGES = 2000
LOOP_AIM, START_AIM, REPORT_AIM = 0.97, 1.3, 0.02


def train_once(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    """Trains a folded network; the seconds of its epochs, and those of its checkpoints and reports."""
    torch.manual_seed(0)
    dataset = load_dataset("digit-pairs-left")
    policy = Policy.single("translate_x", 0.45, frames=3)
    card = network_card(
        dataset, "digit-pairs-left", arm_named("das-folded"), network="tiny-resnet", temporal="tsm", policy=policy
    )
    spent: list[float] = []

    def timed_write(path: Path, state: dict[str, Any]) -> None:
        started = time.perf_counter()
        write_checkpoint(path, state)
        spent.append(time.perf_counter() - started)

    def timed_report(row: dict[str, float], _epoch: int) -> None:
        started = time.perf_counter()
        context.report(row)
        spent.append(time.perf_counter() - started)

    with mock.patch.object(training_loop, write_checkpoint.__name__, timed_write):
        trained = train_network(
            card.build(), dataset.train, plan=card.plan(), recipe=replace(Recipe(), epochs=payload["epochs"]),
            objective=objective_for("classification", 10, None), seed=0, checkpoint=Path(payload["checkpoint"]),
            report=timed_report,
        )  # fmt: skip
    seconds = [IMAGES / row["images_per_second"] for row in trained.history]
    return {"seconds": seconds, "reports": sum(spent)}


def train_without_ray(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`train_once` as a command without workers runs it, in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as new:
        return new.submit(
            run_workers, train_once, payload, cluster=ClusterConfig(), name="train", storage=folder
        ).result()


def nothing(_payload: dict[str, Any], _context: WorkerContext) -> dict[str, Any]:
    return {}


def seconds_of_a_bare_trainer(folder: Path) -> float:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    started = time.perf_counter()
    config = RunConfig(storage_path=str(folder))
    TorchTrainer(lambda: None, scaling_config=ScalingConfig(num_workers=1), run_config=config).fit()
    return time.perf_counter() - started


def seconds_of_our_start(folder: Path) -> float:
    started = time.perf_counter()
    run_workers(nothing, {"folder": str(folder)}, cluster=ONE, name="start", storage=folder)
    return time.perf_counter() - started


def rate(trained: dict[str, Any]) -> float:
    """Images per second after the first epoch."""
    seconds: list[float] = trained["seconds"][1:]
    return IMAGES * len(seconds) / sum(seconds)


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--epochs", type=int, help="default: 3; with --full 6")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.epochs = options.epochs or (6 if options.full else 3)
    record = Record("ray_overhead", __doc__, vars(options))
    here, there, bare, ours = [], [], [], []
    with tempfile.TemporaryDirectory() as name, connect(ONE):
        for number in range(9 if options.full else 1):
            folder = Path(name) / str(number)
            folder.mkdir()
            payload = {"epochs": options.epochs, "checkpoint": str(folder / "here.pt")}
            here.append(train_without_ray(payload, folder))
            payload = {"epochs": options.epochs, "checkpoint": str(folder / "there.pt")}
            there.append(run_workers(train_once, payload, cluster=ONE, name="train", storage=folder))
            bare.append(seconds_of_a_bare_trainer(folder / "bare"))
            ours.append(seconds_of_our_start(folder / "ours"))
    table = f"tiny-resnet, {options.epochs} epochs of {IMAGES:,} images, one worker"
    record.row(
        table, "loop in a worker", [rate(each) for each in there], unit="images/s", peer="loop without Ray",
        theirs=[rate(each) for each in here], at_least=LOOP_AIM,
    )  # fmt: skip
    record.row(
        table, "first epoch in a worker", [each["seconds"][0] for each in there], unit="s", peer="without Ray",
        theirs=[each["seconds"][0] for each in here],
    )  # fmt: skip
    record.row(
        table, "start of a worker", ours, unit="s", peer="Ray's bare TorchTrainer", theirs=bare, at_most=START_AIM
    )
    record.row(
        table, "checkpoints and reports", [row["reports"] for row in there], unit="s", peer="the loop",
        theirs=[sum(row["seconds"]) for row in there], at_most=REPORT_AIM,
    )  # fmt: skip
    record.finish()


if __name__ == "__main__":
    main()
