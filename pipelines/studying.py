"""The main job: search, comparison, frame sweep, receptive fields and report, as named stages that can be resumed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import ClusterConfig, check_fits
from fieldshift.cluster.reach import check_reach
from fieldshift.console import duration, say
from fieldshift.data import LoadingConfig
from fieldshift.errors import UserError, unknown_name
from fieldshift.networks import NetworkConfig
from fieldshift.run_folder import check_folder
from fieldshift.search import SearchConfig
from fieldshift.tracking import TrackingConfig
from fieldshift.training import ARMS, Recipe, check_batch
from pipelines.comparing import Comparison, arms_that_build, check_arms, check_readings, check_seeds, run_comparison
from pipelines.fields import FieldResult, run_fields
from pipelines.options import check_space
from pipelines.placement import check_trials_fit, placed, workers_of_trials
from pipelines.problem import Problem, images_in_step, video_policy
from pipelines.searching import SearchResult, check_edges, check_frames, run_search
from pipelines.session import Session, open_session
from pipelines.sweeping import FrameSweep, check_counts, run_sweep

if TYPE_CHECKING:
    from fieldshift.data import DataSet
    from fieldshift.motions import Policy

STAGES = ("search", "compare", "frames", "receptive-field", "report")

# What fits into a quarter of an hour on two cores; `--arms all` has the rest.
STUDY_ARMS = tuple(name for name in ARMS if name not in {"augmix", "policy-2d"})
STUDY_RECIPE = Recipe(epochs=6)
STUDY_FRAMES = (1, 2, 3, 5)


@dataclass(frozen=True)
class StudyResult:
    """What a study found; a stage that was not asked for, and not there from before, is None.

    Attributes:
        folder: the run folder, with report.html and the MLflow store.
        policy: the motions that were found.
        search, comparison, frames, fields: the results of the stages.
        report: the report's file.
    """

    folder: Path
    policy: Policy
    search: SearchResult
    comparison: Comparison | None = None
    frames: FrameSweep | None = None
    fields: FieldResult | None = None
    report: Path | None = None


def study(
    *,
    data: str = "digit-pairs-left",
    task: str | None = None,
    network: str = "tiny-resnet",
    temporal: str = "tsm",
    frames: int = 3,
    space: str = "affine-one",
    arms: list[str] | None = None,
    readings: list[str] | None = None,
    frame_counts: list[int] | None = None,
    stages: list[str] | None = None,
    seed: int = 0,
    seeds: int = 3,
    frame_seeds: int = 1,
    average_copies: int = 4,
    tune_randaugment: int = 0,
    out: str | None = None,
    resume: bool = False,
    search: SearchConfig = SearchConfig(),
    recipe: Recipe = STUDY_RECIPE,
    architecture: NetworkConfig = NetworkConfig(),
    loading: LoadingConfig = LoadingConfig(),
    cluster: ClusterConfig = ClusterConfig(workers=1, trials_at_once=2),
    tracking: TrackingConfig = TrackingConfig(),
) -> StudyResult:
    """Runs the whole job: search, compare, frames, receptive-field, report.

    Args:
        data: data set: a name, or folder:PATH, npz:PATH, voc:PATH.
        task: classification or segmentation; by default the data set's own.
        network: network name, the same in search and in every arm.
        temporal: temporal module of the video arms.
        frames: frames of the videos.
        space: search space: a name, or a TOML file.
        arms: arms to compare, or "all"; by default all but augmix and policy-2d.
        readings: "equal epochs", "equal compute", or both (default).
        frame_counts: numbers of frames in the frame sweep; by default 1 2 3 5.
        stages: which stages to run, by default all: search, compare, frames, receptive-field, report.
        seed: the search's seed, and the first seed of the comparison.
        seeds: how many seeds each arm is trained with.
        frame_seeds: how many seeds each number of frames is trained with.
        average_copies: augmented copies for test-time averaging of 2D arms; 0 leaves it out.
        tune_randaugment: samples of an Optuna search for RandAugment's N and M; 0 for torchvision's defaults.
        out: run folder; by default runs/study.
        resume: go on with the run in that folder: finished stages and trials are kept.
        search: how the search is run.
        recipe: training recipe, the same in every arm.
        architecture: how the network is built, beside its name.
        loading: how files are read.
        cluster: where it runs.
        tracking: where it is recorded.
    """
    wanted = check_stages(stages)
    chosen = check_arms(list(ARMS) if arms == ["all"] else list(STUDY_ARMS) if arms is None else arms)
    reading = check_readings(readings)
    counts = check_counts(list(STUDY_FRAMES) if frame_counts is None else frame_counts)
    check_seeds(seeds)
    check_seeds(frame_seeds)
    check_batch(search.batch, cluster.workers)
    check_space(space)
    check_frames(search, frames)
    problem = Problem(
        data=data,
        task=task,
        network=network,
        temporal=temporal,
        frames=frames,
        architecture=architecture,
        loading=loading,
    )
    problem.check_names()
    recipe.check(cluster.trial_workers, here=cluster.address is None)
    base = {**problem.plain(), "seed": seed, "cluster": cluster, "tracking": tracking}
    compared = {
        "space": space, "readings": reading, "seeds": seeds, "recipe": recipe, "average_copies": average_copies,
        "tune_randaugment": tune_randaugment,
    }  # fmt: skip
    swept = {"frame_counts": counts, "frame_seeds": frame_seeds, "recipe": recipe}
    check_folder(out, "study", {**base, "search": search, **compared, **swept}, resume)
    if cluster.workers or cluster.trials_at_once != 0:
        check_reach(cluster, max(cluster.workers, cluster.trial_workers))
    check_fits(cluster, cluster.workers)
    check_trials_fit(cluster)

    from fieldshift.motions import Policy
    from fieldshift.search import load_space
    from pipelines.reporting import write_study_report

    motion_space = load_space(space)
    check_edges(search, motion_space)
    dataset = problem.check()
    images = images_in_step(len(dataset.train) // 2, search.batch, cluster.workers)
    edges = problem.edges_to_decide(dataset, motion_space, seed, images=images)
    # The policy is still to be found; what a network can be built of does not depend on which it is.
    any_policy = Policy.replicate(frames)
    images = images_in_step(len(dataset.train), recipe.batch, cluster.trial_workers)
    chosen = arms_that_build(
        problem, dataset, chosen, any_policy, motion_space, seed=seed, named=arms is not None, images=images
    )
    seed_list = list(range(seed, seed + seeds))
    parts: dict[str, dict[str, Any]] = {
        "search": {**base, "space": space, "search": search},
        "compare": {**base, **compared, "arms": chosen},
        "frames": {**base, **swept},
        "receptive-field": {**base},
    }  # fmt: skip
    config = {**parts["search"], **parts["compare"], **parts["frames"]}
    tags = {"data": data, "network": network, "frames": str(frames)}
    started = time.perf_counter()
    with open_session(
        "study", out=out, resume=resume, config=config, tracking=tracking, tags=tags, dataset=dataset
    ) as session:
        comparison = sweep = fields = report = None
        with placed(cluster, on_ray=needs_ray(session, wanted, cluster)):
            headline(session, "search", f"{motion_space.name} on {data} with {network} + {temporal}, T = {frames}")
            found = run_search(
                session.stage("search", parts["search"]),
                problem,
                motion_space,
                space,
                search,
                seed=seed,
                cluster=cluster,
                digest=dataset.digest,
                edges=edges,
            )
            policy = video_policy(found.policy, "A study")
            policy.save(session.path / "policy.json")
            # Later stages stand on this very policy: it is part of what they were configured with.
            policy_part = {"policy": json.loads(found.policy.to_json())}
            if "compare" in wanted:
                headline(session, "compare", f"{len(chosen)} arms, {seeds} seeds, {' and '.join(reading)}")
                comparison = run_comparison(
                    session.stage("compare", {**parts["compare"], **policy_part}), problem, dataset, found.policy,
                    motion_space, arms=chosen, readings=reading, seeds=seed_list, recipe=recipe, cluster=cluster,
                    copies=average_copies, tune_randaugment=tune_randaugment, search_seconds=found.seconds,
                )  # fmt: skip
            if "frames" in wanted:
                headline(session, "frames", f"T = {', '.join(map(str, counts))}, {frame_seeds} seed(s)")
                sweep = run_sweep(
                    session.stage("frames", {**parts["frames"], **policy_part}), problem, dataset, policy,
                    counts=counts, seeds=seed_list[:frame_seeds], recipe=recipe, cluster=cluster,
                    known=known_rows(comparison),
                )  # fmt: skip
        if "receptive-field" in wanted:
            headline(session, "receptive-field", "theoretical, reshaped and effective")
            stage = session.stage("receptive-field", {**parts["receptive-field"], **policy_part})
            fields = run_fields(stage, problem, dataset, policy, trained_folders(comparison), seed=seed, sweep=sweep)
        if "report" in wanted:
            headline(session, "report", "tables and figures")
            report = write_study_report(
                session, problem, dataset, found, comparison, sweep, fields, seeds=seed_list, recipe=recipe
            )
        seconds = time.perf_counter() - started
        write_summary(session, found, comparison, sweep, fields, report, dataset, seconds)
        say()
        say(f"study finished in {duration(seconds)}")
        if report is not None:
            say(f"  report        {report}")
        say(f"  policy        {session.path / 'policy.json'}")
        if session.store.uri:
            say(f"  MLflow store  {session.store.uri.partition('?')[0]}   (fieldshift ui --run {session.path})")
        return StudyResult(session.path, policy, found, comparison, sweep, fields, report)


def needs_ray(session: Session, wanted: list[str], cluster: ClusterConfig) -> bool:
    """Whether a stage that is still to be run has workers or trials on Ray."""
    on_ray = {
        "search": cluster.workers > 0, "compare": workers_of_trials(cluster) > 0, "frames": workers_of_trials(cluster) > 0
    }  # fmt: skip
    return any(on_ray[stage] for stage in on_ray if stage in wanted and not is_kept(session, stage))


def is_kept(session: Session, stage: str) -> bool:
    """Whether an earlier run of this study has finished the stage."""
    return session.resume and (session.path / stage / "result.json").exists()


def headline(session: Session, stage: str, what: str) -> None:
    kept = " (kept from before)" if is_kept(session, stage) else ""
    say()
    say(f"[{STAGES.index(stage) + 1}/{len(STAGES)}] {stage}: {what}{kept}")


def check_stages(stages: list[str] | None) -> list[str]:
    """The stages to run; the search is always among them, since everything else stands on its policy."""
    for name in stages or ():
        if name not in STAGES:
            raise unknown_name("stage", name, STAGES)
    if stages is not None and not stages:
        raise UserError(f"--stages is empty; give one or more of {', '.join(STAGES)}.")
    return [name for name in STAGES if stages is None or name in stages or name == "search"]


def known_rows(comparison: Comparison | None) -> list[dict[str, Any]]:
    """Trials of the comparison that the frame sweep would repeat: the same policy, recipe, seed and frames."""
    if comparison is None:
        return []
    rows = comparison.rows
    same = rows[(rows["arm"] == "das") & (rows["reading"] == rows["reading"].iloc[0])]
    return [{str(key): value for key, value in row.items()} for row in same.to_dict("records")]


def trained_folders(comparison: Comparison | None) -> dict[str, Path]:
    """One trained network of each arm, that of the first seed, for pictures of its effective field."""
    if comparison is None:
        return {}
    first = comparison.rows.drop_duplicates("arm")
    return {str(row["arm"]): Path(str(row["folder"])) for row in first.to_dict("records")}


def write_summary(
    session: Session,
    found: SearchResult,
    comparison: Comparison | None,
    sweep: FrameSweep | None,
    fields: FieldResult | None,
    report: Path | None,
    dataset: DataSet,
    seconds: float,
) -> None:
    session.folder.write_result(
        {
            "policy": json.loads(found.policy.to_json()),
            "words": found.policy.describe(),
            "summary": None if comparison is None else comparison.summary.to_dict("records"),
            "verdict": None if comparison is None else comparison.verdict,
            "frames": None if sweep is None else sweep.rows.to_dict("records"),
            "receptive_field": None if fields is None else fields.table.to_dict("records"),
            "report": report,
            "mlflow": session.store.uri,
            "seconds": seconds,
            "data": dataset.record(),
        }
    )
