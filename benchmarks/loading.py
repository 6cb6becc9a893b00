"""How fast samples reach the network, next to torchvision's transforms under a plain DataLoader.

    OMP_NUM_THREADS=1 python benchmarks/loading.py [--full] [--workers 1]

Prints, side by side: samples per second for images of 32 and 224 px with each 2D arm (one worker on either side),
samples per second from JPEG files (as many workers on either side), and the time to the first batch of many files.
Each side runs in turn, several times. Both sides give normalised float batches.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from record import Record, benchmark_parser
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from fieldshift.data import (
    BasicAugmentation,
    LoadingConfig,
    TensorSplit,
    batches,
    known_augmentations,
    load_dataset,
)
from fieldshift.data.augmentation.arms import augmentation
from fieldshift.wording import counted

BATCH = 128
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
LOADER = "transform per image, DataLoader"
TO_FLOAT = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]


class PlainSet(Dataset[tuple[Tensor, int]]):
    """Images in memory and torchvision's transform on each, as most training scripts have it."""

    def __init__(self, images: Tensor, transform: Callable[[Tensor], Tensor]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), 0


def normalised(images: Tensor) -> Tensor:
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return (images.float() / 255 - mean) / std


def images_of(loader: DataLoader[Any]) -> Iterator[Tensor]:
    return (batch for batch, _ in loader)


def seconds(work: Callable[[], Iterator[Tensor]], limit: int | None = None) -> tuple[float, int]:
    start, count = time.perf_counter(), 0
    for batch in work():
        count += len(batch)
        if limit is not None and count >= limit:
            break
    return time.perf_counter() - start, count


def compare(
    record: Record, table: str, case: str, ours: Callable[[], Iterator[Tensor]], peer: str,
    plain: Callable[[], Iterator[Tensor]], *, rounds: int, limit: int | None = None,
) -> None:  # fmt: skip
    """Samples per second of both sides, by turns; with a limit the seconds until so many samples."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for values, work in zip(found, (ours, plain), strict=True):
            taken, count = seconds(work, limit)
            values.append(count / taken if limit is None else taken)
    goal = {"at_least": 1.0} if limit is None else {"at_most": 1.0}
    record.row(table, case, found[0], unit="/s" if limit is None else "s", peer=peer, theirs=found[1], **goal)


def compare_arms(record: Record, samples: int, rounds: int, side: int, workers: int) -> None:
    """Each arm on batches, next to its transform per image under a DataLoader, and per image in threads."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (samples, 3, side, side), dtype=np.uint8))
    split = TensorSplit(images, torch.zeros(samples, dtype=torch.int64))
    table = f"{samples:,} images of {side} x {side}"
    for case, basic, crop in (
        ("crop and flip", BasicAugmentation(flip=0.5, crop=4), v2.RandomCrop(side, padding=4)),
        ("resized crop and flip", BasicAugmentation(flip=0.5, resized_crop=0.08), v2.RandomResizedCrop(side)),
    ):

        def ours_basic(basic: BasicAugmentation = basic) -> Iterator[Tensor]:
            for number, (batch, _, _) in enumerate(batches(split, BATCH, seed=0, epoch=0)):
                yield normalised(basic(batch, number)[0])

        steps = [crop, v2.RandomHorizontalFlip(), *TO_FLOAT]
        plain = DataLoader(PlainSet(images, v2.Compose(steps)), BATCH, shuffle=True, num_workers=1)
        compare(record, table, case, ours_basic, LOADER, partial(images_of, plain), rounds=rounds)
    for name in known_augmentations():
        arm = augmentation(name)

        def ours(arm: Callable[[Tensor, int], Tensor] = arm) -> Iterator[Tensor]:
            for number, (batch, _, _) in enumerate(batches(split, BATCH, seed=0, epoch=0)):
                yield normalised(arm(batch, number))

        steps = [*([arm.transform] if arm.transform else []), *TO_FLOAT]
        plain = DataLoader(PlainSet(images, v2.Compose(steps)), BATCH, shuffle=True, num_workers=1)
        compare(record, table, name, ours, LOADER, partial(images_of, plain), rounds=rounds)
        if arm.transform is None:
            continue

        def threaded(transform: Callable[[Tensor], Tensor] = arm.transform) -> Iterator[Tensor]:
            with ThreadPoolExecutor(workers) as pool:
                for batch, _, _ in batches(split, BATCH, seed=0, epoch=0):
                    yield normalised(torch.stack(list(pool.map(transform, batch))))

        compare(record, table, name, ours, f"per image, {counted(workers, 'thread')}", threaded, rounds=rounds)


def write_pictures(folder: Path, count: int, side: int) -> list[Path]:
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        path = folder / f"class{number % 10}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8))
        coarse.resize((side + number % 7, side), Image.Resampling.BICUBIC).save(path, quality=88)
        paths.append(path)
    return paths


def compare_files(record: Record, folder: Path, count: int, workers: int, rounds: int) -> None:
    for part, amount in (("train", count), ("test", 20)):
        write_pictures(folder / part, amount, 256)
    steps = [v2.Resize(224), v2.CenterCrop(224), v2.PILToTensor(), *TO_FLOAT]
    plain = DataLoader(ImageFolder(str(folder / "train"), v2.Compose(steps)), 64, shuffle=True, num_workers=workers)
    for memory, title in ((0, "each epoch decoded"), (2048, "kept once decoded")):
        loading = LoadingConfig(workers=workers, size=(224, 224), memory=memory)
        split = load_dataset(f"folder:{folder}", loading=loading).train

        def ours(split: object = split) -> Iterator[Tensor]:
            return (normalised(batch) for batch, _, _ in batches(split, 64, seed=0, epoch=0))  # type: ignore[arg-type]

        if memory:
            seconds(ours)
        table = f"{count:,} JPEG files to 224 x 224"
        compare(record, table, title, ours, LOADER, partial(images_of, plain), rounds=rounds)


def compare_first_batch(record: Record, folder: Path, count: int, workers: int) -> None:
    for part, amount in (("train", count), ("test", 10)):
        for place, path in enumerate(write_pictures(folder / part, min(200, amount), 32)):
            for copy in range(1, amount // 200):
                os.link(path, path.with_name(f"{place:06}-{copy:04}.jpg"))
    loading = LoadingConfig(workers=workers, size=(32, 32))

    def ours() -> Iterator[Tensor]:
        split = load_dataset(f"folder:{folder}", loading=loading).train
        return (normalised(batch) for batch, _, _ in batches(split, BATCH, seed=0, epoch=0))

    def plain() -> Iterator[Tensor]:
        steps = [v2.Resize(32), v2.CenterCrop(32), v2.PILToTensor(), *TO_FLOAT]
        files = ImageFolder(str(folder / "train"), v2.Compose(steps))
        return images_of(DataLoader(files, BATCH, shuffle=True, num_workers=workers))

    compare(record, f"{count:,} small files", "first batch", ours, LOADER, plain, rounds=3, limit=1)


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--workers", type=int, default=1, help="decoding threads, and processes of the DataLoader")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    record = Record("loading", __doc__, vars(chosen))
    samples, files, images, rounds = (10_000, 1000, 50_000, 5) if chosen.full else (384, 128, 5_000, 2)
    for side in (32, 224):
        compare_arms(
            record, samples if side == 32 else samples // 10 if chosen.full else 64, rounds, side, chosen.workers
        )
    with tempfile.TemporaryDirectory() as folder:
        compare_files(record, Path(folder) / "jpeg", files, chosen.workers, rounds)
        compare_first_batch(record, Path(folder) / "many", images, chosen.workers)
    record.finish()


if __name__ == "__main__":
    main()
