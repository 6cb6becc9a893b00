"""How good one predicted map is by itself: overlap, boundaries, and regions that fell to pieces.

H, W in pixels; a pixel of the ignore value in the ground truth counts nowhere, whatever was predicted there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

BOUNDARY_TOLERANCE = 0.0075
"""Distance at which a boundary still counts as met, as a share of the image's diagonal (Csurka et al., BMVC 2013)."""


ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class MapQuality:
    """One image's predicted map against its ground truth.

    Attributes:
        index: position of the sample in its split.
        overlap: intersection over union, in [0, 1], averaged over the classes that are in either map.
        boundary: boundary F-score, in [0, 1], averaged over the classes that have a boundary in either map.
        extra_components: connected regions above the ground truth's number, summed over classes (over-segmentation).
    """

    index: int
    overlap: float
    boundary: float
    extra_components: int


def map_quality(
    predicted: Int[Tensor, "height width"], target: Int[Tensor, "height width"], ignore: int | None, index: int
) -> MapQuality:
    """The measures of one map, on the CPU."""
    predicted, target = predicted.cpu(), target.cpu()
    valid = torch.ones_like(target, dtype=torch.bool) if ignore is None else target != ignore
    labels = torch.unique(torch.cat([predicted[valid], target[valid]]))
    ours, truth = ((labels[:, None, None] == each) & valid for each in (predicted, target))  # (K, H, W)
    return MapQuality(
        index=index,
        overlap=mean_overlap(ours, truth),
        boundary=boundary_score(ours, truth, valid),
        extra_components=extra_components(ours, truth),
    )


def mean_overlap(ours: Bool[Tensor, "classes height width"], truth: Bool[Tensor, "classes height width"]) -> float:
    """Intersection over union averaged over classes; 1 where there is no class at all."""
    if not len(ours):
        return 1.0
    both, either = (ours & truth).flatten(1).sum(1), (ours | truth).flatten(1).sum(1)
    return float((both / either).mean())


def extra_components(ours: Bool[Tensor, "classes height width"], truth: Bool[Tensor, "classes height width"]) -> int:
    """Regions of pixels that touch by a side, above the ground truth's number, summed over classes."""
    from scipy import ndimage

    counts = [[int(ndimage.label(region)[1]) for region in regions.numpy()] for regions in (ours, truth)]
    return sum(max(0, found - there) for found, there in zip(*counts, strict=True))


def boundary_score(
    ours: Bool[Tensor, "classes height width"],
    truth: Bool[Tensor, "classes height width"],
    valid: Bool[Tensor, "height width"],
) -> float:
    """The boundary F-score averaged over the classes with a boundary in either map; 1 where no class has one.

    Precision is the share of predicted boundary pixels within the tolerance of a true one of the same class, recall the
    reverse (Csurka et al., BMVC 2013). A class with a boundary in one of the maps only scores 0 [D].
    """
    from scipy.spatial import cKDTree

    radius = BOUNDARY_TOLERANCE * math.hypot(*valid.shape) + ROUNDING
    scores = []
    for mine, true in zip(boundaries(ours, valid), boundaries(truth, valid), strict=True):
        points, others = (np.argwhere(edge.numpy()) for edge in (mine, true))
        if not len(points) and not len(others):
            continue
        if not len(points) or not len(others):
            scores.append(0.0)
            continue
        # Only boundary pixels are looked up: a disk around each would cost minutes on a large scene.
        precision, recall = (
            float(np.isfinite(cKDTree(goals).query(places, distance_upper_bound=radius)[0]).mean())
            for places, goals in ((points, others), (others, points))
        )
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return float(np.mean(scores)) if scores else 1.0


def boundaries(
    regions: Bool[Tensor, "classes height width"], valid: Bool[Tensor, "height width"]
) -> Bool[Tensor, "classes height width"]:
    """The pixels of each region with a counted neighbour, above, below, left or right, outside it."""
    outside = ~regions & valid
    edge = torch.zeros_like(regions)
    edge[:, 1:] |= outside[:, :-1]
    edge[:, :-1] |= outside[:, 1:]
    edge[:, :, 1:] |= outside[:, :, :-1]
    edge[:, :, :-1] |= outside[:, :, 1:]
    return edge & regions
