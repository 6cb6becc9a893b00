"""Digit pairs made of training digits alone, split so that settings can be chosen without the test data.

The scenes are those of `fieldshift.data.published.digit_pairs` for training. Two thirds of their 1,200 source digits are for training and
one third is held out; a scene whose two digits belong to different parts is dropped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fieldshift.cache_folder import cache_folder
from fieldshift.data.published.digit_pairs import scenes, source_digits
from fieldshift.whole_file import whole_file

DRAWN, TRAIN = 6000, 2000


def held_out_file(axis: str) -> Path:
    """A file in MedMNIST's layout, whose test images are held-out training scenes; made once.

    axis: "left" or "top". It has 2,000 scenes to train, and those of about 670 held-out ones.
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
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as partial, partial.open("wb") as stream:
        np.savez(stream, **arrays)
    return file
