"""Scores of a trained network on a split, over all workers together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from fieldshift.data import Split, batches
from fieldshift.networks import VideoNetwork
from fieldshift.training import distributed
from fieldshift.training.frames import FramePlan
from fieldshift.training.map_quality import MapQuality, map_quality
from fieldshift.training.objectives import Objective
from fieldshift.training.step import forward, share_of_worker

EVALUATED_IMAGES, EVALUATED_MAPS = 256, 16  # images scored at once: maps of all frames at full size take memory
EVALUATED_PIXELS = EVALUATED_IMAGES * 64 * 64 * 5
"""Pixels of all frames that are scored at once: without gradients, so that they need less memory than a usual training step."""
EVALUATED_NUMBERS = 2**27
"""Numbers of the maps of all frames and classes that are scored at once: 512 MiB."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A network's score on a split: `score` for plain images; `score_tta` with test-time averaging.

    The latter is None if it was not requested, or if there are no other views to average. `loss` is the mean
    over samples, or over all counted pixels. `maps` describes every predicted map separately, in the order of the split,
    if `each_map` is set.
    """

    score: float
    loss: float
    score_tta: float | None = None
    maps: tuple[MapQuality, ...] = ()


def scored_at_once(frames: int, size: tuple[int, int], *, mapped: int = 0) -> int:
    """The number of images to score at once: 256, or 16 with maps, and fewer where their frames or maps are large.

    mapped: the number of classes of a segmenter's maps; 0 for classification.
    """
    usual, pixels = EVALUATED_MAPS if mapped else EVALUATED_IMAGES, frames * size[0] * size[1]
    return max(1, min(usual, EVALUATED_PIXELS // pixels, EVALUATED_NUMBERS // (pixels * max(1, mapped))))


@torch.no_grad()
def evaluate_network(
    network: VideoNetwork,
    split: Split,
    *,
    plan: FramePlan,
    objective: Objective,
    batch: int | None = None,
    device: torch.device | str = "cpu",
    align: bool = True,
    copies: int = 0,
    each_map: bool = False,
    scored: Callable[[int], None] = lambda _images: None,
) -> Evaluation:
    """Scores every sample exactly once, over all workers together.

    `copies` > 0 also scores the average of the logits over `plan.views(images, copies)`, if that is more than one view
    (classification only): at most `copies` + 1 single-frame passes, whatever the network reads.
    `each_map` also measures every predicted map separately (segmentation only). `batch` is 256 images, or 16 with maps
    (`scored_at_once` has fewer for large images), at least one for every worker.
    `scored` is called with the number of images in each batch of this worker.
    """
    dense = network.task == "segmentation"
    device = torch.device(device)
    network.to(device).eval()
    split = split.to(device)
    score, averaged = objective.new_score(device), objective.new_score(device)
    totals = torch.zeros(2, dtype=torch.float64, device=device)
    average_views = plan.views_for(copies) > 1 and not dense
    maps: list[MapQuality] = []
    batch = max(batch or (EVALUATED_MAPS if dense else EVALUATED_IMAGES), distributed.world_size())
    parts = batches(split, batch, seed=0, epoch=0, shuffle=False, device=device, **share_of_worker())
    for images, targets, indices in parts:
        if not len(images):  # this worker's share of a last batch smaller than the number of workers
            continue
        logits, _ = forward(network, network, plan.evaluation_video(images), plan if align else None)
        score.update(logits, targets)
        totals += torch.stack([objective.loss(logits, targets, "sum").double(), objective.counted(targets).double()])
        if each_map and dense:
            answers = zip(logits.argmax(1), targets, indices.tolist(), strict=True)
            maps += [map_quality(found, truth, objective.ignore_index, index) for found, truth, index in answers]
        if average_views:
            views = [network.fuse(network(video)) for video in plan.views(images, copies)]
            averaged.update(torch.stack(views).mean(0), targets)
        scored(len(images))
    totals = distributed.sum_across_workers(totals)
    return Evaluation(
        score=score.compute(),
        loss=float(totals[0] / totals[1].clamp(min=1)),
        score_tta=averaged.compute() if average_views else None,
        maps=tuple(sorted(distributed.gather_across_workers(maps), key=lambda each: each.index)),
    )
