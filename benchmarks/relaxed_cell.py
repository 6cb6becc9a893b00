"""What the relaxed cell costs against a plain loop of one warp an operation and frame.

Forward and backward to alpha through `affine-cell` at T = 8, time and peak memory, each measured in a process of its own:

    python benchmarks/relaxed_cell.py [--full]

The plain loop is the definition of the cell written down with torch's `grid_sample`: every option of every edge warps
every frame, and autograd keeps what it needs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import torch
import torch.nn.functional as F
from record import Record, benchmark_parser, own_peak
from torch import Tensor

from fieldshift.motions import distances, motion, sampling_grid
from fieldshift.search import RelaxedCell, load_space

CASES, FULL_CASES = ((32, 16), (224, 1)), ((32, 64), (224, 2))  # side in pixels, batch
FRAMES, CHANNELS = 8, 3
REPEATS, FULL_REPEATS = 2, 9


def plain_video(cell: RelaxedCell, images: Tensor, weights: Tensor) -> Tensor:
    """The cell's video, one `grid_sample` an option and frame. Returns (B, T, C, H, W)."""
    space, s = cell.space, distances(cell.frames)
    size = (images.shape[-2], images.shape[-1])
    magnitudes = cell.magnitudes()
    nodes = [[images] * cell.frames for _ in range(space.inputs)]
    for node in range(space.inputs, space.inputs + space.nodes):
        incoming = [e for e, (_, target) in enumerate(space.edges) if target == node]
        frames = []
        for t in range(cell.frames):
            total = torch.zeros_like(images)
            for e in incoming:
                frame = nodes[space.edges[e][0]][t]
                for o, operation in enumerate(cell.operations):
                    matrix = motion(operation.steps[0]).matrix(magnitudes[e, o, 0], s[t], size)
                    grid = sampling_grid(matrix[None], size).float().expand(len(images), -1, -1, -1)
                    total = total + weights[e, o] * F.grid_sample(frame, grid, align_corners=False)
            frames.append(total / len(incoming))
        nodes.append(frames)
    return torch.stack(nodes[-1], dim=1)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes(device: str) -> int:
    """The largest memory that this process has had so far, on the device that is measured."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return own_peak()


def measure(kind: str, side: int, batch: int, device: str, repeats: int) -> dict[str, Any]:
    """Seconds of forward and backward, peak bytes above what was there before, and the gradient's norm."""
    torch.set_num_threads(1)
    cell = RelaxedCell(load_space("affine-cell"), FRAMES, seed=0).to(device)
    images = torch.rand(batch, CHANNELS, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    probe = torch.randn(batch, FRAMES, CHANNELS, side, side, generator=torch.Generator().manual_seed(1)).to(device)
    start, seconds = peak_bytes(device), []
    for _ in range(repeats):
        begin = time.perf_counter()
        weights = cell.weights()
        video = cell.video(images, weights) if kind == "cell" else plain_video(cell, images, weights)
        (gradient,) = torch.autograd.grad((video * probe).sum(), cell.alpha)
        wait(device)
        seconds.append(time.perf_counter() - begin)
    return {
        "seconds": seconds,
        "bytes": float(peak_bytes(device) - start),
        "gradient": float(gradient.double().norm()),
    }


def compare(device: str, record: Record, *, full: bool) -> None:
    repeats = FULL_REPEATS if full else REPEATS
    for side, batch in FULL_CASES if full else CASES:
        table = f"affine-cell, T = {FRAMES}, {batch} images of {side} x {side}, {CHANNELS} channels, {device}"
        rows = {}
        for kind in ("plain", "cell"):
            command = [sys.executable, __file__, "--one", kind, str(side), str(batch), device, str(repeats)]
            rows[kind] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        ours, plain = rows["cell"], rows["plain"]
        record.row(table, "forward and backward", ours["seconds"], unit="s", peer="plain loop", theirs=plain["seconds"])
        memory = ([row["bytes"] / 2**20] for row in (ours, plain))
        record.row(table, "memory", next(memory), unit="MiB", peer="plain loop", theirs=next(memory))
        norms = ([row["gradient"]] for row in (ours, plain))
        record.row(table, "norm of the gradient", next(norms), unit="", peer="plain loop", theirs=next(norms))


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        "--one",
        nargs=5,
        metavar=("KIND", "SIDE", "BATCH", "DEVICE", "REPEATS"),
        help="measure one case in this process",
    )
    chosen = parser.parse_args()
    if chosen.one:
        kind, side, batch, device, repeats = chosen.one
        print(json.dumps(measure(kind, int(side), int(batch), device, int(repeats))))
        return
    torch.set_num_threads(1)
    record = Record("relaxed_cell", __doc__, vars(chosen))
    compare("cuda" if torch.cuda.is_available() else "cpu", record, full=chosen.full)
    record.finish()


if __name__ == "__main__":
    main()
