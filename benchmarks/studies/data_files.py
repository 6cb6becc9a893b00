"""The files that the studies make: held-out training data, images at other sizes, policies of one motion. Each is made once.

Held-out scenes are those of `fieldshift.data.published.digit_pairs` for training. Two thirds of their 1,200 source digits
are for training and one third is held out; a scene whose two digits belong to different parts is dropped. So settings can
be chosen without the test data.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.transforms.v2 import functional

from fieldshift.cache_folder import cache_folder
from fieldshift.data.published.digit_pairs import scenes, source_digits
from fieldshift.motions import Policy
from fieldshift.whole_file import whole_file, write_whole

DRAWN, TRAIN = 6000, 2000
FIRST = {"train": 6000, "test": 4000}
"""How many of the first pictures of a data set are resized."""


def held_out_file(axis: str) -> Path:
    """A file in MedMNIST's layout with 2,000 scenes to train and, as its test part, 678 held-out ones.

    axis: "left" or "top".
    """
    file = cache_folder() / f"digit-pairs-{axis}-held-out-1.npz"
    if file.exists():
        return file
    drawn = scenes(axis, train=True, seed=0, count=DRAWN)
    pool = np.random.Generator(np.random.PCG64(1)).permutation(source_digits(train=True, seed=0))
    held = np.isin(drawn["sources"], pool[: len(pool) // 3])
    parts = {"train": np.flatnonzero(~held.any(axis=1))[:TRAIN], "test": np.flatnonzero(held.all(axis=1))}
    arrays = {}
    for part, chosen in parts.items():
        arrays[f"{part}_images"] = drawn["images"][chosen, 0]
        arrays[f"{part}_labels"] = drawn["labels"][chosen]
    return saved(file, arrays)


def held_out_scenes(folder: str) -> Path:
    """A folder in VOC's layout whose validation scenes are a fifth of the training scenes of `folder`.

    The scenes of CamVid are frames of a few drives in their order, so the last fifth of the list is held out.
    """
    given = Path(folder).resolve()
    made = cache_folder() / f"{given.name}-held-out-1"
    names = (given / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    cut = len(names) - len(names) // 5
    for part in ("JPEGImages", "SegmentationClass"):
        if not (made / part).exists():
            shutil.copytree(given / part, made / part)
    if (given / "classes.txt").exists():
        shutil.copy(given / "classes.txt", made)
    for part, chosen in (("train", names[:cut]), ("val", names[cut:])):
        write_whole(made / "ImageSets" / "Segmentation" / f"{part}.txt", "".join(f"{name}\n" for name in chosen))
    return made


def resized_file(file: str, side: int) -> Path:
    """The first pictures of a file in MedMNIST's layout, resized to `side` x `side` pixels (bilinear, with antialiasing)."""
    made = cache_folder() / f"{Path(file).stem}-{side}-1.npz"
    if made.exists():
        return made
    arrays = {}
    with np.load(file) as given:
        for part, count in FIRST.items():
            pictures = torch.from_numpy(given[f"{part}_images"][:count]).permute(0, 3, 1, 2)
            small = functional.resize(pictures, [side, side], antialias=True)
            arrays[f"{part}_images"] = small.permute(0, 2, 3, 1).numpy()
            arrays[f"{part}_labels"] = given[f"{part}_labels"][:count]
    return saved(made, arrays)


def motion_file(operation: str, magnitude: str) -> Path:
    """A policy of one motion, its magnitude in the motion's own unit."""
    file = cache_folder() / f"motion-{operation}-{magnitude}-3.json"
    return Policy.single(operation, float(magnitude), frames=3).save(file)


def saved(file: Path, arrays: dict[str, Any]) -> Path:
    with whole_file(file) as partial, partial.open("wb") as stream:
        np.savez(stream, **arrays)
    return file
