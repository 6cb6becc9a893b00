"""How fast a policy makes videos, next to a per-frame torchvision loop and kornia's warp_affine.

    python benchmarks/policy_to_video.py [--runs 7] [--threads 1] [--quick]

Prints, for 256 images of 32 x 32 and 32 of 224 x 224 (RGB, T = 8, the chain rotate, zoom, translate_x), the median time
of each side and its ratio to ours. Every run does all sides in turn, in an order that moves on by one, so that a slow
moment of the machine hits all alike. torchvision is shown twice: one affine call a motion, as a chain of transforms
does, and one call with all three motions in it, which this chain happens to allow. All sides give a contiguous float
video (B, T, C, H, W), checked against each other first. "floor" is the least any method can do: write the video once
from the images (on a GPU: the share of that time that ours reaches).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from peak_memory import state_peak
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from fieldshift.motions import Policy

FRAMES = 8
ANGLE, ZOOM, SHIFT = 20.0, 1.3, 0.2
SIZES = ((256, 32), (32, 224))
BILINEAR = InterpolationMode.BILINEAR
Side = Callable[[], Tensor]


def torchvision_call(images: Tensor, angle: float = 0.0, zoom: float = 1.0, shift: float = 0.0) -> Tensor:
    return functional.affine(images, angle, [shift, 0.0], zoom, [0.0, 0.0], interpolation=BILINEAR)


def sides_of(images: Tensor, policy: Policy) -> dict[str, Side]:
    """Each way from images (B, C, H, W) to the video (B, T, C, H, W)."""
    import kornia

    batch, _, height, width = images.shape
    s = policy.distances.tolist()

    def chain_of_calls() -> Tensor:
        frames = []
        for d in s:
            frame = torchvision_call(images, angle=ANGLE * d)
            frame = torchvision_call(frame, zoom=ZOOM**d)
            frames.append(torchvision_call(frame, shift=SHIFT * d * width))
        return torch.stack(frames, dim=1)

    def one_call() -> Tensor:
        frames = [torchvision_call(images, ANGLE * d, ZOOM**d, SHIFT * d * width) for d in s]
        return torch.stack(frames, dim=1)

    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    about_the_corner = policy.matrices((height, width)).clone()
    about_the_corner[:, :, 2] += centre - about_the_corner[:, :, :2] @ centre
    about_the_corner = about_the_corner.to(images.device)

    def kornia_warp() -> Tensor:
        frames = [
            kornia.geometry.transform.warp_affine(
                images, matrix.expand(batch, -1, -1), (height, width), align_corners=True
            )
            for matrix in about_the_corner
        ]
        return torch.stack(frames, dim=1)

    return {
        "fieldshift": lambda: policy.video(images),
        "torchvision, 3 calls a frame": chain_of_calls,
        "torchvision, 1 call a frame": one_call,
        "kornia warp_affine": kornia_warp,
        "floor: write the video": lambda: images[:, None].repeat(1, FRAMES, 1, 1, 1),
    }


def timed(sides: dict[str, Side], runs: int, device: torch.device) -> dict[str, list[float]]:
    """Milliseconds of every run of every side."""
    names = list(sides)
    times: dict[str, list[float]] = {name: [] for name in names}
    for run in range(-1, runs):  # the first round warms up
        for place in range(len(names)):
            name = names[(place + run) % len(names)]
            synchronise(device)
            start = time.perf_counter()
            sides[name]()
            synchronise(device)
            if run >= 0:
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def check(sides: dict[str, Side]) -> None:
    """All single-sampling sides give the same video; torchvision and kornia place points in float32."""
    ours = sides["fieldshift"]()
    for name in ("torchvision, 1 call a frame", "kornia warp_affine"):
        difference = (sides[name]() - ours).abs().max().item()
        assert difference < 1e-3, f"{name} differs from ours by {difference:.2g}"


def compare(batch: int, side: int, runs: int, device: torch.device) -> None:
    """Print one table."""
    images = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    policy = Policy.chain([("rotate", ANGLE), ("zoom", ZOOM), ("translate_x", SHIFT)], frames=FRAMES)
    start = time.perf_counter()
    policy.video(images)
    synchronise(device)
    first = (time.perf_counter() - start) * 1e3
    sides = sides_of(images, policy)
    check(sides)
    times = timed(sides, runs, device)
    ours = statistics.median(times["fieldshift"])
    print(f"\n{batch} images of {side} x {side}, T = {FRAMES}, {device} (first call {first:.0f} ms)")
    print(f"  {'':30s} {'median':>9s} {'fastest':>9s} {'ratio to ours':>14s} {'of fastest':>11s}")
    for name, taken in times.items():
        median, fastest = statistics.median(taken), min(taken)
        ratio, of_fastest = median / ours, fastest / min(times["fieldshift"])
        print(f"  {name:30s} {median:6.1f} ms {fastest:6.1f} ms {ratio:13.2f}x {of_fastest:10.2f}x")
    if device.type == "cuda":
        floor = statistics.median(times["floor: write the video"])
        print(f"  ours reaches {floor / ours:.0%} of the memory-bandwidth floor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="timed rounds")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of every side")
    parser.add_argument("--quick", action="store_true", help="few images and rounds, to see that it works")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    print(f"torch {torch.__version__}, {arguments.threads} CPU threads, {arguments.runs} rounds")
    for device in devices:
        for batch, side in SIZES:
            compare(batch // 16 if arguments.quick else batch, side, 2 if arguments.quick else arguments.runs, device)
    state_peak()


if __name__ == "__main__":
    main()
