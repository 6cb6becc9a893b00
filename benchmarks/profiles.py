"""Where do a training epoch, a search and an evaluation spend their time?

    python benchmarks/profiles.py [--full]

torch.profiler's own time of every operator, as a share of what all operators of the loop take together. The real loops run:
a folded tiny-resnet on the built-in digits and, with --full, a folded ResNet-18 on noise of 64 x 64 pixels; one thread, and
the GPU's kernels where there is one. The part of the wall time in no operator is Python's: the loop itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from record import Record, benchmark_parser
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from whole_search import noise

from fieldshift.data import DataSet, load_dataset
from fieldshift.motions import Policy
from fieldshift.networks import VideoNetwork
from fieldshift.search import SearchConfig, load_space, search
from fieldshift.training import (
    NetworkCard,
    Recipe,
    arm_named,
    evaluate_network,
    network_card,
    objective_for,
    train_network,
)

SHOWN, BATCH = 10, 64
IMAGES, FULL_IMAGES = 512, {"tiny-resnet": 1024, "resnet18": 256}
ON_GPU = torch.cuda.is_available()


def profiled(record: Record, table: str, work: Callable[[], object]) -> None:
    """Records the operators that take most of `work`, which has run once before, so that nothing is set up in it."""
    work()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if ON_GPU else [])]
    with profile(activities=activities) as profiler:
        started = time.perf_counter()
        work()
        if ON_GPU:
            torch.cuda.synchronize()
        wall = 1e3 * (time.perf_counter() - started)
    own = {  # on a GPU of kernels alone: operators and annotations repeat the time of theirs
        each.key: (each.self_device_time_total if ON_GPU else each.self_cpu_time_total) / 1e3
        for each in profiler.key_averages()
        if not ON_GPU or (each.device_type == DeviceType.CUDA and not each.is_user_annotation)
    }
    total = sum(own.values())
    record.row(table, "all operators", [total], unit="ms", peer="wall time under the profiler", theirs=[wall])
    for name in sorted(own, key=lambda name: -own[name])[:SHOWN]:
        record.row(table, name, [own[name]], unit="ms", peer="all operators", theirs=[total])


def profile_loops(record: Record, name: str, dataset: DataSet, device: str) -> None:
    policy = Policy.single("translate_x", 0.45, frames=3)
    card = network_card(dataset, dataset.name, arm_named("das-folded"), network=name, temporal="tsm", policy=policy)
    objective, plan = objective_for("classification", 10), card.plan()
    where = f"folded {name}, {len(dataset.train)} images of {dataset.size[0]} x {dataset.size[1]}, {device}"

    def train() -> VideoNetwork:
        torch.manual_seed(0)
        recipe = replace(Recipe(), epochs=1, batch=BATCH)
        network = card.build()
        train_network(network, dataset.train, plan=plan, recipe=recipe, objective=objective, seed=0, device=device)
        return network

    network = train()
    profiled(record, f"a training epoch: {where}", train)
    profiled(record, f"a search of one pass: {where}", lambda: searched(card, dataset, name, device))
    profiled(
        record, f"an evaluation: {where}",
        lambda: evaluate_network(network, dataset.train, plan=plan, objective=objective, device=device),
    )  # fmt: skip


def searched(card: NetworkCard, dataset: DataSet, name: str, device: str) -> None:
    space = load_space("affine-one")
    still = network_card(
        dataset, dataset.name, arm_named("das-folded"), network=name, temporal="tsm", policy=Policy.replicate(3)
    )
    torch.manual_seed(0)
    search(
        still.build(), dataset, space, SearchConfig(frames=3, epochs=1, batch=BATCH), normalise=card.plan().normalise,
        objective=objective_for("classification", 10), device=device,
    )  # fmt: skip


def main() -> None:
    chosen = benchmark_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    record = Record("profiles", __doc__, vars(chosen))
    device = "cuda" if ON_GPU else "cpu"
    images = FULL_IMAGES["tiny-resnet"] if chosen.full else IMAGES
    profile_loops(record, "tiny-resnet", load_dataset("digit-pairs-left", train_limit=images, test_limit=8), device)
    if chosen.full or ON_GPU:
        profile_loops(record, "resnet18", noise(FULL_IMAGES["resnet18"], side=64), device)
    record.finish()


if __name__ == "__main__":
    main()
