"""What the folded form costs against the plain 2D network: a training step, its memory and FLOPs, a prediction, a search step.

    python benchmarks/folded_shift.py

tiny-resnet at 40 px (batch 64) and ResNet-18 at 224 px (batch 4, with --full 8), channels-last, one thread. The steps of all
variants take turns; a ratio is the median of the ratios to the plain step of the same turn. Memory is the peak of
a process of its own above what it holds before its first step. A network that copies each map where the folded one moves
channels of it shows the least that any such module costs, since autograd needs the map as it was. Aims: at most 1.08 times a
plain step for translations, 1.15 for any motion, 1.10 of the memory; a search step of affine-one at most 2.3 plain steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import torch
from record import LARGE_APART, Record, benchmark_parser, own_peak

from fieldshift.folding import motions_of, still
from fieldshift.motions import Policy
from fieldshift.networks import VideoNetwork, flops_per_image, video_network
from fieldshift.networks.folded import FoldedTSM
from fieldshift.search import SearchConfig, load_space
from fieldshift.search.bilevel import outer_gradient
from fieldshift.search.supernet import supernet_of
from fieldshift.training.step import use_channels_last
from fieldshift.wording import counted

CASES = {"tiny-resnet": (40, 64, 4, 6), "resnet18": (224, 4, 1, 3)}  # side, batch, steps per turn, turns
FULL_TURNS, FULL_BATCHES = 8, {"tiny-resnet": 64, "resnet18": 8}  # times as many turns with --full
CLASSES, CHANNELS = 10, 3
MEMORY_BATCHES = {
    "tiny-resnet": 256,
    "resnet18": 16,
}  # images in the step whose memory is measured, above that of imports
TRANSLATION_AIM, ANY_AIM, SEARCH_AIM, MEMORY_AIM = 1.08, 1.15, 2.3, 1.10
MOTIONS: dict[str, Policy | None] = {
    "plain": None,
    "plain again": None,
    "identity": Policy.replicate(3),
    "translate_x, whole cells": Policy.single("translate_x", 0.2, frames=3),
    "translate_x, part cells": Policy.single("translate_x", 0.45, frames=3),
    "translate_x and translate_y": Policy.chain([("translate_x", 0.33), ("translate_y", 0.21)], frames=3),
    "zoom": Policy.single("zoom", 1.4, frames=3),
    "rotate": Policy.single("rotate", 30.0, frames=3),
}
COPY, SEARCH = "a copy of every map, nothing moved", "search step, affine-one"
PREDICTED = ("plain", "translate_x, part cells", "rotate")
Step = Callable[[], None]


class Copied(torch.nn.Module):
    """The least that a module does which moves some channels and leaves its input as it is."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.clone()


def network_of(name: str, policy: Policy | None) -> VideoNetwork:
    torch.manual_seed(0)
    motions = None if policy is None else motions_of(policy)
    temporal = "none" if policy is None else "tsm"
    network = video_network(
        name, temporal=temporal, frames=1, num_classes=CLASSES, in_channels=CHANNELS, motions=motions
    )
    use_channels_last(network, wanted=True)
    return network


def copying(network: VideoNetwork) -> VideoNetwork:
    """The network with a copy of the map in place of every movement."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FoldedTSM):
                setattr(parent, name, Copied())
    return network


def training_step(network: VideoNetwork, side: int, batch: int) -> Step:
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    video, targets = torch.rand(batch, 1, CHANNELS, side, side), torch.randint(CLASSES, (batch,))

    def step() -> None:
        loss = torch.nn.functional.cross_entropy(network.fuse(network(video)), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def prediction(network: VideoNetwork, side: int, batch: int) -> Step:
    video = torch.rand(batch, 1, CHANNELS, side, side)

    @torch.inference_mode()
    def step() -> None:
        network.fuse(network(video))

    return step


def search_step(name: str, side: int, batch: int) -> Step:
    """A step of alpha and one of the network, as the search does them, in the space affine-one."""
    space, config = load_space("affine-one"), SearchConfig()
    torch.manual_seed(0)
    network = video_network(
        name, temporal="tsm", frames=1, num_classes=CLASSES, in_channels=CHANNELS, motions=still(space.groups)
    )
    use_channels_last(network, wanted=True)
    supernet = supernet_of(network, space, 3, 0, lambda video: video)
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, config.learning_rate)
    alpha_optimizer = torch.optim.Adam(supernet.cell.outer_parameters, config.alpha_learning_rate)
    images, targets = torch.rand(batch, CHANNELS, side, side), torch.randint(CLASSES, (batch,))

    def loss_at(_parameters: object) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(supernet(images, supernet.cell.weights()), targets)

    def step() -> None:
        gradients, _ = outer_gradient(loss_at, loss_at, parameters, supernet.cell.outer_parameters)
        supernet.cell.alpha.grad = gradients[0]
        alpha_optimizer.step()
        loss = torch.nn.functional.cross_entropy(supernet(images, None, learns_cell=False), targets)
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()

    return step


def taken_in_turns(variants: dict[str, Step], steps: int, turns: int) -> dict[str, list[float]]:
    """Milliseconds per step of every variant in every turn, after one step that is not timed."""
    milliseconds: dict[str, list[float]] = {kind: [] for kind in variants}
    for step in variants.values():
        step()
    for _ in range(turns):
        for kind, step in variants.items():
            begin = time.perf_counter()
            for _ in range(steps):
                step()
            milliseconds[kind].append(1e3 * (time.perf_counter() - begin) / steps)
    return milliseconds


def compare(name: str, record: Record, *, full: bool) -> None:
    side, batch, steps, turns = CASES[name]
    if full:
        batch, turns = FULL_BATCHES[name], turns * FULL_TURNS
    plain = flops_per_image(network_of(name, None), (side, side))
    networks = {kind: network_of(name, policy) for kind, policy in MOTIONS.items()}
    networks[COPY] = copying(network_of(name, MOTIONS["identity"]))
    variants = {kind: training_step(network, side, batch) for kind, network in networks.items()}
    variants[SEARCH] = search_step(name, side, batch)
    table = f"{name}, {side} x {side}, batch {batch}, {counted(steps, 'step')} per turn"
    milliseconds = taken_in_turns(variants, steps, turns)
    for kind, taken in milliseconds.items():
        if kind == "plain":
            continue
        aim = SEARCH_AIM if kind == SEARCH else TRANSLATION_AIM if kind.startswith("translate") else ANY_AIM
        record.row(
            table, kind, taken, unit="ms", peer="plain step", theirs=milliseconds["plain"],
            at_most=None if kind in ("plain again", COPY) else aim,
        )  # fmt: skip
    predictions = {kind: prediction(networks[kind].eval(), side, batch) for kind in PREDICTED}
    milliseconds = taken_in_turns(predictions, steps, turns)
    for kind in PREDICTED[1:]:
        record.row(
            table, f"prediction, {kind}", milliseconds[kind], unit="ms", peer="plain prediction",
            theirs=milliseconds["plain"],
        )  # fmt: skip
    for kind, policy in MOTIONS.items():
        if policy is not None:
            operations = flops_per_image(network_of(name, policy), (side, side))
            record.row(
                table, f"{kind}: operations", [operations / 1e6], unit="MFLOP", peer="plain", theirs=[plain / 1e6]
            )


def memory(name: str, record: Record, *, full: bool) -> None:
    """Peaks of processes of their own: the plain network's, the folded one's; `full`: that of copies, which no form avoids."""
    peaks = {}
    for kind in ("plain", "rotate", *([COPY] if full else [])):
        command = [sys.executable, __file__, "--memory", name, kind]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **LARGE_APART})
        peaks[kind] = json.loads(done.stdout) / 2**20
    record.row(
        "memory of a step", f"{name}, rotate", [peaks["rotate"]], unit="MiB", peer="plain", theirs=[peaks["plain"]],
        at_most=MEMORY_AIM,
    )  # fmt: skip
    if full:
        record.row(
            "memory of a step", f"{name}, {COPY}", [peaks[COPY]], unit="MiB", peer="plain", theirs=[peaks["plain"]]
        )


def peak_of(name: str, kind: str) -> int:
    network = copying(network_of(name, MOTIONS["identity"])) if kind == COPY else network_of(name, MOTIONS[kind])
    step = training_step(network, CASES[name][0], MEMORY_BATCHES[name])
    start = psutil.Process().memory_info().rss
    for _ in range(2):  # the second one has the state of the optimizer
        step()
    return own_peak() - start


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--memory", nargs=2, metavar=("NETWORK", "KIND"), help="measure one peak in this process")
    parser.add_argument("--networks", nargs="+", default=list(CASES), choices=list(CASES))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.memory:
        print(peak_of(*chosen.memory))
        return
    record = Record("folded_shift", __doc__, vars(chosen))
    for name in chosen.networks:
        memory(name, record, full=chosen.full)
        compare(name, record, full=chosen.full)
    record.finish()


if __name__ == "__main__":
    main()
