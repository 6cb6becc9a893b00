"""What a whole search on CIFAR-10 takes: device-hours, extrapolated from measured passes of the real loop.

    python benchmarks/whole_search.py [--network resnet18] [--frames 8] [--space affine-one] [--images 256] [--batch 64]

A search over a few images of CIFAR-10's size (noise: time does not depend on what is in them) runs as `fieldshift search`
does, on the GPU where there is one. Its passes (a step of alpha and one of the network for every batch of the halves) and
its decisions (the supernet without each candidate over one half) are scaled from these images to 50,000; tuning passes
between decisions are counted. Warm-up is left out: the first pass is not used.
"""

from __future__ import annotations

import time

import torch
from record import Record, benchmark_parser
from torch import Tensor

from fieldshift.data import DataSet, TensorSplit
from fieldshift.networks import video_network
from fieldshift.search import SearchConfig, load_space, search
from fieldshift.training import objective_for
from fieldshift.wording import counted

WHOLE, CLASSES = 50_000, 10


def noise(images: int, side: int = 32) -> DataSet:
    pixels = torch.randint(256, (images, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = TensorSplit(pixels, torch.arange(images) % CLASSES)
    return DataSet(
        name="noise", task="classification", classes=tuple(map(str, range(CLASSES))), train=split, test=split,
        mean=(0.5,) * 3, std=(0.25,) * 3, size=(side, side), protocol="noise", digest="noise",
    )  # fmt: skip


def normalised(video: Tensor) -> Tensor:
    return (video - 0.5) / 0.25


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--space", default="affine-one")
    parser.add_argument(
        "--images", type=int, default=None, help="measured on so many; by default 4 batches, 2 without a GPU"
    )
    parser.add_argument("--batch", type=int, default=None, help="by default 256 on a GPU, 4 without, 16 with --full")
    parser.add_argument("--epochs", type=int, nargs="+", default=[12, 50], help="passes of the supernet")
    chosen = parser.parse_args()
    record = Record("whole_search", __doc__, vars(chosen))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = chosen.batch or (256 if device == "cuda" else 16 if chosen.full else 4)
    images = chosen.images or (4 if device == "cuda" else 2) * batch
    space = load_space(chosen.space)
    config = SearchConfig(frames=chosen.frames, epochs=3, tune_epochs=0, batch=batch)
    network = video_network(
        chosen.network, temporal="tsm", frames=chosen.frames, num_classes=CLASSES, small_images=True
    )
    passes: list[float] = []

    def report(metrics: dict[str, float], _step: int) -> None:
        if "seconds" in metrics:
            passes.append(metrics["seconds"])

    started = time.perf_counter()
    found = search(
        network, noise(images), space, config, objective=objective_for("classification", CLASSES), normalise=normalised,
        device=device, report=report,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    scale = WHOLE / images
    a_pass = scale * sorted(passes[1:])[len(passes[1:]) // 2]
    deciding = scale * (found.seconds - sum(passes))
    decisions = len(found.decisions)
    table = f"{space.name}, {chosen.network}, T = {chosen.frames}, batch {batch}, {device}"
    record.row(table, f"measured on {images} images", [seconds], unit="s")
    record.row(table, f"a pass over {WHOLE:,} images, extrapolated", [a_pass], unit="s")
    record.row(table, f"{counted(decisions, 'decision')}, extrapolated", [deciding], unit="s")
    for epochs in chosen.epochs:
        tuning = max(0, decisions - 1)
        hours = (a_pass * (epochs + tuning) + deciding) / 3600
        record.row(table, f"{epochs} passes, {tuning} of tuning, extrapolated", [hours], unit="device-hours")
    record.finish()


if __name__ == "__main__":
    main()
