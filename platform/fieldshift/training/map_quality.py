"""Quality of a single predicted map: overlap, boundaries, and fragmentation.

H, W in pixels; pixels with the ignore value in the ground truth are never counted, whatever was predicted there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

Labels = Int[np.ndarray, "height width"]
Mask = Bool[np.ndarray, "height width"]

BOUNDARY_TOLERANCE = 0.0075
"""Distance within which a boundary counts as matched, as a share of the input's diagonal (Csurka et al., BMVC 2013)."""

ROUNDING = 1e-9
MOST_CLASSES = 1024
"""Larger labels are renumbered, so that no table of classes by classes grows with the largest of them."""
LOOKED_AT = 3
"""Number of pixels searched in every direction before a tree is used: most boundaries match within them."""


@dataclass(frozen=True, kw_only=True)
class MapQuality:
    """One image's predicted map against its ground truth.

    Attributes:
        index: position of the sample in its split.
        overlap: intersection over union, in [0, 1], averaged over the classes that are in either map.
        boundary: boundary F-score, in [0, 1], averaged over the classes that have a boundary in either map.
        extra_components: connected regions in excess of the ground truth's number, summed over classes (over-segmentation).
    """

    index: int
    overlap: float
    boundary: float
    extra_components: int


def map_quality(
    predicted: Int[Tensor, "height width"], target: Int[Tensor, "height width"], ignore: int | None, index: int
) -> MapQuality:
    """The measures of one map, on the CPU; 1 and no extra components if no pixel counts."""
    ours, truth = (each.cpu().numpy().astype(np.int64) for each in (predicted, target))
    valid = np.ones(truth.shape, dtype=bool) if ignore is None else truth != ignore
    if not valid.any():
        return MapQuality(index=index, overlap=1.0, boundary=1.0, extra_components=0)
    counted = np.stack([ours[valid], truth[valid]])
    classes = int(counted.max()) + 1
    if counted.min() < 0 or classes > MOST_CLASSES:  # any labels: only those that occur get a number
        names, numbers = np.unique(counted, return_inverse=True)
        ours[valid], truth[valid] = numbers.reshape(counted.shape)
        classes = len(names)
    return MapQuality(
        index=index,
        overlap=mean_overlap(ours, truth, valid, classes),
        boundary=boundary_score(ours, truth, valid, classes),
        extra_components=extra_components(ours, truth, valid, classes),
    )


def mean_overlap(ours: Labels, truth: Labels, valid: Mask, classes: int) -> float:
    """Intersection over union averaged over the classes in either map."""
    pairs = np.bincount(ours[valid] * classes + truth[valid], minlength=classes**2).reshape(classes, classes)
    both, either = pairs.diagonal(), pairs.sum(0) + pairs.sum(1) - pairs.diagonal()
    return float((both[either > 0] / either[either > 0]).mean())


def extra_components(ours: Labels, truth: Labels, valid: Mask, classes: int) -> int:
    """Regions of pixels that share a side, in excess of the ground truth's number, summed over classes."""
    found, there = (components(labels, valid, classes) for labels in (ours, truth))
    return int((found - there).clip(min=0).sum())


def components(labels: Labels, valid: Mask, classes: int) -> Int[np.ndarray, " classes"]:
    """The number of connected regions of each class.

    All classes are labelled at once, on a grid with a cell for every pixel and one between every two neighbours,
    which is open if both have the same class.
    """
    from scipy import ndimage

    height, width = labels.shape
    grid = np.zeros((2 * height - 1, 2 * width - 1), dtype=bool)
    grid[::2, ::2] = valid
    grid[1::2, ::2] = (labels[1:] == labels[:-1]) & valid[1:] & valid[:-1]
    grid[::2, 1::2] = (labels[:, 1:] == labels[:, :-1]) & valid[:, 1:] & valid[:, :-1]
    regions, count = ndimage.label(grid)
    class_of = np.zeros(count + 1, dtype=np.int64)
    class_of[regions[::2, ::2][valid]] = labels[valid]
    return np.bincount(class_of[1:], minlength=classes)


def boundary_score(ours: Labels, truth: Labels, valid: Mask, classes: int) -> float:
    """The boundary F-score averaged over the classes with a boundary in either map; 1 if no class has one.

    Precision is the share of predicted boundary pixels within the tolerance of a true one of the same class, recall the
    reverse (Csurka et al., BMVC 2013). A class with a boundary in one of the maps only scores 0 [D].
    """
    mine, true = (np.where(boundaries(labels, valid), labels, -1) for labels in (ours, truth))
    radius = BOUNDARY_TOLERANCE * math.hypot(*valid.shape) + ROUNDING
    (precision, of_mine), (recall, of_true) = (
        shares_met(edges, goals, radius, classes) for edges, goals in ((mine, true), (true, mine))
    )
    bounded = of_mine | of_true
    total = (precision + recall)[bounded]
    scores = np.divide(2 * (precision * recall)[bounded], total, out=np.zeros(len(total)), where=total > 0)
    return float(scores.mean()) if len(scores) else 1.0


def boundaries(labels: Labels, valid: Mask) -> Mask:
    """The pixels with a counted neighbour of another class above, below, left or right."""
    edge = np.zeros(labels.shape, dtype=bool)
    differ = (labels[1:] != labels[:-1]) & valid[1:] & valid[:-1]
    edge[1:] |= differ
    edge[:-1] |= differ
    differ = (labels[:, 1:] != labels[:, :-1]) & valid[:, 1:] & valid[:, :-1]
    edge[:, 1:] |= differ
    edge[:, :-1] |= differ
    return edge


def shares_met(
    edges: Labels, goals: Labels, radius: float, classes: int
) -> tuple[Float[np.ndarray, " classes"], Bool[np.ndarray, " classes"]]:
    """The share of each class's edge pixels with a goal of that class within the radius, and the classes that have any.

    `edges` and `goals` contain classes, -1 for none. If no goal is near, a tree of all goals is queried, in
    which different classes are too far apart to match.
    """
    from scipy.spatial import cKDTree

    positions = np.argwhere(edges >= 0)
    wanted = edges[edges >= 0]
    look = min(LOOKED_AT, int(radius))
    around = np.pad(goals, look, constant_values=-1)
    met = np.zeros(len(positions), dtype=bool)
    for down in range(-look, look + 1):
        for right in range(-look, look + 1):
            if math.hypot(down, right) <= radius:
                met |= around[positions[:, 0] + look + down, positions[:, 1] + look + right] == wanted
    if not met.all() and (goals >= 0).any():
        apart = 2 * radius + 2
        tree = cKDTree(np.column_stack([np.argwhere(goals >= 0), goals[goals >= 0] * apart]), balanced_tree=False)
        points = np.column_stack([positions[~met], wanted[~met] * apart])
        met[~met] = np.isfinite(tree.query(points, distance_upper_bound=radius)[0])
    number = np.bincount(wanted, minlength=classes)
    return np.bincount(wanted, weights=met, minlength=classes) / number.clip(min=1), number > 0
