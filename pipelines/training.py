"""One network trained: any arm, with or without a policy."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import ClusterConfig, check_fits, run_workers
from fieldshift.console import progress, say
from fieldshift.errors import UserError
from fieldshift.experiment import Experiment
from fieldshift.experiment.cards import checked_card, note_no_maps, note_one_view, training_step
from fieldshift.experiment.dataset import constant_notes
from fieldshift.experiment.placement import check_elastic, placed
from fieldshift.experiment.policy_source import PolicySource, plain_policy, policy_of_form, read_policy, say_other_use
from fieldshift.experiment.session import open_session
from fieldshift.run_folder import check_folder
from fieldshift.training import Recipe, arm_named
from pipelines.arms import arm_of, check_policy_of
from pipelines.options import check_copies, check_space
from search_spaces.randaugment import LARGEST

if TYPE_CHECKING:
    from fieldshift.data import DataSet
    from fieldshift.experiment import Session, Trial


MODEL = "model"


@dataclass(frozen=True)
class TrainResult:
    """A trained network: its folder (weights.safetensors, network.json) and its row (score in [0, 1], seconds, ...)."""

    folder: Path
    row: dict[str, Any]


def train(
    *,
    policy: PolicySource = None,
    arm: str | None = None,
    space: str = "affine-one",
    tta_copies: int = 0,
    align: bool = True,
    randaugment: list[int] | None = None,
    recipe: Recipe = Recipe(),
    **shared: Any,
) -> TrainResult:
    """Trains one network, on the video of a policy or as any other arm, and scores it on the test split.

    Args:
        policy: policy file, or run folder of a search.
        arm: the arm to train; by default das with a policy (das-folded with --form folded), none without one. Any arm may be
            joined with a 2D augmentation, such as das-folded+affine.
        space: search space that the arm random-policy draws from.
        tta_copies: augmented copies for test-time augmentation (TTA) of an arm with a 2D augmentation; 0 turns it off.
        align: fuse a segmenter's maps in the reference frame.
        randaugment: RandAugment's N and M, for an arm that has it; by default torchvision's 2 and 9.
        recipe: training recipe.
        shared: the options of `fieldshift.experiment.Experiment`: data, task, network, temporal, frames, form, seed,
            architecture, loading, cluster, tracking, out, resume.
    """
    experiment = Experiment(**shared)
    chosen, experiment = arm_of(experiment, arm, policy)
    policy = policy_of_form(policy, experiment.form)
    cluster = experiment.cluster
    check_policy_of(chosen, policy)
    check_space(space)
    check_copies(tta_copies)
    numbers = augmentation_numbers(randaugment, chosen)
    experiment.check_names()
    recipe.check(cluster.workers, here=cluster.address is None, recompute=experiment.architecture.recompute)
    check_elastic(cluster, recipe.batch, "--recipe.batch", recipe.accumulate)
    settings = experiment.settings(arm=chosen, space=space, average_copies=tta_copies, align=align, recipe=recipe)
    settings |= {"randaugment": randaugment} if randaugment is not None else {}
    check_folder(experiment.out, "train", settings, experiment.resume)
    check_fits(cluster, cluster.min_workers or cluster.workers)

    from fieldshift.experiment.training_runs import training_trial
    from fieldshift.experiment.trial import drop_checkpoint
    from fieldshift.search import load_space

    found, motion_space, dataset = read_policy(policy), load_space(space), experiment.checked_dataset(recipe)
    say_other_use(found, experiment.frames, (arm_named(chosen).form,))
    step = training_step(dataset, recipe, cluster.workers)
    card = checked_card(experiment, dataset, chosen, found, motion_space, step=step, align=align)
    note_one_view(card, tta_copies)
    note_no_maps(card, None if align else False)
    config = settings | {"policy": plain_policy(found)}
    tags = {
        "arm": chosen,
        "form": card.form,
        "seed": str(experiment.seed),
        "frames": str(card.frames),
        "data": experiment.data,
        "network": experiment.network,
    }
    with open_session("train", experiment, config=config, tags=tags, dataset=dataset) as session:
        finished = session.folder.finished_result()
        if finished is not None:
            drop_checkpoint(session.path, session.storage(cluster))
            tell_outcome(finished["row"], experiment.data, finished.get("data", {}))
            if not (session.path / MODEL).exists():
                log_model(session, experiment.tracking.register, align=align)
            return TrainResult(session.path, finished["row"])
        session.run.log_params({"stage": "train", "T": str(card.policy_frames), "epochs": str(recipe.epochs)})
        trial = training_trial(session, experiment, card, recipe, reading="equal epochs", data=dataset.digest)
        trial = replace(
            trial, moves=True, copies=tta_copies, align=align, folder=str(session.path), augmentation=numbers
        )
        row = run_trial(session, trial, cluster)
        record = dataset.record()
        session.folder.write_result({"row": row, "data": record, "seconds": row["seconds"]})
        drop_checkpoint(session.path, session.storage(cluster))
        log_model(session, experiment.tracking.register, align=align)
        tell_outcome(row, experiment.data, record)
        show_maps(session, dataset, row, align=align)
        say(f"weights and result: {session.path}")
        return TrainResult(session.path, row)


def augmentation_numbers(randaugment: list[int] | None, arm: str) -> dict[str, int]:
    """N and M as a trial takes them. Raises UserError where they are not two numbers in their ranges, or the arm has none."""
    if randaugment is None:
        return {}
    if arm_named(arm).augmentation != "randaugment":
        raise UserError(f"--randaugment is for arms with RandAugment, but the arm is '{arm}'; leave it out.")
    if len(randaugment) != len(LARGEST) or not all(
        0 <= n <= most for n, most in zip(randaugment, LARGEST.values(), strict=True)
    ):
        raise UserError(
            f"--randaugment is {' '.join(map(str, randaugment)) or 'empty'}, but must be two numbers: N from 0 to "
            f"{LARGEST['num_ops']} and M from 0 to {LARGEST['magnitude']}."
        )
    return dict(zip(LARGEST, randaugment, strict=True))


def run_trial(session: Session, trial: Trial, cluster: ClusterConfig) -> dict[str, Any]:
    """Runs the trial on the workers, with a progress bar and its metrics on the run itself; returns its row."""
    from fieldshift.experiment.training_runs import epoch_metrics, final_metrics, record_history
    from fieldshift.experiment.trial import MOVE, run_training_trial

    epochs = trial.recipe["epochs"]
    with placed(cluster, on_ray=cluster.workers > 0), progress(f"training {trial.arm}", epochs) as bar:

        def reported(metrics: dict[str, float]) -> None:
            if MOVE in metrics:
                bar.show(metrics[MOVE], f"epoch {int(metrics[MOVE]) + 1}/{epochs}")
                return
            epoch = int(metrics["epoch"])
            session.run.log_metrics(epoch_metrics(metrics), step=epoch)
            bar.show(epoch, f"epoch {epoch}/{epochs} loss {metrics['train/loss']:.3f}")

        row = run_workers(
            run_training_trial,
            trial.plain(),
            cluster=cluster,
            name="train",
            storage=session.path / "ray",
            shared=session.storage(cluster),
            on_report=reported,
        )
    record_history(session.run, row["history"])
    session.run.log_metrics(final_metrics(row), step=0)
    return row


def log_model(session: Session, register: str | None, *, align: bool) -> None:
    """Logs the trained network to MLflow as a model for `mlflow.pyfunc.load_model`; registers it if a name is given."""
    if not session.store.uri:
        if register is not None:
            say(f"not registered as {register}: MLflow is not installed")
        return
    from fieldshift.training.pyfunc import save_pyfunc

    model = session.path / MODEL
    if model.exists():  # of a run that was interrupted after its training
        shutil.rmtree(model)
    save_pyfunc(session.path, model, align=align)
    sent = session.run.log_model(model, register)
    if register is not None:
        say(f"registered as a version of the model {register}" if sent else f"not registered as {register} yet")


def show_maps(session: Session, dataset: DataSet, row: dict[str, Any], *, align: bool) -> None:
    """Prints which pretrained weights were loaded and, of a segmenter, its map qualities; writes its failure page."""
    from fieldshift.training.map_table import read_maps
    from pipelines.failure_cases import say_maps, write_failure_page

    if "weights" in row:
        say(f"pretrained weights: {row['weights']}")
    maps = read_maps(session.path)
    say_maps(maps, write_failure_page(session.path, session.path, dataset, maps, score=row["score"], align=align))


def tell_outcome(row: dict[str, Any], data: str, record: dict[str, Any]) -> None:
    """Prints the outcome of a training, and whether naming one class would score as much."""
    say(outcome(row, data))
    for note in constant_notes(record.get("most_frequent"), {row["arm"]: row["score"]}):
        say(f"note: {note}")


def outcome(row: dict[str, Any], data: str) -> str:
    averaged = "" if row["score_tta"] is None else f" ({row['score_tta']:.2%} with test-time averaging)"
    return (
        f"{row['arm']}: test {row['score_name']} {row['score']:.2%}{averaged} on {row['tested']} images of {data}, "
        f"{row['parameters']:,} "
        f"parameters, {row['flops'] / 1e6:.1f} MFLOP per image, {row['seconds']:.0f} s of training"
    )
