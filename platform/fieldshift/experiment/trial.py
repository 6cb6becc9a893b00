"""One training run, as a worker executes it: plain values in, plain values out, the same in-process and on a cluster."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from fieldshift.cluster import WorkerContext
from fieldshift.cluster.storage import Storage
from fieldshift.experiment.options import Experiment
from fieldshift.renamed import without_later
from fieldshift.seals import values_digest
from fieldshift.training import (
    Evaluation,
    NetworkCard,
    Recipe,
    evaluate_network,
    network_cost,
    objective_for,
    save_network,
    scored_at_once,
    train_network,
)
from fieldshift.training.map_table import map_means, write_maps
from fieldshift.training.optimisation import basic_augmentation

HELD_OUT_SCORE = "held_out/score"
CHECKPOINT = "checkpoint.pt"
MOVE = "progress/epochs"
LEARNING = ("arm", "seed", "problem", "data", "card", "recipe", "augmentation", "holdout")
"""What a trial's checkpoint depends on."""
LATER = {"resized_crop": 1.0}
"""Settings of the recipe that earlier versions did not have, with the values that they trained with."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run of a comparison.

    Attributes:
        key: its name, unique in the comparison: arm, reading, frames and seed.
        arm: arm name.
        reading: the first reading that has its epochs.
        seed: decides weights, order and augmentation.
        problem: data, task, network, as `Experiment.plain()`.
        data: digest of the data; data with another digest are refused.
        card: the network and its frames, as a plain `NetworkCard`.
        recipe: as a plain `Recipe`, with the epochs of this reading.
        augmentation: overrides of the arm's augmentation (num_ops, magnitude), mostly empty.
        copies: augmented copies of test-time augmentation, for an arm of one frame; 0 for none.
        align: whether dense maps are fused in the reference frame.
        folder: where weights and checkpoint go; training resumes from a checkpoint found there.
        holdout: share of the training images that is scored instead of the test split; 0 scores the test split.
        moves: report the progress within an epoch as well (MOVE), for a bar of this training alone.
    """

    key: str
    arm: str
    reading: str
    seed: int
    problem: dict[str, Any]
    data: str
    card: dict[str, Any]
    recipe: dict[str, Any]
    augmentation: dict[str, int]
    copies: int
    align: bool
    folder: str
    holdout: float = 0.0
    moves: bool = False

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    def digest(self) -> str:
        """A digest of what its checkpoint depends on; without a setting of the recipe that earlier versions did not have."""
        values = {name: value for name, value in self.plain().items() if name in LEARNING}
        return values_digest({**values, "recipe": without_later(self.recipe, LATER)})


def run_training_trial(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    """Trains one arm and scores it on the test split (or held-out images); returns plain values for one row of a comparison."""
    trial = Trial(**{field.name: payload[field.name] for field in fields(Trial)})
    with context.folder(trial.folder) as folder:
        return train_and_score(trial, folder, context)


def drop_checkpoint(folder: Path, shared: Storage | None) -> None:
    """Removes a trial's checkpoint from its folder and the storage, once its result is written or it will not continue."""
    checkpoint = folder / CHECKPOINT
    checkpoint.unlink(missing_ok=True)
    if shared is not None:
        shared.remove(checkpoint)


def train_and_score(trial: Trial, folder: Path, context: WorkerContext) -> dict[str, Any]:
    """Implements `run_training_trial`; weights and checkpoint go to `folder`, for which the row names the trial's own."""
    import torch

    from fieldshift.data import holdout, write_parts

    dataset = Experiment.from_plain(trial.problem).load(trial.data)
    learned_from, scored_on = dataset.train, dataset.test
    if trial.holdout:
        kept, held = holdout(dataset.train, trial.holdout, seed=trial.seed)
        if context.rank == 0:
            write_parts(folder / "held_out.json", dataset.digest, learned_from=kept, scored_on=held)
        learned_from, scored_on = dataset.train.subset(kept), dataset.train.subset(held)
    card = replace(NetworkCard.from_plain(trial.card), augmentation=trial.augmentation)
    recipe = Recipe(**trial.recipe)
    objective = objective_for(dataset.task, len(dataset.classes), dataset.ignore_index, recipe.label_smoothing)
    plan = card.plan()
    plan = replace(plan, basic=basic_augmentation(recipe, plan.outside))

    scored_on.ready()  # a bad test image is named before the training, not after it
    torch.manual_seed(trial.seed)
    network = card.build()
    cost = network_cost(network, plan.frames, card.channels, card.size, plan.policy)

    def score(*, each_map: bool = False) -> Evaluation:
        return evaluate_network(
            network,
            scored_on,
            plan=plan,
            objective=objective,
            device=context.device,
            align=trial.align,
            batch=scored_at_once(card.frames, dataset.size, mapped=card.mapped),
            copies=0 if trial.holdout else trial.copies,
            each_map=each_map,
        )

    def report(metrics: dict[str, float], _epoch: int) -> None:
        # Choices between recipes are made while they train, on images that are neither learned from nor tested on.
        context.report({**metrics, HELD_OUT_SCORE: score().score} if trial.holdout else metrics)

    trained = train_network(
        network,
        learned_from,
        plan=plan,
        recipe=recipe,
        objective=objective,
        seed=trial.seed,
        device=context.device,
        align=trial.align,
        checkpoint=folder / CHECKPOINT,
        fingerprint=trial.digest(),
        resume=True,
        report=report,
        progress=(lambda epochs: context.report({MOVE: epochs})) if trial.moves else (lambda _epochs: None),
    )
    started = time.perf_counter()
    evaluation = score(each_map=not trial.holdout)
    if context.rank == 0:
        save_network(folder, network, card)
        if evaluation.maps:
            write_maps(folder, evaluation.maps, scored_on)
    return {
        "key": trial.key,
        "arm": trial.arm,
        "reading": trial.reading,
        "seed": trial.seed,
        "form": card.form,
        "frames": plan.frames,
        "policy_frames": card.policy_frames,
        "epochs": recipe.epochs,
        "score": evaluation.score,
        "score_tta": evaluation.score_tta,
        "views": 1 if evaluation.score_tta is None else plan.views_for(trial.copies),
        "copies": trial.copies if dataset.task == "classification" else 0,
        "loss": evaluation.loss,
        **map_means(evaluation.maps),
        **({} if network.weights_report is None else {"weights": network.weights_report.summary()}),
        "tested": len(scored_on),
        "score_name": objective.score_name,
        "parameters": cost.parameters,
        "flops": cost.flops,
        "seconds": trained.seconds,
        "device_seconds": trained.device_seconds,
        "device_seconds_per_epoch": trained.usual_device_seconds,
        "evaluation_seconds": time.perf_counter() - started,
        "devices": context.world,
        "history": trained.history,
        "folder": trial.folder,
    }
