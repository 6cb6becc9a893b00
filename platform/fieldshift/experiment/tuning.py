"""Tuning of RandAugment's N and M by Optuna, on held-out training images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fieldshift.cluster import TrialResult, WorkerContext, tune_trials
from fieldshift.cluster.storage import Storage
from fieldshift.console import progress, say
from fieldshift.data import DataSet
from fieldshift.experiment.budget import TUNED, TuningCost
from fieldshift.experiment.cards import arm_card
from fieldshift.experiment.options import Experiment
from fieldshift.experiment.placement import placed, workers_of_trials
from fieldshift.experiment.policy_source import plain_policy
from fieldshift.experiment.session import Session
from fieldshift.experiment.training_runs import training_trial
from fieldshift.experiment.trial import HELD_OUT_SCORE, Trial, drop_checkpoint, run_training_trial
from fieldshift.motions import Policy
from fieldshift.seals import values_digest
from fieldshift.training import NetworkCard, Recipe
from search_spaces.randaugment import DEFAULTS, randaugment_space
from search_spaces.training import PARAMETERS

HELD_OUT = 0.2


def learned_images(dataset: DataSet) -> int:
    """The number of training images that a sample learns from; it is scored on the others."""
    return round((1 - HELD_OUT) * len(dataset.train))


def sample_payload(trial: Trial, folder: Path) -> dict[str, Any]:
    """The values that all samples of a tuning share: the trial on held-out images, without key and augmentation."""
    fixed = replace(trial, folder=str(folder), holdout=HELD_OUT).plain()
    del fixed["key"], fixed["augmentation"]
    return fixed


def tuning_cost(dataset: DataSet, recipe: Recipe, samples: int) -> TuningCost:
    """The cost of tuning with this many samples, as long as none is ended early."""
    from fieldshift.training import images_per_epoch

    learned = learned_images(dataset)
    return TuningCost(
        samples=samples, learned=images_per_epoch(learned, recipe.batch), scored=len(dataset.train) - learned
    )


def tune_randaugment(
    session: Session, experiment: Experiment, dataset: DataSet, recipe: Recipe, samples: int, *, reading: str
) -> dict[str, Any]:
    """Finds N and M with the best score on a held-out fifth of the training images; also returns the epochs of all samples.

    Samples train for the recipe's epochs, which are those of the reading; the test set is not read.
    """
    cluster, first = experiment.cluster, experiment.with_seed(0)
    card = arm_card(first, dataset, TUNED, None, None)
    trial = training_trial(session, first, card, recipe, reading=reading, data=dataset.digest)
    name = f"tune-{trial.key}"
    shared = session.storage(cluster)
    with placed(cluster, on_ray=workers_of_trials(cluster) > 0), progress("tuning RandAugment", samples) as bar:

        def ended(result: TrialResult) -> None:
            drop_checkpoints([result], shared)
            bar.advance(1, f"{result.metrics.get(HELD_OUT_SCORE, 0):.1%} of {result.key}")

        tuning = tune_trials(
            run_tuning_trial,
            randaugment_space(),
            metric=HELD_OUT_SCORE,
            samples=samples,
            reports=recipe.epochs,
            cluster=cluster,
            name=name,
            storage=session.path / "ray" / name,
            shared=shared,
            fixed=sample_payload(trial, session.path / "trials" / name),
            on_done=ended,
            resume=session.resume,
        )
    drop_checkpoints(tuning.results, shared)  # workers of a stopped sample may have written once more
    if tuning.best is None:
        raise RuntimeError(f"No sample of the RandAugment search ran to its end; the first: {tuning.results[0].error}")
    chosen = {number: int(tuning.best.trial[number]) for number in DEFAULTS}
    say(
        f"  RandAugment tuned over {samples} samples of {recipe.epochs} epochs on held-out images: N = {chosen['num_ops']}, "
        f"M = {chosen['magnitude']} ({tuning.best.metrics[HELD_OUT_SCORE]:.1%})"
    )
    trained = sum(int(result.metrics.get("epoch", 0)) for result in tuning.results)
    return {**chosen, "epochs": recipe.epochs, "samples": samples, "epochs_trained": trained}


def run_tuning_trial(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    """Runs one sample in a folder of its own: a training trial with the sampled values in place of its own.

    Values that may be sampled: settings of the recipe, RandAugment's `num_ops` and `magnitude`, and `motion`, a factor on the
    magnitudes of the policy. The folder's name depends on them, so that a sample never resumes from another's checkpoint.
    """
    sampled = {name: int(payload[name]) for name in DEFAULTS if name in payload}
    numbers = DEFAULTS | sampled if sampled else {}
    recipe = {**payload["recipe"], **{name: payload[name] for name in payload["recipe"].keys() & payload.keys()}}
    card = payload["card"]
    if "motion" in payload:
        policy = NetworkCard.from_plain(card).motions
        assert isinstance(policy, Policy), "motions at places have no common size"
        card = {**card, "policy": plain_policy(policy.scaled(payload["motion"]))}
    trial = {**payload, "augmentation": numbers, "recipe": recipe, "card": card, "folder": str(sample_folder(payload))}
    return run_training_trial(trial, context)


def drop_checkpoints(results: Iterable[TrialResult], shared: Storage | None) -> None:
    """Removes the checkpoints of samples that are finished or were stopped early, from the folder and the storage."""
    for result in results:
        if result.stopped or result.value is not None:
            drop_checkpoint(sample_folder(result.trial), shared)


def sample_folder(payload: Mapping[str, Any]) -> Path:
    """The folder of one sample's files."""
    return Path(f"{payload['folder']}-{sample_name(payload)}")


def sample_name(payload: Mapping[str, Any]) -> str:
    """The key of a sample with digits that depend on its values: after an interruption a key may get other ones."""
    sampled = {name: payload[name] for name in PARAMETERS if name in payload}
    return f"{payload['key']}-{values_digest(sampled)[:6]}"
