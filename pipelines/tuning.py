"""RandAugment's two numbers, found by Optuna on held-out training images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fieldshift.cluster import ClusterConfig, WorkerContext, tune_trials
from fieldshift.console import progress, say
from fieldshift.data import DataSet
from fieldshift.training import Recipe
from pipelines.placement import placed, workers_of_trials
from pipelines.problem import Problem
from pipelines.running import training_trial
from pipelines.session import Session
from pipelines.trials import HELD_OUT_SCORE, run_training_trial
from search_spaces.randaugment import randaugment_space

HELD_OUT = 0.2


def tune_randaugment(
    session: Session, problem: Problem, dataset: DataSet, recipe: Recipe, cluster: ClusterConfig, samples: int
) -> dict[str, int]:
    """N and M with the best score on a held-out fifth of the training images; the test set is not read."""
    card = problem.card(dataset, "randaugment", None, None, 0)
    trial = training_trial(session, problem, card, recipe, reading="equal epochs", seed=0, data=dataset.digest)
    fixed = replace(trial, folder=str(session.path / "trials" / "tune-randaugment"), holdout=HELD_OUT).plain()
    del fixed["key"], fixed["augmentation"]
    with placed(cluster, on_ray=workers_of_trials(cluster) > 0), progress("tuning RandAugment", samples) as bar:
        tuning = tune_trials(
            run_tuning_trial,
            randaugment_space(),
            metric=HELD_OUT_SCORE,
            samples=samples,
            reports=recipe.epochs,
            cluster=cluster,
            name="tune-randaugment",
            storage=session.path / "ray",
            fixed=fixed,
            on_done=lambda result: bar.advance(1, f"{result.metrics.get(HELD_OUT_SCORE, 0):.1%} of {result.key}"),
            resume=session.resume,
        )
    if tuning.best is None:
        raise RuntimeError(f"No sample of the RandAugment search ran to its end; the first: {tuning.results[0].error}")
    chosen = {name: int(tuning.best.trial[name]) for name in ("num_ops", "magnitude")}
    say(
        f"  RandAugment tuned over {samples} samples on held-out images: N = {chosen['num_ops']}, "
        f"M = {chosen['magnitude']} ({tuning.best.metrics[HELD_OUT_SCORE]:.1%})"
    )
    return chosen


def run_tuning_trial(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    """One sample: a training trial with this N and M, in a folder of its own."""
    numbers = {name: int(payload[name]) for name in ("num_ops", "magnitude")}
    return run_training_trial(
        {**payload, "augmentation": numbers, "folder": f"{payload['folder']}-{payload['key']}"}, context
    )
