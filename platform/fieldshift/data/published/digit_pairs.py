"""The built-in data sets: pairs of handwritten digits whose answer lies beyond a small receptive field.

A scene is a 40 x 40 grey canvas with two digits of different classes (scikit-learn's 8 x 8 digits, unscaled), their
centres 16 to 20 px apart along the axis of the task and at most 2 px off it, anywhere on the canvas, under Gaussian
noise of 0.05. The label is the left (upper) digit, so a network must see the other side to know which digit that is.
Train and test scenes are made of different source digits (1,200 and 597).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fieldshift.data.cache import Arrays, cached_arrays
from fieldshift.data.dataset import (
    DataSet,
    channel_statistics,
    digest_of,
    digest_of_split,
    names_of,
)
from fieldshift.data.split import TensorSplit
from fieldshift.errors import UserError
from fieldshift.tasks import Task

CANVAS = 40
DIGIT = 8
NEAREST, FARTHEST = 16, 20
JITTER = 2
NOISE = 0.05
TRAIN_DIGITS = 1200
SCENES = 2000
RECIPE = 1


def digit_pairs(
    axis: str, *, task: Task = "classification", seed: int = 0, train_limit: int | None = None,
    test_limit: int | None = None,
) -> DataSet:  # fmt: skip
    """The data set "digit-pairs-left" or "digit-pairs-top", made from `seed` alone and kept in the cache folder.

    `train_limit` and `test_limit` are the numbers of scenes (2,000 each by default); a smaller number gives the
    first scenes of a larger one. As segmentation, the ink of the labelled digit carries its class (1 to 10) and
    all other pixels, the other digit included, are background (0).
    """
    wanted = {
        "train": SCENES if train_limit is None else train_limit,
        "test": SCENES if test_limit is None else test_limit,
    }
    for part, count in wanted.items():
        if count < 1:
            raise UserError(f"{part}_limit is {count}, but must be at least 1; leave it out for {SCENES} scenes.")
    splits = {}
    for part, count in wanted.items():
        made = cached_arrays(
            f"digit-pairs-{axis}-{part}-{digest_of(RECIPE, axis, part, seed, count)}",
            lambda part=part, count=count: scenes(axis, part == "train", seed, count),  # type: ignore[misc]
        )
        masks = torch.from_numpy(made["masks"]) if task == "segmentation" else None
        splits[part] = TensorSplit(torch.from_numpy(made["images"]), torch.from_numpy(made["labels"]), masks)
    mean, std = channel_statistics(splits["train"].images)
    digits = names_of(10)
    return DataSet(
        name=f"digit-pairs-{axis}",
        task=task,
        classes=("background", *digits) if task == "segmentation" else digits,
        train=splits["train"],
        test=splits["test"],
        mean=mean,
        std=std,
        size=(CANVAS, CANVAS),
        protocol=f"{wanted['train']} scenes of {TRAIN_DIGITS} digits to train, {wanted['test']} scenes of the other"
        f" {1797 - TRAIN_DIGITS} digits to test; seed {seed}",
        digest=digest_of(task, digest_of_split(splits["train"]), digest_of_split(splits["test"])),
    )


def source_digits(train: bool, seed: int) -> NDArray[np.int64]:
    """The positions, in scikit-learn's digits, of the source digits of train (or test) scenes; the two are disjoint."""
    order = np.random.Generator(np.random.PCG64([seed, 0])).permutation(1797)
    return np.sort(order[:TRAIN_DIGITS] if train else order[TRAIN_DIGITS:])


def scenes(axis: str, train: bool, seed: int, count: int) -> Arrays:
    """`count` scenes: images (N, 1, 40, 40) uint8, labels (N,) int64, masks (N, 40, 40) uint8, and the sources (N, 2).

    `sources` are the positions in scikit-learn's digits of the labelled digit and of the other one.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    strokes = digits.images / 16.0
    classes = digits.target.astype(np.int64)
    pool = source_digits(train, seed)
    images = np.zeros((count, CANVAS, CANVAS))
    masks = np.zeros((count, CANVAS, CANVAS), dtype=np.uint8)
    sources = np.zeros((count, 2), dtype=np.int64)
    for scene in range(count):
        # A generator per scene, so that the first scenes do not depend on the number of scenes.
        random = np.random.Generator(np.random.PCG64([seed, 1 + train, scene]))
        labelled = random.choice(pool)
        other = random.choice(pool[classes[pool] != classes[labelled]])
        along = int(random.integers(NEAREST, FARTHEST + 1))
        across = int(random.integers(-JITTER, JITTER + 1))
        room = CANVAS - DIGIT
        start = int(random.integers(0, room - along + 1))
        side = int(random.integers(max(0, -across), room - max(0, across) + 1))
        corners = [(side, start), (side + across, start + along)]
        for position, (source, corner) in enumerate(zip((labelled, other), corners, strict=True)):
            row, column = corner if axis == "left" else corner[::-1]
            window = np.s_[row : row + DIGIT, column : column + DIGIT]
            images[scene][window] = strokes[source]
            if position == 0:
                masks[scene][window] = np.where(strokes[source] > 0, classes[source] + 1, 0)
        images[scene] += random.normal(0.0, NOISE, (CANVAS, CANVAS))
        sources[scene] = labelled, other
    pixels = np.round(np.clip(images, 0.0, 1.0) * 255).astype(np.uint8)[:, None]
    return {"images": pixels, "labels": classes[sources[:, 0]], "masks": masks, "sources": sources}
