"""What the folded form costs against the plain 2D network: a training step, its memory and FLOPs, a prediction, a search step.

    python benchmarks/folded_shift.py

tiny-resnet at 40 px (batch 64) and ResNet-18 at 224 px (batch 4, with --full 8), channels-last, one thread; on a GPU
batches of 512 and 64, and ResNet-18 at 32 px (batch 512), in float32 and in bf16. The steps of all variants take turns; a
ratio is the median of the ratios to the plain step of the same turn. Memory is the peak of a process of its own
above what it holds before its first step. A network that copies each map where the folded one moves channels of it
shows the least that any such module costs, since autograd needs the map as it was. Aims: at most 1.08 times a
plain step for translations, 1.15 for any motion, 1.10 of the memory; a search step of affine-one at most 2.3 plain steps.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import psutil
import torch
from record import Record, benchmark_parser, measured_apart, own_peak
from torch import Tensor
from torch.func import functional_call

from fieldshift.folding import motions_of, still
from fieldshift.motions import Policy
from fieldshift.networks import VideoNetwork, flops_per_image, video_network
from fieldshift.networks.folded import FoldedTSM
from fieldshift.search import SearchConfig, load_space
from fieldshift.search.bilevel import outer_gradient
from fieldshift.search.supernet import supernet_of
from fieldshift.training.step import order_channels_last
from fieldshift.wording import counted


class Case(NamedTuple):
    """A network and what its steps are measured on."""

    network: str
    side: int
    batch: int
    steps: int
    """Steps per turn."""
    turns: int
    memory_batch: int
    """Images in the step whose memory is measured, above that of imports."""
    precision: str = "float32"

    @property
    def title(self) -> str:
        bf16 = ", bf16" if self.precision == "bf16" else ""
        return f"{self.network}, {self.side} x {self.side}, batch {self.batch}{bf16}, {counted(self.steps, 'step')} per turn"


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FULL_TURNS, FULL_BATCHES = 8, {"tiny-resnet": 64, "resnet18": 8}  # times as many turns with --full
ON_CPU = [Case("tiny-resnet", 40, 64, 4, 6, 256), Case("resnet18", 224, 2, 1, 3, 16)]
ON_GPU = [
    Case(name, side, batch, 10, 6, batch, precision)
    for name, side, batch in (("tiny-resnet", 40, 512), ("resnet18", 32, 512), ("resnet18", 224, 64))
    for precision in ("float32", "bf16")
]
CASES = ON_CPU if DEVICE.type == "cpu" else ON_GPU
CLASSES, CHANNELS = 10, 3
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
    order_channels_last(network)
    return network.to(DEVICE)


def copying(network: VideoNetwork) -> VideoNetwork:
    """The network with a copy of the map in place of every movement."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FoldedTSM):
                setattr(parent, name, Copied())
    return network


def images_of(case: Case) -> tuple[Tensor, Tensor]:
    """Random images and targets on the device."""
    shape = (case.batch, CHANNELS, case.side, case.side)
    return torch.rand(shape, device=DEVICE), torch.randint(CLASSES, (case.batch,), device=DEVICE)


def autocast(case: Case) -> torch.autocast:
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=case.precision == "bf16")


def training_step(network: VideoNetwork, case: Case) -> Step:
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    images, targets = images_of(case)
    video = images[:, None]

    def step() -> None:
        with autocast(case):
            loss = torch.nn.functional.cross_entropy(network.fuse(network(video)), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def prediction(network: VideoNetwork, case: Case) -> Step:
    video = images_of(case)[0][:, None]

    @torch.inference_mode()
    def step() -> None:
        with autocast(case):
            network.fuse(network(video))

    return step


def search_step(case: Case) -> Step:
    """A step of alpha and one of the network, as the search does them, in the space affine-one."""
    space, config = load_space("affine-one"), SearchConfig()
    torch.manual_seed(0)
    network = video_network(
        case.network, temporal="tsm", frames=1, num_classes=CLASSES, in_channels=CHANNELS, motions=still(space.groups)
    )
    order_channels_last(network)
    supernet = supernet_of(network, space, 3, 0, lambda video: video).to(DEVICE)
    names = [f"network.{name}" for name, _ in network.named_parameters()]
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, config.learning_rate)
    alpha_optimizer = torch.optim.Adam(supernet.cell.outer_parameters, config.alpha_learning_rate)
    images, targets = images_of(case)

    def loss_at(given: Sequence[Tensor]) -> Tensor:
        weights = dict(zip(names, given, strict=True))
        return torch.nn.functional.cross_entropy(
            functional_call(supernet, weights, (images, supernet.cell.weights())), targets
        )

    def step() -> None:
        gradients, _ = outer_gradient(
            loss_at, loss_at, [each.detach() for each in parameters], supernet.cell.outer_parameters
        )
        supernet.cell.alpha.grad = gradients[0]
        alpha_optimizer.step()
        loss = torch.nn.functional.cross_entropy(supernet(images, None, learns_cell=False), targets)
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()

    return step


def wait() -> None:
    """Waits until a GPU is idle."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def taken_in_turns(variants: dict[str, Step], steps: int, turns: int) -> dict[str, list[float]]:
    """Milliseconds per step of every variant in every turn, after one step that is not timed."""
    milliseconds: dict[str, list[float]] = {kind: [] for kind in variants}
    for step in variants.values():
        step()
    for _ in range(turns):
        for kind, step in variants.items():
            wait()
            begin = time.perf_counter()
            for _ in range(steps):
                step()
            wait()
            milliseconds[kind].append(1e3 * (time.perf_counter() - begin) / steps)
    return milliseconds


def compare(case: Case, record: Record, *, full: bool) -> None:
    name, size = case.network, (case.side, case.side)
    if full:
        batch = FULL_BATCHES[name] if DEVICE.type == "cpu" else case.batch
        case = case._replace(batch=batch, turns=case.turns * FULL_TURNS)
    networks = {kind: network_of(name, policy) for kind, policy in MOTIONS.items()}
    networks[COPY] = copying(network_of(name, MOTIONS["identity"]))
    variants = {kind: training_step(network, case) for kind, network in networks.items()}
    if case.precision == "float32":  # the default of a search
        variants[SEARCH] = search_step(case)
    table = case.title
    milliseconds = taken_in_turns(variants, case.steps, case.turns)
    for kind, taken in milliseconds.items():
        if kind == "plain":
            continue
        aim = SEARCH_AIM if kind == SEARCH else TRANSLATION_AIM if kind.startswith("translate") else ANY_AIM
        record.row(
            table, kind, taken, unit="ms", peer="plain step", theirs=milliseconds["plain"],
            at_most=None if kind in ("plain again", COPY) else aim,
        )  # fmt: skip
    predictions = {kind: prediction(networks[kind].eval(), case) for kind in PREDICTED}
    milliseconds = taken_in_turns(predictions, case.steps, case.turns)
    for kind in PREDICTED[1:]:
        record.row(
            table, f"prediction, {kind}", milliseconds[kind], unit="ms", peer="plain prediction",
            theirs=milliseconds["plain"],
        )  # fmt: skip
    if case.precision != "float32":
        return
    plain = flops_per_image(network_of(name, None), size)
    for kind, policy in MOTIONS.items():
        if policy is not None:
            operations = flops_per_image(network_of(name, policy), size)
            record.row(
                table, f"{kind}: operations", [operations / 1e6], unit="MFLOP", peer="plain", theirs=[plain / 1e6]
            )


def memory(number: int, record: Record, *, full: bool) -> None:
    """Peaks of processes of their own: the plain network's, the folded one's; `full`: that of copies, which no form avoids."""
    case, kinds = CASES[number], ("plain", "rotate", *([COPY] if full else []))
    found = measured_apart([[sys.executable, __file__, "--memory", str(number), kind] for kind in kinds])
    peaks = {kind: bytes_ / 2**20 for kind, bytes_ in zip(kinds, found, strict=True)}
    table = "memory of a step"
    if DEVICE.type == "cuda":
        table += f", {case.side} x {case.side}, {case.precision}"
    record.row(
        table, f"{case.network}, rotate", [peaks["rotate"]], unit="MiB", peer="plain", theirs=[peaks["plain"]],
        at_most=MEMORY_AIM,
    )  # fmt: skip
    if full:
        record.row(table, f"{case.network}, {COPY}", [peaks[COPY]], unit="MiB", peer="plain", theirs=[peaks["plain"]])


def peak_of(case: Case, kind: str) -> int:
    name = case.network
    network = copying(network_of(name, MOTIONS["identity"])) if kind == COPY else network_of(name, MOTIONS[kind])
    step = training_step(network, case._replace(batch=case.memory_batch))
    start = held()
    for _ in range(2):  # the second one has the state of the optimizer
        step()
    return (torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else own_peak()) - start


def held() -> int:
    """The memory that this process holds now, in bytes: on a GPU that of its tensors."""
    return torch.cuda.memory_allocated() if DEVICE.type == "cuda" else psutil.Process().memory_info().rss


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--memory", nargs=2, metavar=("CASE", "KIND"), help="measure one peak in this process")
    networks = sorted({case.network for case in CASES})
    parser.add_argument("--networks", nargs="+", default=networks, choices=networks)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.memory:
        print(peak_of(CASES[int(chosen.memory[0])], chosen.memory[1]))
        return
    record = Record("folded_shift", __doc__, vars(chosen))
    for number, case in enumerate(CASES):
        if case.network in chosen.networks:
            memory(number, record, full=chosen.full)
            compare(case, record, full=chosen.full)
    record.finish()


if __name__ == "__main__":
    main()
