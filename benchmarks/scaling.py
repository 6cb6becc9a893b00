"""What does a second worker cost, and what does a model of it predict for many GPUs?

    python benchmarks/scaling.py [--full]
    python benchmarks/scaling.py --predict --step_ms 210 --parameters 25557032 --gigabytes_per_s 200 25

Two workers of Ray Train, one thread each, train a video and a folded network on noise. By turns: worker 0 alone while worker 1
waits, both side by side without exchange, both with DistributedDataParallel, and the all-reduce of the gradients by itself. The
bytes are those that pass through DDP's communication hook. --predict measures nothing: it prints what the model predicts from a
reader's own numbers. docs/scaling.md describes the model.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from record import Record, benchmark_parser, shown

from fieldshift.cluster import ClusterConfig, WorkerContext, connect, run_workers
from fieldshift.data import DataSet, TensorSplit
from fieldshift.motions import Policy
from fieldshift.training import NetworkCard, Recipe, arm_named, network_card, network_cost, objective_for
from fieldshift.training.cost import BACKWARD_FACTOR
from fieldshift.training.optimisation import build_optimizer
from fieldshift.training.step import forward

ARMS = {"video": "das", "folded": "das-folded"}
FRAMES, BYTES_PER_NUMBER, CLASSES = 3, 4, 10
IMAGENET = ("resnet50", 224)


@dataclass(frozen=True)
class Work:
    """What is timed: images per worker and step, their channels and side in pixels, and steps per repetition."""

    images: int
    channels: int
    side: int
    steps: int


WORK = {"tiny-resnet": Work(64, 1, 40, 4), "resnet18": Work(2, 3, 64, 2), "resnet50": Work(2, 3, 224, 1)}


@dataclass(frozen=True)
class Prediction:
    """Of `workers` workers: seconds of the exchange, and of a step where it overlaps with the backward pass, and where not."""

    workers: int
    exchange: float
    overlapped: float
    step: float

    def images_per_second(self, images: int) -> tuple[float, float]:
        """At `images` per worker and step, without and with overlap."""
        return self.workers * images / self.step, self.workers * images / self.overlapped


def predicted(
    step: float, parameters: float, workers: int, *, bytes_per_second: float, latency: float = 0.0
) -> Prediction:
    """A step of `step` seconds alone, on several workers with as many images each.

    A ring all-reduce sends 2 (n - 1) / n of the gradients over the slowest link in 2 (n - 1) messages. The backward pass, in
    which DDP can hide it, is taken for two thirds of a step.
    """
    exchange = 0.0
    if workers > 1:
        share = 2 * (workers - 1) / workers
        exchange = share * BYTES_PER_NUMBER * parameters / bytes_per_second + 2 * (workers - 1) * latency
    return Prediction(workers, exchange, max(step, step / BACKWARD_FACTOR + exchange), step + exchange)


def rows_of(options: dict[str, Any], step: float, parameters: float) -> list[list[str]]:
    """The predictions for every number of GPUs of the options, as cells."""
    links = iter(options["gigabytes_per_s"])
    rows = []
    for gpus in options["gpus"]:
        link = float("inf") if gpus == 1 else next(links)
        found = predicted(step, parameters, gpus, bytes_per_second=1e9 * link, latency=1e-6 * options["microseconds"])
        speeds = found.images_per_second(options["images_per_gpu"])
        hours = [options["epochs"] * options["images"] / speed / 3600 for speed in speeds]
        rows.append(
            [
                str(gpus), "-" if gpus == 1 else f"{link:g}", f"{1e3 * found.exchange:.2f}",
                f"{1e3 * found.overlapped:.1f} to {1e3 * found.step:.1f}", f"{speeds[0]:,.0f} to {speeds[1]:,.0f}",
                f"{100 * step / found.step:.0f} to {100 * step / found.overlapped:.0f} %", f"{hours[1]:.1f} to {hours[0]:.1f}",
            ]
        )  # fmt: skip
    return rows


HEADS = ["GPUs", "link, GB/s", "exchange, ms", "step, ms", "images per second", "of perfect scaling", "hours"]


MEASURED = [
    "network, form: images per worker",
    "alone",
    "side by side",
    "all-reduce",
    "two workers",
    "model",
    "bytes / (4 P)",
]
"""The columns of `cells_of`, times in ms."""

AGREE = 0.1
"""Relative difference up to which a measured step is said to agree with the model."""


def step_of(gflop: float, images: int, teraflops: float) -> float:
    """Seconds of a step, forwards and backwards, of a device that sustains that many operations."""
    return BACKWARD_FACTOR * gflop * images / (1e3 * teraflops)


def cells_of(title: str, cases: dict[str, dict[str, Any]]) -> list[str]:
    """The medians of a network and form as cells of a table."""
    two, apart = cases["step of two workers"], cases["step side by side, no exchange"]
    times = (
        apart["theirs"], apart["ours"], cases["all-reduce of the gradients by itself"]["ours"], two["ours"], two["theirs"]
    )  # fmt: skip
    ratio = cases["bytes all-reduced per step"]["ratio"]
    return [title.removesuffix(" per worker"), *(shown(statistics.median(each)) for each in times), f"{ratio:.3f}"]


def verdict(title: str, cases: dict[str, dict[str, Any]]) -> str:
    """Whether the measured step of two workers agrees with the model, from the ratios of neighbouring repetitions."""
    two = cases["step of two workers"]
    ratios = sorted(ours / model for ours, model in zip(two["ours"], two["theirs"], strict=True))
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f} over repetitions"
    middle = statistics.median(ratios)
    words = "supports" if abs(middle - 1) <= AGREE else "contradicts"
    case = title.partition(":")[0]
    return (
        f"{case}: the step of two workers is {middle:.2f} times the model's ({spread}), which {words} the model "
        f"(median within {100 * AGREE:.0f} %)."
    )


def card_of(name: str, form: str, channels: int, side: int, classes: int = CLASSES) -> NetworkCard:
    pixels = torch.zeros((1, channels, side, side), dtype=torch.uint8)
    split = TensorSplit(pixels, torch.zeros(1, dtype=torch.int64))
    noise = DataSet(
        name="noise", task="classification", classes=tuple(map(str, range(classes))), train=split, test=split,
        mean=(0.5,) * channels, std=(0.25,) * channels, size=(side, side), protocol="noise", digest="noise",
    )  # fmt: skip
    policy = Policy.single("translate_x", 0.3, frames=FRAMES)
    return network_card(noise, "noise", arm_named(ARMS[form]), network=name, temporal="tsm", policy=policy)


def measure_all(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    """`measure` for every form."""
    return {form: measure({**payload, "form": form}, context) for form in ARMS}


def measure(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    """The seconds per step in every way, one number per repetition, and the bytes that DDP's hook saw in a step."""
    import torch.distributed as dist
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
    from torch.nn.parallel import DistributedDataParallel

    work = Work(**payload["work"])
    card = card_of(payload["network"], payload["form"], work.channels, work.side)
    torch.manual_seed(context.rank)
    images = torch.randint(256, (work.images, work.channels, work.side, work.side), dtype=torch.uint8)
    targets = torch.randint(CLASSES, (work.images,))
    plan, objective, seen = card.plan(), objective_for("classification", CLASSES), [0]

    def counted(state: Any, bucket: Any) -> Any:
        seen[0] += bucket.buffer().numel() * bucket.buffer().element_size()
        return allreduce_hook(state, bucket)

    counted.__annotations__ = {"bucket": dist.GradBucket}  # which DDP compares, not its name

    alone = card.build()
    network = copy.deepcopy(alone)
    together = DistributedDataParallel(network)
    together.register_comm_hook(None, counted)

    def stepping(model: torch.nn.Module, own: Any) -> Callable[[], None]:
        optimizer = build_optimizer(own, Recipe())
        model.train()

        def steps() -> None:
            for number in range(work.steps):
                video, labels = plan.training_video(images, targets, number)
                optimizer.zero_grad(set_to_none=True)
                objective.loss(forward(model, own, video, plan)[0], labels).backward()
                optimizer.step()

        return steps

    gradients = torch.zeros(sum(each.numel() for each in alone.parameters()))

    def exchange() -> None:
        for _ in range(work.steps):
            dist.all_reduce(gradients)

    ways = {"alone": stepping(alone, alone), "together": stepping(together, network), "exchange": exchange}
    ways["apart"] = ways["alone"]
    found: dict[str, list[float]] = {way: [] for way in ways}
    for repetition in range(-1, payload["repetitions"]):  # the first one warms up
        for way in ("alone", "apart", "exchange", "together"):
            dist.barrier()
            started = time.perf_counter()
            if context.rank == 0 or way != "alone":
                ways[way]()
            spent = torch.tensor([(time.perf_counter() - started) / work.steps])
            dist.all_reduce(spent, op=dist.ReduceOp.MAX)  # the slower worker's
            if repetition >= 0:
                found[way].append(float(spent))
    steps = work.steps * (payload["repetitions"] + 1)
    buffers = sum(each.numel() * each.element_size() for each in alone.buffers())
    return {**found, "bytes": seen[0] / steps, "parameters": gradients.numel(), "buffers": buffers}


def record_case(record: Record, name: str, form: str, found: dict[str, Any]) -> None:
    work = WORK[name]
    table = f"{name}, {form}: {work.images} images of {work.side} x {work.side} per worker"
    ms = {way: [1e3 * each for each in found[way]] for way in ("alone", "apart", "exchange", "together")}
    record.row(table, "step of one worker alone", ms["alone"], unit="ms")
    record.row(table, "step side by side, no exchange", ms["apart"], unit="ms", peer="alone", theirs=ms["alone"])
    record.row(table, "all-reduce of the gradients by itself", ms["exchange"], unit="ms")
    record.row(
        table, "step of two workers", ms["together"], unit="ms", peer="side by side + all-reduce",
        theirs=[a + b for a, b in zip(ms["apart"], ms["exchange"], strict=True)],
    )  # fmt: skip
    record.row(
        table, "bytes all-reduced per step", [found["bytes"] / 1e6], unit="MB", peer="4 x parameters",
        theirs=[BYTES_PER_NUMBER * found["parameters"] / 1e6], at_least=1.0, at_most=1.0,
    )  # fmt: skip
    record.row(table, "bytes of buffers that rank 0 sends", [found["buffers"] / 1e6], unit="MB")


def record_imagenet(record: Record) -> None:
    name, side = IMAGENET
    for form in ARMS:
        card = card_of(name, form, 3, side, classes=1000)
        plan = card.plan()
        cost = network_cost(card.build(), plan.frames, 3, (side, side), plan.policy)
        table = f"{name}, {form}: an image of {side} x {side}, 1000 classes"
        record.row(table, "parameters", [cost.parameters / 1e6], unit="million")
        record.row(table, "operations of a forward pass", [cost.flops / 1e9], unit="GFLOP")


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--networks", nargs="+", choices=WORK, help="default: tiny-resnet; with --full all")
    parser.add_argument("--repetitions", type=int, help="default: 2; with --full 9")
    parser.add_argument("--predict", action="store_true", help="measure nothing; print the model's prediction")
    parser.add_argument("--step_ms", type=float, help="of --predict: a step of one GPU alone")
    parser.add_argument("--parameters", type=float, help="of --predict: learned numbers of the network")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument(
        "--gigabytes_per_s", type=float, nargs="+", default=[200.0, 25.0],
        help="the slowest link between GPUs, for every number of GPUs above 1",
    )  # fmt: skip
    parser.add_argument("--microseconds", type=float, default=20.0, help="latency of a message")
    parser.add_argument("--teraflops", type=float, default=50.0, help="sustained by a GPU, where no step is measured")
    parser.add_argument("--images_per_gpu", type=int, default=64, help="per step")
    parser.add_argument("--images", type=int, default=1_281_167, help="per epoch; by default ImageNet's")
    parser.add_argument("--epochs", type=int, default=90)
    chosen = parser.parse_args(arguments)
    if len(chosen.gigabytes_per_s) != sum(gpus > 1 for gpus in chosen.gpus):
        parser.error("--gigabytes_per_s takes one number for every number of --gpus above 1")
    if chosen.predict and (chosen.step_ms is None or chosen.parameters is None):
        parser.error("--predict needs --step_ms and --parameters")
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options_of(arguments)
    if chosen.predict:
        rows = rows_of(vars(chosen), chosen.step_ms / 1e3, chosen.parameters)
        for cells in (HEADS, *rows):
            print("  ".join(f"{cell:>18}" for cell in cells))
        return
    torch.set_num_threads(1)
    record = Record("scaling", __doc__, vars(chosen))
    cluster = ClusterConfig(workers=2, gpus_per_worker=0)
    with tempfile.TemporaryDirectory() as folder, connect(cluster):
        for name in chosen.networks or (list(WORK) if chosen.full else ["tiny-resnet"]):
            repetitions = chosen.repetitions or (9 if chosen.full else 2)
            payload = {"network": name, "work": vars(WORK[name]), "repetitions": repetitions}
            found = run_workers(measure_all, payload, cluster=cluster, name=f"scaling-{name}", storage=Path(folder))
            for form in ARMS:
                record_case(record, name, form, found[form])
    record_imagenet(record)
    record.finish()


if __name__ == "__main__":
    main()
