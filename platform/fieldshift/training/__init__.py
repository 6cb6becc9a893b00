"""Training: arms, the training loop, objectives, checkpoints and costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldshift.deferral import load_on_use

if TYPE_CHECKING:
    from fieldshift.training.arms import ARMS, FOLDED_ARMS, Arm, arm_named
    from fieldshift.training.cost import NetworkCost, device_hours, equal_compute_epochs, images_per_epoch, network_cost
    from fieldshift.training.evaluation import Evaluation, evaluate_network, scored_at_once
    from fieldshift.training.frames import FramePlan
    from fieldshift.training.loop import TrainedNetwork, train_network
    from fieldshift.training.map_quality import MapQuality, map_quality
    from fieldshift.training.objectives import Objective, objective_for
    from fieldshift.training.recipe import Recipe, check_batch
    from fieldshift.training.saved import NetworkCard, load_network, network_card, save_network

__all__ = [
    "ARMS",
    "FOLDED_ARMS",
    "Arm",
    "Evaluation",
    "FramePlan",
    "MapQuality",
    "NetworkCard",
    "NetworkCost",
    "Objective",
    "Recipe",
    "TrainedNetwork",
    "arm_named",
    "check_batch",
    "device_hours",
    "equal_compute_epochs",
    "evaluate_network",
    "images_per_epoch",
    "load_network",
    "map_quality",
    "network_card",
    "network_cost",
    "objective_for",
    "save_network",
    "scored_at_once",
    "train_network",
]

load_on_use(__name__)
