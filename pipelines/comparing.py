"""The comparison: every arm on the same data, network and recipe, at equal epochs and at equal compute."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import ClusterConfig
from fieldshift.console import say
from fieldshift.data import LoadingConfig
from fieldshift.errors import UserError, unknown_name
from fieldshift.networks import NetworkConfig
from fieldshift.run_folder import check_folder
from fieldshift.tracking import TrackingConfig
from fieldshift.training import ARMS, Recipe, arm_named
from pipelines.options import check_arms_policy, check_policy, check_space
from pipelines.placement import check_trials_fit
from pipelines.problem import PolicySource, Problem, images_in_step, read_policy, say_other_length
from pipelines.session import Session, open_session

if TYPE_CHECKING:
    import pandas as pd

    from fieldshift.data import DataSet
    from fieldshift.folding import AnyPolicy
    from fieldshift.search import Space
    from fieldshift.training import NetworkCard, NetworkCost
    from pipelines.trials import Trial

READINGS = ("equal epochs", "equal compute")


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        folder: the run folder.
        rows: one row a trial and reading: arm, seed, score in [0, 1], parameters, FLOPs an image, seconds.
        summary: one row an arm and reading: mean, 95 % interval, paired difference to the best baseline.
        verdict: what may be said of `das`, in one or two sentences.
    """

    folder: Path
    rows: pd.DataFrame
    summary: pd.DataFrame
    verdict: str


def compare(
    *,
    data: str = "digit-pairs-left",
    task: str | None = None,
    network: str = "tiny-resnet",
    temporal: str = "tsm",
    frames: int = 3,
    policy: PolicySource = None,
    space: str = "affine-one",
    arms: list[str] | None = None,
    readings: list[str] | None = None,
    seed: int = 0,
    seeds: int = 3,
    average_copies: int = 8,
    tune_randaugment: int = 0,
    out: str | None = None,
    resume: bool = False,
    recipe: Recipe = Recipe(),
    architecture: NetworkConfig = NetworkConfig(),
    loading: LoadingConfig = LoadingConfig(),
    cluster: ClusterConfig = ClusterConfig(),
    tracking: TrackingConfig = TrackingConfig(),
) -> Comparison:
    """Compares DAS with 2D augmentation and controls, over several seeds, at equal epochs and at equal compute.

    Args:
        data: data set: a name, or folder:PATH, npz:PATH, voc:PATH.
        task: classification or segmentation; by default the data set's own.
        network: network name, the same in every arm.
        temporal: temporal module of the video arms.
        frames: frames of the videos.
        policy: policy file, or run folder of a search; needed by the arms das, policy-2d and no-shift.
        space: search space that random policies are drawn from.
        arms: arms to train; by default all of them.
        readings: "equal epochs", "equal compute", or both (default).
        seed: the first seed.
        seeds: how many seeds each arm is trained with.
        average_copies: augmented copies for test-time averaging of 2D arms; 0 leaves it out.
        tune_randaugment: samples of an Optuna search for RandAugment's N and M on held-out training images; 0 for
            torchvision's defaults.
        out: run folder; by default runs/compare.
        resume: go on with the run in that folder.
        recipe: training recipe.
        architecture: how the network is built, beside its name.
        loading: how files are read.
        cluster: where it runs.
        tracking: where it is recorded.
    """
    problem = Problem(
        data=data,
        task=task,
        network=network,
        temporal=temporal,
        frames=frames,
        architecture=architecture,
        loading=loading,
    )
    chosen = check_arms(arms)
    wanted = check_readings(readings)
    check_seeds(seeds)
    check_policy(policy)
    check_arms_policy(chosen, policy)
    check_space(space)
    problem.check_names()
    recipe.check(cluster.trial_workers, here=cluster.address is None)
    settings = {
        **problem.plain(), "space": space, "readings": wanted, "seed": seed, "seeds": seeds,
        "average_copies": average_copies, "tune_randaugment": tune_randaugment, "recipe": recipe, "cluster": cluster,
        "tracking": tracking,
    }  # fmt: skip
    check_folder(out, "compare", settings, resume)
    check_trials_fit(cluster)

    from fieldshift.search import load_space

    found, motion_space, dataset = read_policy(policy), load_space(space), problem.check()
    images = images_in_step(len(dataset.train), recipe.batch, cluster.trial_workers)
    chosen = arms_that_build(
        problem, dataset, chosen, found, motion_space, seed=seed, named=arms is not None, images=images
    )
    say_other_length(found if any(ARMS[name].needs_policy for name in chosen) else None, frames)
    config = settings | {"policy": None if found is None else json.loads(found.to_json()), "arms": chosen}
    tags = {"data": data, "network": network}
    with open_session(
        "compare", out=out, resume=resume, config=config, tracking=tracking, tags=tags, dataset=dataset
    ) as session:
        return run_comparison(
            session, problem, dataset, found, motion_space, arms=chosen, readings=wanted,
            seeds=list(range(seed, seed + seeds)), recipe=recipe, cluster=cluster, copies=average_copies,
            tune_randaugment=tune_randaugment,
        )  # fmt: skip


def run_comparison(
    session: Session,
    problem: Problem,
    dataset: DataSet,
    policy: AnyPolicy | None,
    space: Space,
    *,
    arms: list[str],
    readings: list[str],
    seeds: list[int],
    recipe: Recipe,
    cluster: ClusterConfig,
    copies: int,
    tune_randaugment: int = 0,
    search_seconds: float = 0.0,
) -> Comparison:
    """Trains every (arm, reading, seed), or takes them from the finished run; summarises and prints the tables."""
    finished = session.folder.finished_result()
    if finished is None:
        finished = train_arms(
            session, problem, dataset, policy, space, arms=arms, readings=readings, seeds=seeds, recipe=recipe,
            cluster=cluster, copies=copies, tune_randaugment=tune_randaugment, search_seconds=search_seconds,
        )  # fmt: skip
    return shown_comparison(session, finished)


def train_arms(
    session: Session,
    problem: Problem,
    dataset: DataSet,
    policy: AnyPolicy | None,
    space: Space,
    *,
    arms: list[str],
    readings: list[str],
    seeds: list[int],
    recipe: Recipe,
    cluster: ClusterConfig,
    copies: int,
    tune_randaugment: int,
    search_seconds: float,
) -> dict[str, Any]:
    """Trains every trial and writes the result: one row a trial and reading."""
    from fieldshift.training import equal_compute_epochs
    from pipelines.running import run_training_trials, training_trial, with_epochs

    tuned = (
        tuned_randaugment(session, problem, dataset, recipe, cluster, tune_randaugment) if "randaugment" in arms else {}
    )
    cards = {(name, seed): problem.card(dataset, name, policy, space, seed) for name in arms for seed in seeds}
    costs = {name: card_cost(cards[name, seeds[0]]) for name in arms}
    # The compute that the video arms spend, whichever of them are in this comparison.
    video = video_cost(problem, dataset)
    trials: list[Trial] = []
    weights: list[float] = []
    shown_as: list[list[str]] = []
    for name in arms:
        epochs = {"equal epochs": recipe.epochs}
        if not arm_named(name).is_video:
            epochs["equal compute"] = equal_compute_epochs(recipe.epochs, costs[name].flops, video.flops)
        for reading in [reading for reading in epochs if reading in readings] or ["equal epochs"]:
            for seed in seeds:
                overrides = tuned if name == "randaugment" else {}
                trial = training_trial(
                    session, problem, cards[name, seed], with_epochs(recipe, epochs[reading]),
                    reading=reading, seed=seed, data=dataset.digest, copies=copies, augmentation=overrides,
                )  # fmt: skip
                trials.append(trial)
                weights.append(float(epochs[reading] * costs[name].flops))
                shown_as.append(list(readings) if arm_named(name).is_video else [reading])
    results = {row["key"]: row for row in run_training_trials(session, trials, weights, cluster, "comparison")}
    rows = [
        {**results[trial.key], "reading": reading, "search_seconds": search_cost(trial.arm, search_seconds)}
        for trial, shown in zip(trials, shown_as, strict=True)
        if trial.key in results
        for reading in shown
    ]
    return session.folder.write_result(
        {
            "rows": rows,
            "baselines": [name for name in arms if ARMS[name].kind == "baseline"],
            "randaugment": tuned,
            "data": dataset.record(),
        }
    )


def shown_comparison(session: Session, result: dict[str, Any]) -> Comparison:
    """Prints the tables and the verdict of a comparison's result."""
    import pandas as pd

    from fieldshift.report import comparison_sheets, cost_sheets, show, summarise, verdict

    rows = pd.DataFrame(result["rows"]).drop(columns=["history"])
    score_name = str(rows["score_name"].iloc[0])
    summary = summarise(rows, baseline_arms=result["baselines"])
    for sheet in (*comparison_sheets(summary, score_name), *cost_sheets(summary)):
        say()
        show(sheet)
    say()
    sentence = verdict(summary, score_name)
    say(sentence)
    say(f"  {session.path / 'result.json'}")
    return Comparison(session.path, rows, summary, sentence)


def tuned_randaugment(
    session: Session, problem: Problem, dataset: DataSet, recipe: Recipe, cluster: ClusterConfig, samples: int
) -> dict[str, int]:
    """RandAugment's N and M with the best score on a held-out fifth of the training images; the test set is not read."""
    if samples <= 0:
        return {}
    from pipelines.tuning import tune_randaugment

    return tune_randaugment(session, problem, dataset, recipe, cluster, samples)


def search_cost(arm: str, seconds: float) -> float:
    return seconds if ARMS[arm].needs_policy else 0.0


def card_cost(card: NetworkCard) -> NetworkCost:
    from fieldshift.training import network_cost

    return network_cost(card.build(pretrained=False), card.frames, card.channels, card.size)


def video_cost(problem: Problem, dataset: DataSet) -> NetworkCost:
    """What a video arm of this problem costs (the motions themselves have no parameters and few operations)."""
    return card_cost(problem.card(dataset, "replicate", None, None, 0))


def check_arms(arms: list[str] | None) -> list[str]:
    chosen = list(ARMS) if arms is None else list(dict.fromkeys(arms))
    for name in chosen:
        arm_named(name)
    if not chosen:
        raise UserError(f"--arms is empty; give one or more of {', '.join(ARMS)}.")
    return chosen


def arms_that_build(
    problem: Problem,
    dataset: DataSet,
    arms: list[str],
    policy: AnyPolicy | None,
    space: Space,
    *,
    seed: int,
    named: bool,
    images: int,
) -> list[str]:
    """The arms that this network has. Raises UserError for one that was named; others are left out, which is said."""
    kept = []
    for name in arms:
        try:
            problem.checked_card(dataset, name, policy, space, seed, images=images)
        except UserError as error:
            if named or name != "wide-field":
                raise
            say(f"without the arm wide-field: {error}")
        else:
            kept.append(name)
    return kept


def check_readings(readings: list[str] | None) -> list[str]:
    for name in readings or ():
        if name not in READINGS:
            raise unknown_name("reading", name, READINGS)
    return list(readings) if readings else list(READINGS)


def check_seeds(seeds: int) -> None:
    if seeds < 1:
        raise UserError(f"--seeds is {seeds}, but must be at least 1.")
