"""Peak memory of a training step with and without recomputed stages, at T = 32.

    python benchmarks/training_memory.py [--full] [--network resnet50] [--temporal gsf] [--frames 32] [--size 64]

Prints the peak of one forward and backward pass above what stands before it (weights, the video), in MiB, and the share
that is left with `recompute=True`; with --full the aim is at most 40 %. On the CPU each side has a process of its own, whose
resident memory the operating system measures, with an allocator that gives every tensor of a megabyte or more pages of
its own, so that what is freed does not count; on a GPU torch's allocator counts.
"""

from __future__ import annotations

import argparse
import sys

import psutil
import torch
from record import Record, benchmark_parser, measured_apart, own_peak

from fieldshift.networks import known_networks, video_network
from fieldshift.wording import counted

AIM = 0.40
SIDES = {"kept": False, "recomputed": True}


def peak(options: argparse.Namespace, recompute: bool) -> int:
    """Bytes that one training step adds at its peak to the weights, their gradients and the video."""
    device = torch.device(options.device)
    task = "classification" if options.network in known_networks() else "segmentation"
    network = video_network(
        options.network, task=task, temporal=options.temporal, frames=options.frames, num_classes=10,
        recompute=recompute,
    ).to(device)  # fmt: skip
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    video = torch.rand(options.batch, options.frames, 3, options.size, options.size, device=device)
    network.fuse(network(video[:, :, :, :32, :32])).square().mean().backward()  # libraries get their workspaces
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        network.fuse(network(video)).square().mean().backward()
        return int(torch.cuda.max_memory_allocated(device) - before)
    resident: int = psutil.Process().memory_info().rss
    network.fuse(network(video)).square().mean().backward()
    return own_peak() - resident


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--temporal", default="gsf")
    parser.add_argument("--frames", type=int, default=32, help="frames T")
    parser.add_argument("--batch", type=int, default=1, help="videos")
    parser.add_argument("--size", type=int, help="side of the frames in pixels; default: 64; with --full 112")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--side", choices=list(SIDES), help="measure this one only and print its bytes")
    options = parser.parse_args()
    options.size = options.size or (112 if options.full else 64)
    torch.set_num_threads(1)
    if options.side:
        print(peak(options, SIDES[options.side]))
        return
    record = Record("training_memory", __doc__, vars(options))
    peaks = measured_apart([[sys.executable, *sys.argv, "--side", side] for side in SIDES])
    found = {side: bytes_ / 2**20 for side, bytes_ in zip(SIDES, peaks, strict=True)}
    record.row(
        f"{options.network}, {options.temporal}, T = {options.frames}, {counted(options.batch, 'video')} of {options.size} px",
        f"peak of a training step on {options.device}, recomputed", [found["recomputed"]], unit="MiB", peer="kept",
        theirs=[found["kept"]], at_most=AIM if options.full else None,
    )  # fmt: skip
    record.finish()


if __name__ == "__main__":
    main()
