"""Measures of one map against flood fills and distances between every pair of pixels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from fieldshift.training import map_quality
from fieldshift.training.map_quality import BOUNDARY_TOLERANCE, boundaries

IGNORE = 255


def regions_by_flooding(mask: np.ndarray) -> int:
    """Connected regions, pixel by pixel, neighbours by a side."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    count = 0
    while left:
        count += 1
        front = [left.pop()]
        while front:
            y, x = front.pop()
            for step in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if step in left:
                    left.remove(step)
                    front.append(step)
    return count


def edge_pixels(labels: np.ndarray, label: int, valid: np.ndarray) -> list[tuple[int, int]]:
    found = []
    height, width = labels.shape
    for y, x in itertools.product(range(height), range(width)):
        if labels[y, x] != label or not valid[y, x]:
            continue
        near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        near = [(v, u) for v, u in near if 0 <= v < height and 0 <= u < width and valid[v, u]]
        if any(labels[place] != label for place in near):
            found.append((y, x))
    return found


def expected(predicted: np.ndarray, target: np.ndarray) -> tuple[float, float, int]:
    """Overlap, boundary F-score and extra regions by counting."""
    valid = target != IGNORE
    reach = BOUNDARY_TOLERANCE * math.hypot(*target.shape)
    overlaps, scores, extra = [], [], 0
    for label in sorted({*predicted[valid].tolist(), *target[valid].tolist()}):
        ours, truth = (predicted == label) & valid, (target == label) & valid
        overlaps.append((ours & truth).sum() / (ours | truth).sum())
        extra += max(0, regions_by_flooding(ours) - regions_by_flooding(truth))
        mine, true = edge_pixels(predicted, label, valid), edge_pixels(target, label, valid)
        if not mine and not true:
            continue

        def share(points: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
            met = [any(math.dist(point, other) <= reach for other in others) for point in points]
            return sum(met) / len(met) if met else 0.0

        precision, recall = share(mine, true), share(true, mine)
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return float(np.mean(overlaps)), float(np.mean(scores)) if scores else 1.0, extra


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [(9, 14), (300, 8)])  # tolerances below and above a pixel
def test_measures_agree_with_counting_pixel_by_pixel(size: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = np.kron(rng.integers(0, 4, (size[0] // 2 + 1, size[1] // 2 + 1)), np.ones((2, 2), int))[
        : size[0], : size[1]
    ]
    predicted = np.where(rng.random(size) < 0.25, rng.integers(0, 5, size), target)
    target = np.where(rng.random(size) < 0.1, IGNORE, target)
    found = map_quality(torch.from_numpy(predicted), torch.from_numpy(target), IGNORE, 7)
    overlap, boundary, extra = expected(predicted, target)
    assert found.index == 7
    assert found.overlap == pytest.approx(overlap, abs=1e-6)
    assert found.boundary == pytest.approx(boundary, abs=1e-6)
    assert found.extra_components == extra
    assert extra > 0


def test_a_perfect_map_scores_full_and_breaks_nothing() -> None:
    target = torch.randint(0, 3, (12, 12), generator=torch.Generator().manual_seed(0))
    target[0] = IGNORE
    found = map_quality(target.clamp(max=2), target, IGNORE, 0)
    assert (found.overlap, found.boundary, found.extra_components) == (1.0, 1.0, 0)


def test_specks_are_counted_as_over_segmentation_and_merged_regions_are_not() -> None:
    target = torch.zeros(20, 20, dtype=torch.int64)
    target[4:8, 4:8] = target[12:16, 12:16] = 1
    predicted = target.clone()
    predicted[1, 1] = predicted[18, 2] = 1
    assert map_quality(predicted, target, None, 0).extra_components == 2
    assert map_quality(torch.ones_like(target), target, None, 0).extra_components == 0


def test_the_edge_of_what_is_ignored_is_no_boundary() -> None:
    target = torch.zeros(6, 6, dtype=torch.int64)
    valid = np.ones((6, 6), dtype=bool)
    valid[:, 3] = False
    assert not boundaries(np.where(valid, 0, 1), valid).any()
    ignored = torch.full((6, 6), IGNORE)
    found = map_quality(target, ignored, IGNORE, 0)
    assert (found.overlap, found.boundary, found.extra_components) == (1.0, 1.0, 0)


@pytest.mark.parametrize("names", [[-7, 5, 2_000_000, 3], [0, 1, 2, 3]])
def test_labels_may_be_any_numbers(names: list[int]) -> None:
    rng = np.random.default_rng(0)
    target, predicted = rng.integers(0, 4, (2, 15, 11))
    expected = map_quality(torch.from_numpy(predicted), torch.from_numpy(target), None, 0)
    renamed = (torch.from_numpy(np.array(names)[each]) for each in (predicted, target))
    found = map_quality(*renamed, IGNORE, 0)
    assert (found.overlap, found.boundary) == pytest.approx((expected.overlap, expected.boundary))
    assert found.extra_components == expected.extra_components > 0


def test_a_map_without_pixels_has_no_faults() -> None:
    empty = torch.zeros(0, 0, dtype=torch.int64)
    assert map_quality(empty, empty, None, 3).overlap == 1.0
