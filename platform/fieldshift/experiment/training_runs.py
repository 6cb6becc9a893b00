"""Training trials side by side: progress on the console, one MLflow run and one row per trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fieldshift.cluster import ClusterConfig, TrialResult
from fieldshift.console import duration, progress, say
from fieldshift.errors import RunFailedError
from fieldshift.experiment.labels import costs, in_percent, run_name, score_metric, sectioned, trial_labels
from fieldshift.experiment.options import Experiment
from fieldshift.experiment.placement import placed, workers_of_trials
from fieldshift.experiment.session import Session
from fieldshift.experiment.trial import Trial, drop_checkpoint, run_training_trial
from fieldshift.tracking import Run
from fieldshift.training import NetworkCard, Recipe


def training_trial(
    session: Session, experiment: Experiment, card: NetworkCard, recipe: Recipe, *, reading: str, data: str
) -> Trial:
    """The trial of one card with the experiment's seed; its key names arm, reading, frames and seed. `data`: a digest.

    The frames are those of the policy's video, also where its motions are folded into one frame.
    """
    seed = experiment.seed
    key = f"{card.arm}-{reading.replace(',', '').replace(' ', '-')}-T{card.policy_frames}-seed{seed}"
    return Trial(
        key=key,
        arm=card.arm,
        reading=reading,
        seed=seed,
        problem=experiment.plain(),
        data=data,
        card={name: value for name, value in asdict(card).items() if name != "augmentation"},
        recipe=asdict(recipe),
        augmentation={},
        copies=0,
        align=True,
        folder=str(session.path / "trials" / key),
    )


def run_training_trials(
    session: Session,
    trials: list[Trial],
    weights: list[float],
    cluster: ClusterConfig,
    title: str,
    readings: Mapping[str, Sequence[str]] | None = None,
) -> list[dict[str, Any]]:
    """Runs every trial, the longest first, and returns the rows of those that succeeded, in the given order.

    `weights` are relative costs, used for the order and for the progress bar; `readings` those that a trial is shown in, by
    its key, where it is shown in others than its own. Failed trials are reported and put into `session.failed`. Raises
    RunFailedError when all failed.
    """
    runs: dict[str, Run] = {}
    cost = {trial.key: weight for trial, weight in zip(trials, weights, strict=True)}
    by_key = {trial.key: trial for trial in trials}
    shared = session.storage(cluster)

    def run_of(key: str) -> Run:
        if key not in runs:
            trial = by_key[key]
            labels = trial_labels(trial, (readings or {}).get(key, [trial.reading]))
            runs[key] = session.child(key, labels, name=run_name(labels), folder=Path(trial.folder))
            runs[key].log_params({f"recipe.{name}": str(value) for name, value in trial.recipe.items()})
        return runs[key]

    with placed(cluster, on_ray=workers_of_trials(cluster) > 0), progress(title, sum(weights)) as bar:

        def reported(trial: dict[str, Any], metrics: dict[str, float]) -> None:
            key = trial["key"]
            epoch, epochs = int(metrics.get("epoch", 0)), trial["recipe"]["epochs"]
            run_of(key).log_metrics(epoch_metrics(metrics), step=epoch)
            each = cost[key] / epochs
            bar.show_part(key, each * epoch, f"epoch {epoch}/{epochs} of {key}", unit=each)

        def finished(result: TrialResult) -> None:
            key = result.trial["key"]
            run = run_of(key)
            if result.value is None:
                run.close("FAILED")
                bar.show_part(key, cost[key], f"failed: {key}")
                return
            record_history(run, result.value["history"])
            run.log_metrics(final_metrics(result.value), step=0)  # of one step: MLflow draws bars
            run.close("FINISHED")
            drop_checkpoint(Path(by_key[key].folder), shared)
            bar.show_part(key, cost[key], f"{result.value['score_name']} {result.value['score']:.1%} of {key}")

        ordered = sorted(trials, key=lambda trial: -cost[trial.key])
        results = session.run_trials(
            run_training_trial, [trial.plain() for trial in ordered], cluster, on_report=reported, on_done=finished
        )
    rows = {result.trial["key"]: result.value for result in results if result.value is not None}
    failed = {result.key: last_line(result.error) for result in results if result.value is None}
    session.failed.update(failed)
    for reason in dict.fromkeys(failed.values()):
        first, *others = [key for key, why in failed.items() if why == reason]
        say(f"  {first} failed: {reason}")
        if others:
            say(f"  for the same reason: {', '.join(others)}")
    if not rows:
        raise RunFailedError(f"All {len(trials)} trials failed; the last error: {last_line(results[-1].error)}")
    say(f"  {len(rows)} of {len(trials)} trials, {duration(sum(row['seconds'] for row in rows.values()))} of training")
    return [rows[trial.key] for trial in trials if trial.key in rows]


def epoch_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of an epoch in MLflow."""
    return sectioned({name: value for name, value in metrics.items() if name != "epoch"}, "train")


def record_history(run: Run, history: Sequence[Mapping[str, float]]) -> None:
    """Adds the epochs whose report was lost, as where the process that should have logged it was killed."""
    for row in history:
        run.log_metrics(epoch_metrics(row), step=int(row["epoch"]))


def final_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a finished trial in MLflow, in sections by prefix.

    "judged" is the score that the report compares: with test-time augmentation where the arm has it, else plain.
    """
    averaged = row["score_tta"] if known(row["score_tta"]) else None
    scores = {"plain": row["score"], "averaged": averaged, "judged": row["score"] if averaged is None else averaged}
    values = {
        **{
            score_metric(kind, row["score_name"]): None if score is None else in_percent(score)
            for kind, score in scores.items()
        },
        "loss/test": row["loss"],
        **costs(row),
    }
    return {key: float(value) for key, value in values.items() if known(value)}


def known(value: float | None) -> bool:
    """Returns whether a number was measured: tables have NaN where it was not."""
    return value is not None and math.isfinite(value)


def last_line(text: str | None) -> str:
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    return replace(recipe, epochs=epochs)
