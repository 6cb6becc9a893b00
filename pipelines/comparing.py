"""The comparison: every arm on the same data, network and recipe, at equal epochs and at equal compute."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import ClusterConfig
from fieldshift.console import say
from fieldshift.data import LoadingConfig
from fieldshift.errors import UserError, unknown_name
from fieldshift.forms import Form
from fieldshift.networks import NetworkConfig
from fieldshift.run_folder import check_folder
from fieldshift.search import SearchConfig
from fieldshift.tracking import TrackingConfig
from fieldshift.training import Recipe, arm_named, check_batch
from pipelines.arms import arms_that_build, check_arms, check_forms, given_forms, needs, searched_forms
from pipelines.options import check_policy, check_space
from pipelines.placement import check_trials_fit
from pipelines.policies import (
    FOLDER,
    SEARCHES,
    ArmPolicies,
    check_searches,
    given_policies,
    policies_given,
    policies_searched,
    record_of,
    run_searches,
    settings_of,
)
from pipelines.problem import PolicySource, Problem, images_in_step
from pipelines.searching import check_edges, check_frames, space_of_search
from pipelines.session import Session, open_session, say_failed

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
        rows: one row per trial and reading: arm, seed, score in [0, 1], parameters, FLOPs per image, seconds.
        summary: one row per arm and reading: mean, 95 % interval, paired difference to the best baseline.
        verdict: what may be said of `das`, `das-folded` and their joins, a line per reading and method.
        claims: the comparisons that the verdict speaks of, one row each, with p corrected for their number.
        failed: the trials that failed and why; the tables are without them.
    """

    folder: Path
    rows: pd.DataFrame
    summary: pd.DataFrame
    verdict: str
    claims: pd.DataFrame
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def exit_status(self) -> int:
        return int(bool(self.failed))


def compare(
    *,
    data: str = "digit-pairs-left",
    task: str | None = None,
    network: str = "tiny-resnet",
    temporal: str = "tsm",
    frames: int = 3,
    form: Form = "video",
    policy: PolicySource = None,
    folded_policy: PolicySource = None,
    searches: str | None = None,
    space: str = "affine-one",
    arms: list[str] | None = None,
    readings: list[str] | None = None,
    seed: int = 0,
    seeds: int = 3,
    average_copies: int = 8,
    tune_randaugment: int = 0,
    out: str | None = None,
    resume: bool = False,
    search: SearchConfig = SearchConfig(),
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
        frames: frames of the videos; in the folded form they decide the step between neighbouring frames.
        form: video, or folded: das then means das-folded, and so on for the arms that have both forms.
        policy: policy file, or run folder of a search, for the arms of both forms; by default the comparison searches.
        folded_policy: a policy of their own for the arms of the folded form.
        searches: where no policy is given: per-seed (default), a search for every seed, or one, that of the first seed for all.
        space: search space; random policies are drawn from it too.
        arms: arms to train; by default all of them. Any arm may be joined with a 2D augmentation, such as
            das-folded+affine.
        readings: "equal epochs", "equal compute", or both (default).
        seed: the first seed.
        seeds: how many seeds each arm is trained with.
        average_copies: augmented copies for test-time averaging of arms that augment; 0 leaves it out.
        tune_randaugment: samples of an Optuna search for RandAugment's N and M on held-out training images; 0 for
            torchvision's defaults.
        out: run folder; by default runs/compare.
        resume: go on with the run in that folder.
        search: how the searches are run.
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
        form=form,
    )
    chosen = check_arms(arms, form, temporal)
    wanted = check_readings(readings)
    check_seeds(seeds)
    check_policy(policy)
    check_policy(folded_policy)
    forms = searched_forms(chosen, given_forms(policy, folded_policy))
    searching = check_searches(searches, search, forms)
    check_space(space)
    problem.check_names()
    if arms is not None:
        check_forms(chosen, problem)
    if forms:
        check_frames(search, frames)
        check_batch(search.batch, cluster.trial_workers)
    recipe.check(cluster.trial_workers, here=cluster.address is None)
    settings = {
        **problem.plain(), "space": space, "readings": wanted, "seed": seed, "seeds": seeds,
        "average_copies": average_copies, "tune_randaugment": tune_randaugment, "recipe": recipe, "cluster": cluster,
        "tracking": tracking, **settings_of(searching, search),
    }  # fmt: skip
    check_folder(out, "compare", settings, resume)
    check_trials_fit(cluster)

    from fieldshift.search import load_space

    given, motion_space, dataset = given_policies(policy, folded_policy), load_space(space), problem.check()
    if forms:
        check_edges(search, motion_space)
    motion_space = space_of_search(motion_space, search, list(given.values()))
    chosen, edges = arms_that_build(
        problem, dataset, chosen, given, motion_space, seed=seed, named=arms is not None,
        images=images_in_step(len(dataset.train), recipe.batch, cluster.trial_workers),
        searched=images_in_step(len(dataset.train) // 2, search.batch, cluster.trial_workers),
    )  # fmt: skip
    read = {form: each for form, each in given.items() if any(needs(name, form) for name in chosen)}
    config = settings | {
        "policy": plain_policy(given.get("video")), "folded_policy": plain_policy(given.get("folded")), "arms": chosen
    }  # fmt: skip
    tags = {"data": data, "network": network, "form": form}
    seed_list = list(range(seed, seed + seeds))
    with open_session(
        "compare", out=out, resume=resume, config=config, tracking=tracking, tags=tags, dataset=dataset
    ) as session:
        finished = session.folder.finished_result()
        if finished is not None:
            return shown_comparison(session, finished)
        policies, found = policies_given(read, seed_list, frames), []
        if edges:
            stage = session.stage(FOLDER, settings)
            results = run_searches(
                stage, problem, motion_space, space, search.like(recipe), edges=edges, cluster=cluster, digest=dataset.digest,
                seeds=seed_list if searching == SEARCHES[0] else seed_list[:1],
            )  # fmt: skip
            policies |= policies_searched(results, seed_list)
            found = record_of(results)
        return run_comparison(
            session, problem, dataset, ArmPolicies(policies), motion_space, arms=chosen, readings=wanted, seeds=seed_list,
            recipe=recipe, cluster=cluster, copies=average_copies, tune_randaugment=tune_randaugment, searches=found,
        )  # fmt: skip


def run_comparison(
    session: Session,
    problem: Problem,
    dataset: DataSet,
    policies: ArmPolicies,
    space: Space,
    *,
    arms: list[str],
    readings: list[str],
    seeds: list[int],
    recipe: Recipe,
    cluster: ClusterConfig,
    copies: int,
    tune_randaugment: int = 0,
    searches: list[dict[str, Any]] | None = None,
) -> Comparison:
    """Trains every (arm, reading, seed), or takes them from the finished run; summarises and prints the tables."""
    finished = session.folder.finished_result()
    if finished is None:
        finished = train_arms(
            session, problem, dataset, policies, space, arms=arms, readings=readings, seeds=seeds, recipe=recipe,
            cluster=cluster, copies=copies, tune_randaugment=tune_randaugment, searches=searches or [],
        )  # fmt: skip
    return shown_comparison(session, finished)


def train_arms(
    session: Session,
    problem: Problem,
    dataset: DataSet,
    policies: ArmPolicies,
    space: Space,
    *,
    arms: list[str],
    readings: list[str],
    seeds: list[int],
    recipe: Recipe,
    cluster: ClusterConfig,
    copies: int,
    tune_randaugment: int,
    searches: list[dict[str, Any]],
) -> dict[str, Any]:
    """Trains every trial and writes the result: one row per trial and reading."""
    from fieldshift.training import equal_compute_epochs
    from pipelines.running import run_training_trials, training_trial, with_epochs

    tuned = (
        tuned_randaugment(session, problem, dataset, recipe, cluster, tune_randaugment) if "randaugment" in arms else {}
    )
    cards = {
        (name, seed): problem.card(dataset, name, policies.policy(name, seed), space, seed)
        for name in arms
        for seed in seeds
    }
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
        {**results[trial.key], "reading": reading, **search_columns(policies, trial.arm, trial.seed)}
        for trial, shown in zip(trials, shown_as, strict=True)
        if trial.key in results
        for reading in shown
    ]
    return session.folder.write_result(
        {
            "rows": rows,
            "baselines": [name for name in arms if arm_named(name).kind == "baseline"],
            "searches": searches,
            "randaugment": tuned,
            "data": dataset.record(),
            "failed": session.failed,
        }
    )


def shown_comparison(session: Session, result: dict[str, Any]) -> Comparison:
    """Prints the tables and the verdict of a comparison's result."""
    import pandas as pd

    from fieldshift.report import claims, comparison_sheets, cost_sheets, show, summarise, verdict

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
    failed = result.get("failed", {})
    say_failed(failed)
    return Comparison(session.path, rows, summary, sentence, claims(summary), failed)


def tuned_randaugment(
    session: Session, problem: Problem, dataset: DataSet, recipe: Recipe, cluster: ClusterConfig, samples: int
) -> dict[str, int]:
    """RandAugment's N and M with the best score on a held-out fifth of the training images; the test set is not read."""
    if samples <= 0:
        return {}
    from pipelines.tuning import tune_randaugment

    return tune_randaugment(session, problem, dataset, recipe, cluster, samples)


def search_columns(policies: ArmPolicies, arm: str, seed: int) -> dict[str, Any]:
    """Where the motions of a row are from, and the seconds of the search that found them."""
    found = policies.of(arm, seed)
    return {"search_seconds": 0.0 if found is None else found.seconds, "motions": "" if found is None else found.source}


def plain_policy(policy: AnyPolicy | None) -> dict[str, Any] | None:
    return None if policy is None else json.loads(policy.to_json())


def card_cost(card: NetworkCard) -> NetworkCost:
    from fieldshift.training import network_cost

    return network_cost(card.build(pretrained=False), card.frames, card.channels, card.size)


def video_cost(problem: Problem, dataset: DataSet) -> NetworkCost:
    """What a video arm of this problem costs (the motions themselves have no parameters and few operations)."""
    return card_cost(problem.card(dataset, "replicate", None, None, 0))


def check_readings(readings: list[str] | None) -> list[str]:
    for name in readings or ():
        if name not in READINGS:
            raise unknown_name("reading", name, READINGS)
    return list(readings) if readings else list(READINGS)


def check_seeds(seeds: int) -> None:
    if seeds < 1:
        raise UserError(f"--seeds is {seeds}, but must be at least 1.")
