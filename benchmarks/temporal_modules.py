"""Forward and backward of every temporal module against its direct transcription and against a tensor copy, in one run.

    python benchmarks/temporal_modules.py                      # 8 frames, 256 channels, 14x14 (32 images) and 56x56
    python benchmarks/temporal_modules.py --images 4 --sizes 14  # a small machine

Two ratios: module / direct transcription (below 1: the module is faster) and module / copy (a copy is `clone` once forward
and once backward: what touching every element once costs). The aims: TSM within 1.3 copies; GSF 1.5 times as fast as its
transcription on a GPU, no slower on the CPU. On the CPU time is the process's own, so other programs disturb it less; on a
GPU it is measured by events. The rows are interleaved. On the CPU large maps are of fewer images, so that no map has more
than 2^24 elements: with 32 images of 56x56, 822 MB a map, all rows together took 23 GiB. `--step resnet50` also times a
whole training step with and without GSF (aim on a GPU: at most 15 % more).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

import torch
from record import Record, benchmark_parser
from torch import Tensor, nn

from fieldshift.networks import GSF, GSM, TEMPORAL, TSM, VideoNetwork, video_network

MOST_ELEMENTS = 2**24  # of a map on the CPU
COPIES = 1.3  # what TSM may cost, in copies of its input
# glibc's allocator keeps what is freed: whether a row's memory is fresh, and has to be mapped, is chance.
KEPT_PAGES = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(10**11)}
OVERHEAD = 0.15  # what GSF may add to a training step on a GPU


class DirectTSM(nn.Module):
    """TSM by writing slices into zeros, derivatives left to autograd."""

    def __init__(self, module: TSM) -> None:
        super().__init__()
        self.frames, self.fold, self.both = module.frames, module.fold, module.direction == "both"

    def forward(self, features: Tensor) -> Tensor:
        video = features.unflatten(0, (-1, self.frames))
        shifted = torch.zeros_like(video)
        ahead = self.fold if self.both else 0
        behind = ahead + self.fold
        shifted[:, :-1, :ahead] = video[:, 1:, :ahead]
        shifted[:, 1:, ahead:behind] = video[:, :-1, ahead:behind]
        shifted[:, :, behind:] = video[:, :, behind:]
        return shifted.flatten(0, 1)


class DirectGSM(nn.Module):
    """GSM and GSF as their equations stand, vectorised: Conv3d, BatchNorm3d and one operator for each sign."""

    def __init__(self, module: GSM) -> None:
        super().__init__()
        self.frames, self.width = module.frames, module.width
        self.norm = nn.BatchNorm3d(module.width)
        self.gate = nn.Conv3d(module.width, 2, 3, padding=1, groups=2)
        self.weigh = nn.ModuleList(nn.Conv2d(2, 1, 3, padding=1) for _ in range(2)) if isinstance(module, GSF) else None

    def forward(self, features: Tensor) -> Tensor:
        video = features.unflatten(0, (-1, self.frames)).transpose(1, 2).contiguous()  # (B, C, T, H, W)
        gated, half = video[:, : self.width], self.width // 2
        gate = torch.tanh(self.gate(torch.relu(self.norm(gated))))
        parts = []
        for index, group in enumerate(gated.split(half, 1)):
            y = gate[:, index : index + 1] * group
            r = group - y
            edge = torch.zeros_like(y[:, :, :1])
            y = torch.cat([y[:, :, 1:], edge], 2) if index == 0 else torch.cat([edge, y[:, :, :-1]], 2)
            if self.weigh is None:
                mixed = y + r
            else:
                means = torch.stack([y.mean((3, 4)), r.mean((3, 4))], 1)
                weight = torch.sigmoid(self.weigh[index](means)).squeeze(1)[..., None, None]
                mixed = weight * y + (1 - weight) * r
            batch, _, frames, height, columns = mixed.shape
            mixed = mixed.view(batch, 2, half // 2, frames, height, columns).transpose(1, 2).flatten(1, 2)
            parts.append(mixed)
        return torch.cat([*parts, video[:, self.width :]], 1).transpose(1, 2).contiguous().flatten(0, 1)


class DirectConv3d(nn.Module):
    """torch's Conv3d with a 3x1x1 kernel."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.frames, self.conv = frames, nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0), bias=False)

    def forward(self, features: Tensor) -> Tensor:
        video = features.unflatten(0, (-1, self.frames)).transpose(1, 2)
        convolved: Tensor = self.conv(video)
        return convolved.transpose(1, 2).flatten(0, 1)


class Copy(nn.Module):
    """Every element read once and written once, forward and backward."""

    def forward(self, features: Tensor) -> Tensor:
        copied: Tensor = _Copy.apply(features)
        return copied


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: object, features: Tensor) -> Tensor:
        return features.clone()

    @staticmethod
    def backward(_ctx: object, gradient: Tensor) -> Tensor:
        return gradient.clone()


def direct(module: nn.Module, channels: int, frames: int) -> nn.Module:
    """The direct transcription of a module of the registry."""
    if isinstance(module, TSM):
        return DirectTSM(module)
    return DirectGSM(module) if isinstance(module, GSM) else DirectConv3d(channels, frames)


def seconds(step: Callable[[], None], device: torch.device) -> float:
    """The time of one step: of this process on the CPU, between events on a GPU."""
    if device.type == "cpu":
        start = time.process_time()
        step()
        return time.process_time() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def stepper(module: nn.Module, features: Tensor, gradient: Tensor) -> Callable[[], None]:
    """Forward and backward, to the input and to the parameters."""
    inputs = [features, *module.parameters()]

    def step() -> None:
        torch.autograd.grad(module(features), inputs, gradient)

    return step


def measure(size: int, options: argparse.Namespace, device: torch.device, record: Record) -> None:
    """Measures all modules at one size."""
    images = options.images
    if device.type == "cpu":
        images = max(1, min(images, MOST_ELEMENTS // (options.frames * options.channels * size * size)))
    shape = (images * options.frames, options.channels, size, size)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    features = torch.randn(shape, device=device).to(memory_format=layout).requires_grad_()
    gradient = torch.randn(shape, device=device).to(memory_format=layout)
    steps = {"copy": stepper(Copy(), features, gradient)}
    for name, kind in TEMPORAL.items():
        if name == "none":
            continue
        module = kind.build(options.channels, frames=options.frames).to(device).to(memory_format=layout)
        steps[name] = stepper(module, features, gradient)
        transcription = direct(module, options.channels, options.frames).to(device)
        steps[f"{name} direct"] = stepper(transcription, features, gradient)
    taken = by_turns(steps, options.repeats, device)
    table = f"maps {' x '.join(map(str, shape))}, {device}, {'channels_last' if options.channels_last else 'NCHW'}"
    for name in (name for name in TEMPORAL if name != "none"):
        mine, theirs = taken[name], taken[f"{name} direct"]
        wanted = (1 / 1.5 if device.type == "cuda" else 1.0) if name == "gsf" else None
        record.row(table, name, mine, unit="ms", peer="direct transcription", theirs=theirs, at_most=wanted)
        record.row(
            table, name, mine, unit="ms", peer="copy", theirs=taken["copy"], at_most=COPIES if name == "tsm" else None
        )


def by_turns(steps: dict[str, Callable[[], None]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Milliseconds of every repeat of every step; a first turn that warms up is left out."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats + 1):
        for name, step in steps.items():
            taken[name].append(1e3 * seconds(step, device))
    return {name: times[1:] for name, times in taken.items()}


def measure_step(name: str, options: argparse.Namespace, device: torch.device, record: Record) -> None:
    """A training step of a whole network with GSF and with none, by turns."""
    steps: dict[str, Callable[[], None]] = {}
    images = torch.randn(options.step_images, options.frames, 3, options.step_size, options.step_size, device=device)
    for temporal in ("none", "gsf"):
        network = video_network(name, temporal=temporal, frames=options.frames, num_classes=10).to(device)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

        def step(network: VideoNetwork = network, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad(set_to_none=True)
            network.fuse(network(images)).square().mean().backward()
            optimizer.step()

        steps[temporal] = step
    taken = by_turns(steps, options.repeats, device)
    record.row(
        f"{name}, {options.step_images} images of {options.frames} frames at {options.step_size} px, {device}",
        "training step with gsf", taken["gsf"], unit="ms", peer="none", theirs=taken["none"],
        at_most=1 + OVERHEAD if device.type == "cuda" else None,
    )  # fmt: skip


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--frames", type=int, default=8, help="frames T")
    parser.add_argument("--images", type=int, default=32, help="images, each of T frames")
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--sizes", type=int, nargs="+", default=[14, 56], help="sides of the maps in pixels")
    parser.add_argument("--repeats", type=int, help="by default 2, with --full 9")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--channels-last", action="store_true", help="memory format of the maps")
    parser.add_argument("--step", metavar="NETWORK", help="also time a training step of this network, such as resnet50")
    parser.add_argument("--step-images", type=int, default=2, help="images in that step")
    parser.add_argument("--step-size", type=int, default=224, help="their side in pixels")
    options = parser.parse_args()
    options.repeats = options.repeats or (9 if options.full else 2)
    if options.device == "cpu" and not KEPT_PAGES.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEPT_PAGES})
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    record = Record("temporal_modules", __doc__, vars(options))
    for size in options.sizes:
        measure(size, options, device, record)
    if options.step or device.type == "cuda":
        measure_step(options.step or "resnet50", options, device, record)
    record.finish()


if __name__ == "__main__":
    main()
