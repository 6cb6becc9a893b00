"""Finds test samples that look almost like a training sample, by their thumbnails."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

SIDE = 16
COARSE_SIDE = 4
LEAST_CORRELATION = 0.998
FLAT = 1.0
CHUNK, FEW = 1024, 32
Thumbnails = UInt8[Tensor, "_ 256"]


def hashed(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def thumbnails(images: UInt8[Tensor, "samples channels height width"]) -> Thumbnails:
    """Every image as 16 x 16 grey means, (N, 256) uint8."""
    return stacked(
        F.adaptive_avg_pool2d(part.float().mean(1, keepdim=True), SIDE).round().to(torch.uint8).flatten(1)
        for part in torch.split(images, CHUNK)
    )


def stacked(parts: Iterable[Thumbnails]) -> Thumbnails:
    return torch.cat([torch.empty(0, SIDE * SIDE, dtype=torch.uint8), *parts])


def almost_equal(train: Thumbnails, test: Thumbnails) -> list[tuple[int, int]]:
    """Pairs (train, test) whose thumbnails correlate by 0.998 or more; the best one per test sample.

    Copies that were saved again as JPEG, scaled, or brightened are found; mirrored or cropped ones are not. Images
    without structure are left out, since they cannot be told apart. Measured: none of CIFAR-10's first 5,000 test
    images is paired with a training image; of copies saved again at JPEG quality 95 more than 99 % are, at
    quality 75 more than half.
    """
    first, second = standardised(train), standardised(test)
    # Coarse means are a projection, so pairs close in full resolution are close here: the tree loses nothing.
    radius = float(np.sqrt(2 - 2 * LEAST_CORRELATION)) + 1e-6
    tree = cKDTree(coarse(first))
    pairs = []
    # In small blocks: with a camera that never moves every pair is a candidate.
    for begin in range(0, len(second), FEW):
        part = second[begin : begin + FEW]
        around = cast("list[list[int]]", tree.query_ball_point(coarse(part), radius))
        for place, candidates in enumerate(around):
            if not candidates or not part[place].any():
                continue
            agreement = first[candidates] @ part[place]
            best = int(agreement.argmax())
            if agreement[best] >= LEAST_CORRELATION:
                pairs.append((int(candidates[best]), begin + place))
    return pairs


def standardised(thumbs: Thumbnails) -> NDArray[np.float32]:
    """Mean 0 and length 1, so that a product of two is their correlation; zeros for images without structure."""
    values = thumbs.numpy().astype(np.float32)
    values -= values.mean(1, keepdims=True)
    flat = values.std(1) < FLAT
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
    values[flat] = 0
    return values


def coarse(values: NDArray[np.float32]) -> NDArray[np.float32]:
    step = SIDE // COARSE_SIDE
    blocks = values.reshape(-1, COARSE_SIDE, step, COARSE_SIDE, step)
    projected: NDArray[np.float32] = blocks.sum((2, 4)).reshape(-1, COARSE_SIDE**2) / step
    return projected
