"""How fast videos are made from a policy, next to a per-frame torchvision loop and kornia's warp_affine.

    python benchmarks/policy_to_video.py [--full] [--threads 1]

Prints, for 256 images of 32 x 32 and 32 of 224 x 224 (RGB, T = 8, the chain rotate, zoom, translate_x), the median time
of each side and its ratio to ours. Every run does all sides in turn, in an order that moves on by one, so that a slow
moment of the machine hits all alike. torchvision is shown twice: one affine call a motion, as a chain of transforms
does, and one call with all three motions in it, which this chain happens to allow. All sides give a contiguous float
video (B, T, C, H, W), checked against each other first. "floor" is the least any method can do: write the video once
from the images (on a GPU: the share of that time that ours reaches).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from record import Record, benchmark_parser
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


def compare(record: Record, batch: int, side: int, runs: int, device: torch.device) -> None:
    """Records one table."""
    images = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    policy = Policy.chain([("rotate", ANGLE), ("zoom", ZOOM), ("translate_x", SHIFT)], frames=FRAMES)
    table = f"{batch} images of {side} x {side}, T = {FRAMES}, {device}"
    start = time.perf_counter()
    policy.video(images)
    synchronise(device)
    record.row(table, "first call", [(time.perf_counter() - start) * 1e3], unit="ms")
    sides = sides_of(images, policy)
    check(sides)
    times = timed(sides, runs, device)
    ours = times.pop("fieldshift")
    for name, taken in times.items():
        aim = None if name.startswith("floor") else 1.0
        record.row(table, "video of a policy", ours, unit="ms", peer=name, theirs=taken, at_most=aim)


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of every side")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    record = Record("policy_to_video", __doc__, vars(chosen))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for batch, side in SIZES:
        compare(record, batch, side, 21 if chosen.full or device.type == "cuda" else 5, device)
    record.finish()


if __name__ == "__main__":
    main()
