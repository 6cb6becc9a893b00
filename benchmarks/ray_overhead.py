"""What Ray costs a training: its loop in a worker beside the loop in this process, a start, a checkpoint with its report.

    python benchmarks/ray_overhead.py [--full]

tiny-resnet on the built-in digits, one thread, one worker on a local cluster. The loops take turns; the seconds are those that
the training itself counts. The same loop in Ray's own TorchTrainer, with Ray's reports, shows what is Ray's part. A start is a
run of a function that returns at once, beside Ray's own TorchTrainer with such a function. Checkpoint and report are timed
within the worker, against the epoch that they belong to. Aims: the loop in a worker at least 0.97 times as fast, a start at
most 1.3 times Ray's, checkpoint and report at most 2 % of an epoch.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from record import Record, benchmark_parser

from fieldshift.cluster import ClusterConfig, WorkerContext, connect, run_workers
from fieldshift.data import load_dataset
from fieldshift.motions import Policy
from fieldshift.training import Recipe, arm_named, network_card, objective_for, train_network
from fieldshift.training import loop as training_loop

ONE = ClusterConfig(workers=1)
LOOP_AIM, START_AIM, REPORT_AIM = 0.97, 1.3, 0.02


def train_once(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    """Trains a folded network; the seconds of the loop, and those of its checkpoints and reports."""
    torch.manual_seed(0)
    dataset = load_dataset("digit-pairs-left")
    policy = Policy.single("translate_x", 0.45, frames=3)
    card = network_card(
        dataset, "digit-pairs-left", arm_named("das-folded"), network="tiny-resnet", temporal="tsm", policy=policy
    )
    spent: list[float] = []
    write = training_loop.write_checkpoint

    def timed_write(*arguments: Any) -> None:
        started = time.perf_counter()
        write(*arguments)
        spent.append(time.perf_counter() - started)

    def timed_report(row: dict[str, float], _epoch: int) -> None:
        started = time.perf_counter()
        context.report(row)
        spent.append(time.perf_counter() - started)

    training_loop.write_checkpoint = timed_write
    try:
        trained = train_network(
            card.build(), dataset.train, plan=card.plan(), recipe=replace(Recipe(), epochs=payload["epochs"]),
            objective=objective_for("classification", 10, None), seed=0, checkpoint=Path(payload["checkpoint"]),
            report=timed_report,
        )  # fmt: skip
    finally:
        training_loop.write_checkpoint = write
    return {"seconds": trained.seconds, "reports": sum(spent)}


def nothing(_payload: dict[str, Any], _context: WorkerContext) -> dict[str, Any]:
    return {}


def bare_trainer(function: Callable[[], Any], folder: Path) -> Any:
    """What a function returns that Ray's own TorchTrainer runs on one worker."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    config = RunConfig(storage_path=str(folder))
    return TorchTrainer(function, scaling_config=ScalingConfig(num_workers=1), run_config=config).fit().return_value


def train_bare(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`train_once` in Ray's own TorchTrainer."""

    def loop() -> dict[str, Any]:
        from ray import train

        return train_once(payload, WorkerContext(send=lambda metrics: bool(train.report(metrics))))

    found: dict[str, Any] = bare_trainer(loop, folder)
    return found


def seconds_of_a_bare_trainer(folder: Path) -> float:
    started = time.perf_counter()
    bare_trainer(lambda: None, folder)
    return time.perf_counter() - started


def seconds_of_our_start(folder: Path) -> float:
    started = time.perf_counter()
    run_workers(nothing, {"folder": str(folder)}, cluster=ONE, name="start", storage=folder)
    return time.perf_counter() - started


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = Record("ray_overhead", __doc__, vars(options))
    here, there, rays, bare, ours = [], [], [], [], []
    with tempfile.TemporaryDirectory() as name, connect(ONE):
        for number in range(9 if options.full else 3):
            folder = Path(name) / str(number)
            folder.mkdir()
            payload = {"epochs": options.epochs, "checkpoint": str(folder / "here.pt")}
            here.append(run_workers(train_once, payload, cluster=ClusterConfig(), name="train", storage=folder))
            payload = {"epochs": options.epochs, "checkpoint": str(folder / "there.pt")}
            there.append(run_workers(train_once, payload, cluster=ONE, name="train", storage=folder))
            payload = {"epochs": options.epochs, "checkpoint": str(folder / "rays.pt")}
            rays.append(train_bare(payload, folder / "rays"))
            bare.append(seconds_of_a_bare_trainer(folder / "bare"))
            ours.append(seconds_of_our_start(folder / "ours"))
    table = f"tiny-resnet, {options.epochs} epochs of 2,000 images, one worker"
    images = 2000 * options.epochs
    alone, ours_in_ray, bare_in_ray = ([images / row["seconds"] for row in rows] for rows in (here, there, rays))
    peer = {"unit": "images/s", "peer": "loop in this process", "theirs": alone}
    record.row(table, "loop in a worker", ours_in_ray, **peer, at_least=LOOP_AIM)
    record.row(table, "loop in Ray's bare TorchTrainer", bare_in_ray, **peer)
    record.row(
        table, "start of a worker", ours, unit="s", peer="Ray's bare TorchTrainer", theirs=bare, at_most=START_AIM
    )
    record.row(
        table, "checkpoints and reports", [row["reports"] for row in there], unit="s", peer="the loop",
        theirs=[row["seconds"] for row in there], at_most=REPORT_AIM,
    )  # fmt: skip
    record.finish()


if __name__ == "__main__":
    main()
