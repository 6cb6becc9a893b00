"""Hyperparameters of a training, tuned on held-out training images; the test images are not read."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import TrialResult, tune_trials
from fieldshift.console import progress, say, table
from fieldshift.errors import RunFailedError, UserError, unknown_name
from fieldshift.experiment import Experiment
from fieldshift.experiment.cards import checked_card, smallest_step
from fieldshift.experiment.placement import check_trials_fit, placed, sharing_workers, workers_of_trials
from fieldshift.experiment.policy_source import PolicySource, plain_policy, policy_of_form, read_policy, say_other_use
from fieldshift.experiment.session import FailsWithTrials, Session, open_session, say_failed
from fieldshift.run_folder import check_folder
from fieldshift.tracking import Run
from fieldshift.tracking.addresses import sqlite_address
from fieldshift.tracking.config import holds_password
from fieldshift.training import Recipe, arm_named
from pipelines.arms import arm_of, check_policy_of
from search_spaces.randaugment import DEFAULTS
from search_spaces.training import MOTION_FACTORS, PARAMETERS, training_space

if TYPE_CHECKING:
    from fieldshift.experiment.trial import Trial
    from fieldshift.folding import AnyPolicy


@dataclass(frozen=True)
class TuneResult(FailsWithTrials):
    """The result of a tuning.

    Attributes:
        folder: the run folder.
        best: the sampled values of the best sample.
        score: its score on the held-out images, in [0, 1].
        samples: one row per sample: its values, score, epochs, and whether it was stopped early.
        policy: the policy with the best sample's motions, where `motion` was tuned.
    """

    folder: Path
    best: dict[str, float]
    score: float
    samples: list[dict[str, Any]]
    policy: dict[str, Any] | None = None
    failed: dict[str, str] = field(default_factory=dict)


def tune(
    *,
    over: list[str] | None = None,
    samples: int = 20,
    policy: PolicySource = None,
    arm: str | None = None,
    study: str | None = None,
    recipe: Recipe = Recipe(),
    **shared: Any,
) -> TuneResult:
    """Tunes the hyperparameters of one arm's training with Optuna and ASHA, on a held-out fifth of the training images.

    Optuna's TPE proposes samples; after 1, 3, 9, ... epochs ASHA continues a third of them. The test images are not read.

    Args:
        over: parameters to tune: learning_rate, weight_decay, num_ops and magnitude (RandAugment's N and M), motion (a factor
            on the policy's magnitudes); by default the rates, and the others where the arm has them.
        samples: total number of samples; with --resume it includes the earlier ones.
        policy: policy file, or run folder of a search.
        arm: the arm to train; by default das with a policy (das-folded with --form folded), none without one.
        study: URL of the database that keeps Optuna's study; by default optuna.db in the run folder.
        recipe: training recipe; learning rate and weight decay are the centre of the sampled ranges.
        shared: the options of `fieldshift.experiment.Experiment`: data, task, network, temporal, frames, form, seed,
            architecture, loading, cluster, tracking, out, resume.
    """
    experiment = Experiment(**shared)
    chosen, experiment = arm_of(experiment, arm, policy)
    policy = policy_of_form(policy, experiment.form)
    tuned = tunable(over, chosen)
    if study is not None and holds_password(study):
        raise UserError(
            "--study holds a password, which would be written into config.yaml and MLflow; leave it out of the address and "
            "use the database's own file or variable (~/.pgpass, PGPASSWORD)."
        )
    if samples < 1:
        raise UserError(f"--samples is {samples}, but must be at least 1.")
    check_policy_of(chosen, policy)
    experiment.check_names()
    workers = sharing_workers(experiment.cluster)
    recipe.check(workers, here=experiment.cluster.address is None, recompute=experiment.architecture.recompute)
    settings = experiment.settings(arm=chosen, over=over, samples=samples, study=study, recipe=recipe)
    check_folder(experiment.out, "tune", settings, experiment.resume)
    check_trials_fit(experiment.cluster)

    from fieldshift.experiment.tuning import learned_images
    from fieldshift.motions import Policy

    found, dataset = read_policy(policy), experiment.checked_dataset(recipe)
    say_other_use(found, experiment.frames, (arm_named(chosen).form,))
    if over is None and not isinstance(found, Policy):  # motions at several places have no common size
        if "motion" in tuned:
            say("note: the size of the motion is not tuned: the policy has several motions, without a common size")
        tuned = [name for name in tuned if name != "motion"]
    largest = largest_motion(found) if "motion" in tuned else MOTION_FACTORS[1]
    step = smallest_step(learned_images(dataset), recipe.batch, workers, recipe.sync_batch_norm, recipe.accumulate)
    card = checked_card(experiment, dataset, chosen, found, None, step=step)
    config = settings | {"policy": plain_policy(found)}
    tags = {"arm": chosen, "form": card.form, "data": experiment.data, "network": experiment.network}
    with open_session("tune", experiment, config=config, tags=tags, dataset=dataset) as session:
        from fieldshift.experiment.training_runs import training_trial

        finished = session.folder.finished_result()
        if finished is None or len(finished["samples"]) < samples:
            space = training_space(
                tuned, learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay, largest_motion=largest
            )
            trial = training_trial(session, experiment, card, recipe, reading="equal epochs", data=dataset.digest)
            results = run_samples(session, experiment, trial, space, samples=samples, study=study)
            finished = session.folder.write_result(summary(results, tuned, found, recipe) | {"data": dataset.record()})
        return shown(session, finished)


def tunable(over: Sequence[str] | None, arm: str) -> list[str]:
    """The parameters to tune. Raises UserError for one that is unknown, or that the arm does not have."""
    augmented = arm_named(arm).augmentation == "randaugment"
    has = dict.fromkeys(DEFAULTS, augmented) | {"motion": arm_named(arm).needs_policy}
    if over is None:
        return [name for name in PARAMETERS if has.get(name, True)]
    for name in over:
        if name not in PARAMETERS:
            raise unknown_name("parameter", name, PARAMETERS)
        if not has.get(name, True):
            needed = "RandAugment, such as randaugment" if name in DEFAULTS else "a policy, such as das"
            raise UserError(
                f"The arm '{arm}' has no {name} to tune; leave it out of --over, or name an arm with {needed}."
            )
    if not over or len(set(over)) < len(over):
        raise UserError(
            "--over names no parameter, or one of them twice; name each once, such as --over learning_rate."
        )
    return list(over)


def largest_motion(policy: AnyPolicy | None) -> float:
    """The largest factor for the policy's magnitudes that keeps each within its limits. UserError for motions at places."""
    from fieldshift.motions import Policy

    if not isinstance(policy, Policy):
        raise UserError(
            "--over motion scales a policy of one motion, but this one has several (version 2); leave out motion."
        )
    most = MOTION_FACTORS[1] - 1
    for factor in (1 + most * step / 10 for step in range(10, 0, -1)):
        try:
            policy.scaled(factor)
        except UserError:
            continue
        return factor
    return 1.0


def run_samples(
    session: Session, experiment: Experiment, trial: Trial, space: dict[str, Any], *, samples: int, study: str | None
) -> list[TrialResult]:
    """Trains the samples, each with a run of its own in MLflow, and returns them all in their order."""
    from fieldshift.experiment.labels import trial_labels
    from fieldshift.experiment.training_runs import epoch_metrics
    from fieldshift.experiment.trial import HELD_OUT_SCORE
    from fieldshift.experiment.tuning import drop_checkpoints, run_tuning_trial, sample_name, sample_payload

    cluster, labels = experiment.cluster, trial_labels(trial, [])
    shared = session.storage(cluster)
    epochs = trial.recipe["epochs"]

    runs: dict[str, Run] = {}

    def run_of(sample: dict[str, Any]) -> Run:
        name = sample_name(sample)
        if name not in runs:
            runs[name] = session.child(name, labels, name=f"{labels['arm']} {sample['key']}")
            runs[name].log_params({each: sample[each] for each in space})
        return runs[name]

    with (
        placed(cluster, on_ray=workers_of_trials(cluster) > 0),
        progress(f"tuning {trial.arm}", samples * epochs) as bar,
    ):

        def reported(sample: dict[str, Any], metrics: dict[str, float]) -> None:
            epoch = int(metrics["epoch"])
            run_of(sample).log_metrics(epoch_metrics(metrics), step=epoch)
            note = f"epoch {epoch} of {sample['key']}: {metrics[HELD_OUT_SCORE]:.1%}"
            bar.show_part(sample["key"], epoch, note, unit=1)

        def ended(result: TrialResult) -> None:
            drop_checkpoints([result], shared)
            run = run_of(result.trial)
            if result.kept and result.metrics:  # the store may be another one than that of its training
                run.log_metrics(epoch_metrics(result.metrics), step=int(result.metrics["epoch"]))
            run.close("FINISHED" if result.error is None else "FAILED")
            bar.show_part(result.key, epochs, f"{result.metrics.get(HELD_OUT_SCORE, 0):.1%} of {result.key}")

        tuning = tune_trials(
            run_tuning_trial,
            space,
            metric=HELD_OUT_SCORE,
            samples=samples,
            reports=epochs,
            cluster=cluster,
            name=f"tune-{session.mark}",
            storage=session.path / "ray" / "tune",
            shared=shared,
            fixed=sample_payload(trial, session.path / "trials" / "tune"),
            seed=experiment.seed,
            on_report=reported,
            on_done=ended,
            resume=session.resume,
            study=study or sqlite_address(session.path / "optuna.db"),
        )
    drop_checkpoints(tuning.results, shared)  # workers of a stopped sample may have written once more
    return tuning.results


def summary(
    results: Sequence[TrialResult], tuned: Sequence[str], policy: AnyPolicy | None, recipe: Recipe
) -> dict[str, Any]:
    """The values of result.json. Raises RunFailedError where no sample ran to its end."""
    from fieldshift.experiment.trial import HELD_OUT_SCORE
    from fieldshift.motions import Policy

    rows = [
        {
            "key": result.key,
            **{name: result.trial[name] for name in tuned},
            "score": result.metrics.get(HELD_OUT_SCORE),
            "epochs": int(result.metrics.get("epoch", 0)),
            "stopped": result.stopped and int(result.metrics.get("epoch", 0)) < recipe.epochs,
        }
        for result in results
        if result.error is None
    ]
    failed = {result.key: result.error for result in results if result.error is not None}
    complete = [row for row in rows if not row["stopped"] and row["score"] is not None]
    if not complete:
        raise RunFailedError(f"No sample ran to its end; the last error: {next(reversed(failed.values()), 'none')}")
    best = max(complete, key=lambda row: row["score"])
    values = {name: best[name] for name in tuned}
    scaled = policy.scaled(values["motion"]) if "motion" in values and isinstance(policy, Policy) else None
    return {
        "best": values,
        "score": best["score"],
        "samples": rows,
        "recipe": asdict(
            replace(recipe, **{name: values[name] for name in ("learning_rate", "weight_decay") if name in values})
        ),
        "tuned_policy": plain_policy(scaled),
        "failed": failed,
    }


def shown(session: Session, result: dict[str, Any]) -> TuneResult:
    """Prints the samples, the best first, and how to train with the best one's values."""
    names = list(result["best"])
    ordered = sorted(result["samples"], key=lambda row: (row["stopped"], -(row["score"] or 0)))
    cells = [
        (
            row["key"],
            *(f"{row[name]:.4g}" for name in names),
            f"{row['score'] or 0:.1%}",
            str(row["epochs"]),
            "stopped early" if row["stopped"] else "",
        )
        for row in ordered
    ]
    table(("sample", *names, "held-out", "epochs", ""), cells, right={*names, "held-out", "epochs"})
    recipe = result["recipe"]
    options = [f"--recipe.{name} {recipe[name]:.4g}" for name in ("learning_rate", "weight_decay") if name in names]
    if DEFAULTS.keys() & set(names):
        options.append(f"--randaugment {' '.join(str(result['best'].get(name, DEFAULTS[name])) for name in DEFAULTS)}")
    if (policy := read_policy(result["tuned_policy"])) is not None:
        options.append(f"--policy {shlex.quote(str(policy.save(session.path / 'policy.json')))}")
    say(
        f"best on held-out images: {result['score']:.1%}; to train with these values, give `fieldshift train` the same options "
        f"(arm, data, network, form, frames and others), and {' '.join(options)}"
    )
    say_failed(result["failed"])
    say(f"  {session.folder.result_path}")
    return TuneResult(
        session.path, result["best"], result["score"], result["samples"], result["tuned_policy"], result["failed"]
    )
