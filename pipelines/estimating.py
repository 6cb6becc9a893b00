"""Estimates of how long a study takes on this machine."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from fieldshift.cluster import ClusterConfig
from fieldshift.data import DataSet
from fieldshift.experiment.cards import MOVED_ARMS
from fieldshift.experiment.placement import best_device
from fieldshift.forms import Form
from fieldshift.motions import Policy
from fieldshift.training import NetworkCard, Recipe, arm_named, network_card, objective_for, train_network
from pipelines.study_plan import PreparedStudy

TIMED_PASSES = 3
"""Passes that a speed is the median of: one of some milliseconds may be held up by whatever else the machine does."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The trainings and searches of a study, as far as they decide how long it takes.

    Attributes:
        arms: names of the arms.
        seeds, searches: number of seeds of the comparison, and of searches in each form.
        frames: frames of a video.
        epochs, search_epochs: passes of a training, and of a search over either half of the training images.
        counts: numbers of frames of the frame sweep, in each form.
        frame_seeds: number of seeds of the frame sweep.
        trials_at_once: trials side by side.
    """

    arms: Sequence[str]
    seeds: int
    searches: int
    frames: int
    epochs: int
    search_epochs: int
    counts: Mapping[Form, Sequence[int]]
    frame_seeds: int = 1
    trials_at_once: int = 1

    def seconds(self, images: int, speed: float) -> float:
        """The estimate for `images` training images where a training reads `speed` videos per second.

        A video arm reads every image once per pass; an arm of one frame spends as much at equal compute, and a T-th at
        equal epochs. A search passes once over either half, and its motions cost about as much as its network. Evaluation,
        figures and starts are left out.
        """
        videos = self.seeds * sum(1.0 if arm_named(name).is_video else 1 + 1 / self.frames for name in self.arms)
        searches = 0.0
        forms = {arm_named(name).form for name in self.arms if arm_named(name).needs_policy}
        if "video" in forms:
            others = [count for count in self.counts.get("video", ()) if count != self.frames]
            videos += self.frame_seeds * sum(others) / self.frames
            searches += self.searches
        if "folded" in forms:
            videos += self.frame_seeds * sum(count != self.frames for count in self.counts.get("folded", ()))
            searches += self.searches / self.frames
        passes = videos * self.epochs + searches * 2 * self.search_epochs
        return images / speed * passes / self.trials_at_once


def training_speed(dataset: DataSet, card: NetworkCard, batch: int) -> float:
    """Images, or videos, per second of one training trial here: the median of passes over one batch, after the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(ClusterConfig().cpus_per_worker)
    try:
        trained = train_network(
            card.build(pretrained=False),
            dataset.train.subset(torch.arange(min(len(dataset.train), batch))),
            plan=card.plan(),
            recipe=Recipe(epochs=1 + TIMED_PASSES, batch=batch),
            objective=objective_for(dataset.task, len(dataset.classes), dataset.ignore_index),
            seed=0,
            device=best_device(),
        )
    finally:
        torch.set_num_threads(threads)
    return statistics.median(row["images_per_second"] for row in trained.history[1:])


def estimated_seconds(study: PreparedStudy) -> float:
    """About how long the stages take on this machine."""
    plan, experiment, dataset = study.plan, study.experiment, study.dataset
    at_once = experiment.cluster.trials_at_once
    if at_once is None:
        at_once = os.cpu_count() or 1
    work = Workload(
        arms=study.arms if "compare" in plan.stages else [MOVED_ARMS[form] for form in study.edges],
        seeds=len(plan.comparison.seeds) if "compare" in plan.stages else 0,
        searches=len(study.searched_seeds),
        frames=experiment.frames,
        epochs=plan.comparison.recipe.epochs,
        search_epochs=plan.search.epochs,
        counts=plan.counts if "frames" in plan.stages else {},
        frame_seeds=plan.frame_seeds,
        trials_at_once=max(1, at_once),
    )
    as_video = "video" in study.edges
    card = network_card(
        dataset,
        dataset.name,
        arm_named("replicate" if as_video else "none"),
        network=experiment.network,
        temporal=experiment.temporal,
        policy=Policy.replicate(experiment.frames) if as_video else None,
        architecture=experiment.architecture,
    )
    speed = training_speed(dataset, card, plan.comparison.recipe.batch)
    return work.seconds(len(dataset.train), speed if as_video else speed / experiment.frames)


def roughly(seconds: float) -> str:
    """A duration in whole minutes, or in hours from an hour and a half on."""
    minutes = max(1, round(seconds / 60))
    return f"{seconds / 3600:.1f} hours" if minutes > 90 else "a minute" if minutes == 1 else f"{minutes} minutes"
