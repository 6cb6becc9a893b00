"""The frame sweep: the same policy, network and recipe with videos of different length, or steps of different size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.console import say
from fieldshift.errors import UserError
from fieldshift.experiment import Experiment
from fieldshift.experiment.cards import MOVED_ARMS, arm_card, card_cost, checked_card, training_step, video_cost
from fieldshift.experiment.placement import check_trials_fit, sharing_workers
from fieldshift.experiment.policy_source import (
    PolicySource,
    check_policy,
    missing_policy,
    plain_policy,
    policy_of_form,
    read_policy,
)
from fieldshift.experiment.session import FailsWithTrials, Session, open_session, say_failed
from fieldshift.forms import Form, check_form, check_length
from fieldshift.readings import GIVEN
from fieldshift.run_folder import check_folder
from fieldshift.training import Recipe
from pipelines.builtin_data import notes_on
from pipelines.policies import ArmPolicies, ArmPolicy
from search_spaces.frame_sweep import FRAME_COUNTS

if TYPE_CHECKING:
    import pandas as pd

    from fieldshift.data import DataSet

FEWEST = 3  # frames of a policy that folds


@dataclass(frozen=True)
class FrameSweep(FailsWithTrials):
    """Results of a frame sweep: one row per trial (arm, frames, seed, score in [0, 1], parameters, FLOPs per image, seconds).

    frames is T of the policy's video; in the folded form, which reads one frame, T decides the step between neighbours.
    """

    folder: Path
    rows: pd.DataFrame
    failed: dict[str, str] = field(default_factory=dict)  # trials that failed and why; rows are without them


@dataclass(frozen=True)
class SweptArm:
    """An arm and the numbers of frames it is trained with, each with the recipe of a reading."""

    arm: str
    counts: list[int]
    recipe: Recipe
    reading: str = "equal epochs"


def sweep_frames(
    *,
    policy: PolicySource = None,
    frame_counts: list[int] | None = None,
    seeds: int = 3,
    recipe: Recipe = Recipe(),
    **shared: Any,
) -> FrameSweep:
    """Trains one policy with videos of different lengths; at every length a magnitude is that of the farthest frame.

    In the folded form the networks read one frame, and the number of frames decides the step between neighbouring ones.

    Args:
        policy: policy file, or run folder of a search.
        frame_counts: numbers of frames; by default 1 2 3 5 8 16, in the folded form from 3 on.
        seeds: number of seeds for each number of frames.
        recipe: training recipe.
        shared: the options of `fieldshift.experiment.Experiment` but frames: data, task, network, temporal, form, seed,
            architecture, loading, cluster, tracking, out, resume.
    """
    experiment = Experiment(frames=FEWEST, **shared)
    form, cluster = experiment.form, experiment.cluster
    check_form(form)
    least = FEWEST if form == "folded" else 1
    counts = check_counts([n for n in FRAME_COUNTS if n >= least] if frame_counts is None else frame_counts)
    if counts[0] < least:
        raise UserError(
            f"--frame_counts holds {counts[0]}, but --form folded needs one to either side of the reference; give 3 or more."
        )
    if policy is None:
        raise missing_policy("A frame sweep")
    policy = policy_of_form(policy, form)
    check_policy(policy)
    seed_list = experiment.seeds(seeds)
    experiment = replace(experiment, frames=max(counts))
    experiment.check_names()
    workers = sharing_workers(cluster)
    recipe.check(workers, here=cluster.address is None, recompute=experiment.architecture.recompute)
    settings = experiment.settings(frame_counts=counts, seeds=seeds, recipe=recipe)
    del settings["frames"]
    check_folder(experiment.out, "sweep-frames", settings, experiment.resume)
    check_trials_fit(cluster)
    found, dataset = read_policy(policy), experiment.checked_dataset(recipe)
    assert found is not None
    arm = MOVED_ARMS[form]
    step = training_step(dataset, recipe, workers)
    for count in counts:
        checked_card(replace(experiment, frames=count), dataset, arm, found, None, step=step)
    config = settings | {"policy": plain_policy(found)}
    tags = {"data": experiment.data, "network": experiment.network, "form": form}
    policies = ArmPolicies({(form, each): ArmPolicy(found, GIVEN) for each in seed_list})
    with open_session("sweep-frames", experiment, config=config, tags=tags, dataset=dataset) as session:
        arms = [SweptArm(arm, counts, recipe)]
        return run_sweep(session, experiment, dataset, policies, arms=arms, seeds=seed_list)


def swept_arm(
    experiment: Experiment, dataset: DataSet, form: Form, policies: ArmPolicies, counts: list[int], recipe: Recipe
) -> SweptArm:
    """The arm of a study's sweep in a form; the folded one trains at equal compute with the study's videos."""
    from fieldshift.training import equal_compute_epochs

    arm = MOVED_ARMS[form]
    if form == "video":
        return SweptArm(arm, counts, recipe)
    cost = card_cost(arm_card(experiment, dataset, arm, policies.policy(arm, experiment.seed), None))
    epochs = equal_compute_epochs(recipe.epochs, cost.flops, video_cost(experiment, dataset).flops)
    return SweptArm(arm, counts, replace(recipe, epochs=epochs), "equal compute")


def run_sweep(
    session: Session,
    experiment: Experiment,
    dataset: DataSet,
    policies: ArmPolicies,
    *,
    arms: list[SweptArm],
    seeds: list[int],
    known: Sequence[Mapping[Any, Any]] = (),
) -> FrameSweep:
    """Trains every (arm, frames, seed) that is not already among the `known` rows of a comparison with the same recipe."""
    import pandas as pd

    from fieldshift.report import show, sweep_sheet
    from pipelines.summing import record_lengths

    finished = session.folder.finished_result()
    if finished is None:
        rows = [row for swept in arms for row in known_rows(swept, seeds, known)]
        rows += train_lengths(session, experiment, dataset, policies, arms, seeds, have=rows)
        rows.sort(key=lambda row: ([swept.arm for swept in arms].index(row["arm"]), row["frames"], row["seed"]))
        finished = session.folder.write_result({"rows": rows, "data": dataset.record(), "failed": session.failed})
    frame = pd.DataFrame(finished["rows"]).drop(columns=["history"], errors="ignore")
    say()
    show(sweep_sheet(frame, str(frame["score_name"].iloc[0]), notes_on(experiment.data)))
    say(f"  {session.path / 'result.json'}")
    record_lengths(session, frame)
    failed = finished.get("failed", {})
    say_failed(failed)
    return FrameSweep(session.path, frame, failed)


def known_rows(swept: SweptArm, seeds: list[int], rows: Sequence[Mapping[Any, Any]]) -> list[dict[str, Any]]:
    """Trials of a comparison that the sweep of an arm would repeat; a video has one trial for both readings."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        same = row["arm"] == swept.arm and row["epochs"] == swept.recipe.epochs
        if same and row["policy_frames"] in swept.counts and row["seed"] in seeds:
            found.setdefault(row["seed"], with_length({str(name): value for name, value in row.items()}))
    return list(found.values())


def with_length(row: dict[str, Any]) -> dict[str, Any]:
    """A trial's row with T of the policy's video as its frames."""
    return {**row, "frames": row["policy_frames"]}


def train_lengths(
    session: Session,
    experiment: Experiment,
    dataset: DataSet,
    policies: ArmPolicies,
    arms: list[SweptArm],
    seeds: list[int],
    *,
    have: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """One row for every (arm, frames, seed) that is not among those that there are already."""
    from fieldshift.experiment.training_runs import run_training_trials, training_trial

    known = {(row["arm"], row["frames"], row["seed"]) for row in have}
    trials, weights = [], []
    for swept in arms:
        for frames in swept.counts:
            for seed in seeds:
                if (swept.arm, frames, seed) in known:
                    continue
                policy = policies.policy(swept.arm, seed)
                seeded = experiment.with_seed(seed)
                card = arm_card(replace(seeded, frames=frames), dataset, swept.arm, policy, None)
                trial = training_trial(session, seeded, card, swept.recipe, reading=swept.reading, data=dataset.digest)
                trials.append(trial)
                weights.append(float(swept.recipe.epochs * card_cost(card).flops))
    rows = run_training_trials(session, trials, weights, experiment.cluster, "frame sweep") if trials else []
    return [with_length(row) for row in rows]


def check_counts(counts: list[int]) -> list[int]:
    for count in counts:
        check_length(count, "--frame_counts", "holds")
    if not counts:
        raise UserError("--frame_counts is empty; give numbers of frames, such as 1 3 5.")
    return sorted(set(counts))
