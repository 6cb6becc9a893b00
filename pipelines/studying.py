"""The main job: search, comparison, frame sweep, receptive fields and report, as named stages that can be resumed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import ClusterConfig, check_fits
from fieldshift.cluster.reach import check_reach
from fieldshift.console import duration, say
from fieldshift.data import LoadingConfig
from fieldshift.errors import UserError, unknown_name
from fieldshift.forms import FORMS, Form, check_form
from fieldshift.networks import NetworkConfig
from fieldshift.readings import READINGS
from fieldshift.run_folder import check_folder, is_finished
from fieldshift.search import SearchConfig
from fieldshift.tracking import TrackingConfig
from fieldshift.training import Recipe, arm_named
from pipelines.alignment import check_alignment
from pipelines.arms import arms_that_build, check_arms, check_forms
from pipelines.comparing import check_seeds
from pipelines.comparison import Comparison, run_comparison
from pipelines.field_records import record_on_trials
from pipelines.fields import FieldResult, run_fields
from pipelines.options import check_space
from pipelines.placement import check_trials_fit, placed, sharing_workers, workers_of_trials
from pipelines.policies import (
    FOLDER,
    SEARCHES,
    ArmPolicies,
    check_searches,
    policies_searched,
    record_of,
    run_searches,
    search_cluster,
)
from pipelines.problem import MOVED_ARMS, Problem, smallest_step
from pipelines.readings import check_copies, check_readings, check_tuning
from pipelines.searching import SearchResult, check_edges, check_frames, space_of_search
from pipelines.session import FailsWithTrials, Session, open_session
from pipelines.summing import record_study
from pipelines.sweeping import FEWEST, FrameSweep, check_counts, run_sweep, swept_arm

if TYPE_CHECKING:
    from fieldshift.data import DataSet
    from fieldshift.folding import AnyPolicy

STAGES = ("search", "compare", "frames", "receptive-field", "report")

# What fits into a quarter of an hour on two cores; `--arms all` has the rest.
STUDY_ARMS = (
    "none", "affine", "randaugment", "das", "replicate", "random-policy", "das-folded", "das-folded+affine",
    "random-policy-folded", "dilated", "dilated+affine",
)  # fmt: skip
STUDY_SEEDS, STUDY_READINGS = 5, READINGS[:2]
STUDY_RECIPE = Recipe(epochs=6)
STUDY_FRAMES, STUDY_STEPS = (1, 3, 5), (3, 5, 7)


@dataclass(frozen=True)
class StudyResult(FailsWithTrials):
    """What a study found; a stage that was not asked for, and not there from before, is None.

    Attributes:
        folder: the run folder, with report.html and the MLflow store.
        policy: the motions that the first seed's search found, as a video where it searched in that form.
        policies: those of the first seed by form.
        search: the search that found `policy`.
        searches: all searches, by form and seed.
        comparison, frames, fields: the results of the stages.
        report: the report's file.
        failed: the trials that failed and why; tables and report are without them.
    """

    folder: Path
    policy: AnyPolicy
    policies: dict[Form, AnyPolicy]
    search: SearchResult
    searches: dict[tuple[Form, int], SearchResult]
    comparison: Comparison | None = None
    frames: FrameSweep | None = None
    fields: FieldResult | None = None
    report: Path | None = None
    failed: dict[str, str] = field(default_factory=dict)


def study(
    *,
    data: str = "digit-pairs-left",
    task: str | None = None,
    network: str = "tiny-resnet",
    temporal: str = "tsm",
    frames: int = 3,
    form: Form | None = None,
    searches: str = "per-seed",
    space: str = "affine-one",
    arms: list[str] | None = None,
    readings: list[str] | None = None,
    frame_counts: list[int] | None = None,
    stages: list[str] | None = None,
    seed: int = 0,
    seeds: int = STUDY_SEEDS,
    frame_seeds: int = 1,
    average_copies: int = 8,
    tune_randaugment: int = 0,
    out: str | None = None,
    resume: bool = False,
    search: SearchConfig = SearchConfig(),
    recipe: Recipe = STUDY_RECIPE,
    architecture: NetworkConfig = NetworkConfig(),
    loading: LoadingConfig = LoadingConfig(),
    cluster: ClusterConfig = ClusterConfig(trials_at_once=2),
    tracking: TrackingConfig = TrackingConfig(),
) -> StudyResult:
    """Runs the whole job: search, compare, frames, receptive-field, report.

    Args:
        data: data set: a name, or folder:PATH, npz:PATH, voc:PATH.
        task: classification or segmentation; by default the data set's own.
        network: network name, the same in search and in every arm.
        temporal: temporal module of the video arms.
        frames: frames of the videos; in the folded form they decide the step between neighbouring frames.
        form: video or folded, to search and compare in one of the forms; by default in both.
        searches: per-seed (a search for every seed), or one (that of the first seed serves all).
        space: search space: a name, or a TOML file.
        arms: arms to compare, or "all"; any arm may be joined with a 2D augmentation, such as das-folded+affine. By
            default none, affine, randaugment, das in both forms, das-folded+affine, their controls and dilated kernels.
        readings: "equal epochs" and "equal compute" by default; "equal compute, search included" trains arms without a
            search longer, by what the dearest search took.
        frame_counts: numbers of frames in the frame sweep, in the folded form those from 3 on; by default 1 3 5, and 3 5 7.
        stages: which stages to run, by default all: search, compare, frames, receptive-field, report.
        seed: the first seed of searches and comparison.
        seeds: how many seeds each arm is trained with.
        frame_seeds: how many seeds each number of frames is trained with.
        average_copies: augmented copies for test-time averaging of arms with a 2D augmentation, which are then judged by it:
            copies + 1 single-frame passes, so a video of T frames has as many views as fit into them, and is judged plain
            where that is one; 0 judges all arms plain.
        tune_randaugment: samples of an Optuna search for N and M of the arm randaugment, each trained for as many epochs as
            the arm; 0 for torchvision's defaults, which arms joined with it (das+randaugment) always have.
        out: run folder; by default runs/study.
        resume: go on with the run in that folder: finished stages and trials are kept.
        search: how the searches are run.
        recipe: training recipe, the same in every arm.
        architecture: how the network is built, beside its name.
        loading: how files are read.
        cluster: where it runs.
        tracking: where it is recorded.
    """
    wanted = check_stages(stages)
    if form is not None:
        check_form(form)
    chosen = study_arms(arms, form, temporal)
    reading = check_readings(readings, STUDY_READINGS)
    counts = check_counts(list(STUDY_FRAMES) if frame_counts is None else frame_counts)
    steps = list(STUDY_STEPS) if frame_counts is None else [count for count in counts if count >= FEWEST]
    check_seeds(seeds)
    check_seeds(frame_seeds)
    check_copies(average_copies)
    check_tuning(tune_randaugment, chosen)
    searched_by = search_cluster(cluster)
    search.check(sharing_workers(searched_by))
    check_space(space)
    check_frames(search, frames)
    check_searches(searches, search, FORMS)
    problem = Problem(
        data=data, task=task, network=network, temporal=temporal, frames=frames, architecture=architecture, loading=loading,
        form=form or "video",
    )  # fmt: skip
    problem.check_names()
    if arms is not None:
        check_forms(chosen, problem)
    recipe.check(sharing_workers(cluster), here=cluster.address is None)
    base = {**problem.plain(), "form": form, "seed": seed, "seeds": seeds, "cluster": cluster, "tracking": tracking}
    searching = {"space": space, "searches": searches, "search": search}
    compared = {
        "space": space, "readings": reading, "recipe": recipe, "average_copies": average_copies,
        "tune_randaugment": tune_randaugment,
    }  # fmt: skip
    swept = {"frame_counts": frame_counts and counts, "frame_seeds": frame_seeds, "recipe": recipe}
    check_folder(out, "study", {**base, **searching, **compared, **swept}, resume)
    if searched_by.trial_workers or cluster.trials_at_once != 0:
        check_reach(cluster, max(searched_by.trial_workers, 1))
    check_fits(cluster, cluster.workers)
    check_trials_fit(cluster)

    from fieldshift.search import load_space
    from pipelines.reporting import write_study_report

    motion_space = load_space(space)
    check_edges(search, motion_space)
    motion_space = space_of_search(motion_space, search)
    dataset = problem.check()
    step = smallest_step(len(dataset.train), recipe.batch, sharing_workers(cluster), recipe.sync_batch_norm)
    searched = smallest_step(
        len(dataset.train) // 2, search.batch, sharing_workers(searched_by), search.like(recipe).sync_batch_norm
    )
    chosen, edges = arms_that_build(
        problem, dataset, chosen, {}, motion_space, seed=seed, named=arms is not None, step=step, searched=searched
    )
    if not edges:
        edges = {problem.form: problem.edges_to_decide(dataset, motion_space, seed, step=searched)}
    if "frames" in wanted and "video" not in edges and not steps:
        raise UserError(
            f"--frame_counts holds {', '.join(map(str, counts))}, but the folded form needs a frame to either side of the "
            "reference; give 3 or more."
        )
    if "frames" in wanted and "video" in edges:
        check_alignment(dataset.task, MOVED_ARMS["video"], None, motion_space, max(counts))
    seed_list = list(range(seed, seed + seeds))
    parts: dict[str, dict[str, Any]] = {
        "search": {**base, **searching},
        "compare": {**base, **compared, "arms": chosen},
        "frames": {**base, **swept},
        "receptive-field": {**base},
    }  # fmt: skip
    config = {**parts["search"], **parts["compare"], **parts["frames"]}
    tags = {"data": data, "network": network, "frames": str(frames), "form": " and ".join(edges)}
    started = time.perf_counter()
    with open_session(
        "study", out=out, resume=resume, config=config, tracking=tracking, tags=tags, dataset=dataset
    ) as session:
        comparison = sweep = fields = report = None
        with placed(cluster, on_ray=needs_ray(session, wanted, cluster)):
            where = f"{motion_space.name} on {data} with {network} + {temporal}, T = {frames}"
            of_each = f"{seeds} seeds" if searches == SEARCHES[0] and seeds > 1 else f"seed {seed}"
            headline(session, "search", f"{where}, in the form {' and '.join(edges)}, {of_each}")
            results = run_searches(
                session.stage(FOLDER, parts["search"]), problem, motion_space, space, search.like(recipe), edges=edges,
                seeds=seed_list if searches == SEARCHES[0] else seed_list[:1], cluster=searched_by, digest=dataset.digest,
            )  # fmt: skip
            policies = ArmPolicies(policies_searched(results, seed_list))
            firsts = {form: results[form, seed] for form in edges}
            save_policies(session.path, firsts)
            # Later stages stand on these very policies: they are part of what those were configured with.
            found = record_of(results)
            policy_part = {"policies": [{name: each[name] for name in ("form", "seed", "policy")} for each in found]}
            if "compare" in wanted:
                headline(session, "compare", f"{len(chosen)} arms, {seeds} seeds, {' and '.join(reading)}")
                comparison = run_comparison(
                    session.stage("compare", {**parts["compare"], **policy_part}), problem, dataset, policies,
                    motion_space, arms=chosen, readings=reading, seeds=seed_list, recipe=recipe, cluster=cluster,
                    copies=average_copies, tune_randaugment=tune_randaugment, searches=found,
                )  # fmt: skip
            if "frames" in wanted:
                lengths: dict[Form, list[int]] = {"video": counts, "folded": steps}
                arms_swept = [
                    swept_arm(problem, dataset, each, policies, seed, lengths[each], recipe)
                    for each in edges
                    if lengths[each]
                ]
                swept_words = "; ".join(f"{one.arm} T = {', '.join(map(str, one.counts))}" for one in arms_swept)
                headline(session, "frames", f"{swept_words}, {frame_seeds} seed(s)")
                sweep = run_sweep(
                    session.stage("frames", {**parts["frames"], **policy_part}), problem, dataset, policies,
                    arms=arms_swept, seeds=seed_list[:frame_seeds], cluster=cluster,
                    known=[] if comparison is None else comparison.rows.to_dict("records"),
                )  # fmt: skip
        first = next(iter(firsts.values()))
        if "receptive-field" in wanted:
            headline(session, "receptive-field", "theoretical, reshaped and effective")
            stage = session.stage("receptive-field", {**parts["receptive-field"], **policy_part})
            fields = run_fields(
                stage, problem, dataset, first.policy, trained_folders(comparison), seed=seed, sweep=of_one_arm(sweep)
            )
            if comparison is not None:
                sheet = fields.table.set_index("network").to_dict("index")
                record_on_trials(session, sheet, comparison.rows.to_dict("records"))
        if "report" in wanted:
            headline(session, "report", "tables and figures")
            report = write_study_report(
                session, problem, dataset, firsts, results, comparison, sweep, fields, seeds=seed_list, recipe=recipe
            )
        seconds = time.perf_counter() - started
        failed = {key: why for part in (comparison, sweep) if part is not None for key, why in part.failed.items()}
        write_summary(session, found, comparison, sweep, fields, report, dataset, seconds, failed)
        files = [session.path / name for name in policy_files(firsts).values()] + ([] if report is None else [report])
        record_study(session, comparison, files)
        say()
        say(f"study finished in {duration(seconds)}")
        if report is not None:
            say(f"  report        {report}")
        for name in policy_files(firsts).values():
            say(f"  policy        {session.path / name}")
        if session.store.uri:
            say(f"  MLflow store  {session.store.uri.partition('?')[0]}   (fieldshift ui --run {session.path})")
        return StudyResult(
            session.path, first.policy, {form: each.policy for form, each in firsts.items()}, first, results, comparison,
            sweep, fields, report, failed,
        )  # fmt: skip


def study_arms(arms: list[str] | None, form: Form | None, temporal: str) -> list[str]:
    """The arms to compare: of one form, or of both. Raises UserError for a named arm of the form that is left out."""
    everything = check_arms(None, form or "video", temporal)
    if form == "video":
        everything = [name for name in everything if arm_named(name).form == "video"]
    if arms == ["all"]:
        return everything
    if arms is None:
        return [name for name in STUDY_ARMS if name.partition("+")[0] in everything]
    chosen = check_arms(arms, form or "video", temporal)
    for name in chosen:
        if form == "video" and arm_named(name).form == "folded":
            raise UserError(f"The arm '{name}' is folded, but --form is video; leave out --form to have both.")
    return chosen


def policy_files(forms: Iterable[Form]) -> dict[Form, str]:
    """The file of each form's policy: policy.json of the first form, which is what a run folder is named for."""
    return {form: "policy.json" if place == 0 else f"policy-{form}.json" for place, form in enumerate(forms)}


def save_policies(folder: Path, found: dict[Form, SearchResult]) -> None:
    for form, name in policy_files(found).items():
        found[form].policy.save(folder / name)


def needs_ray(session: Session, wanted: list[str], cluster: ClusterConfig) -> bool:
    """Whether a stage that is still to be run has workers or trials on Ray."""
    on_ray = {
        "search": workers_of_trials(search_cluster(cluster)) > 0, "compare": workers_of_trials(cluster) > 0,
        "frames": workers_of_trials(cluster) > 0,
    }  # fmt: skip
    return any(on_ray[stage] for stage in on_ray if stage in wanted and not is_kept(session, stage))


def is_kept(session: Session, stage: str) -> bool:
    """Whether an earlier run of this study has finished the stage."""
    folder = FOLDER if stage == "search" else stage
    return session.resume and is_finished(session.path / folder)


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


def of_one_arm(sweep: FrameSweep | None) -> FrameSweep | None:
    """The sweep of its first arm, whose networks' fields are drawn against T."""
    if sweep is None:
        return None
    return replace(sweep, rows=sweep.rows[sweep.rows["arm"] == sweep.rows["arm"].iloc[0]])


def trained_folders(comparison: Comparison | None) -> dict[str, Path]:
    """One trained network of each arm, that of the first seed, for pictures of its effective field."""
    if comparison is None:
        return {}
    first = comparison.rows.drop_duplicates("arm")
    return {str(row["arm"]): Path(str(row["folder"])) for row in first.to_dict("records")}


def write_summary(
    session: Session,
    found: list[dict[str, Any]],
    comparison: Comparison | None,
    sweep: FrameSweep | None,
    fields: FieldResult | None,
    report: Path | None,
    dataset: DataSet,
    seconds: float,
    failed: dict[str, str],
) -> None:
    session.folder.write_result(
        {
            "policy": found[0]["policy"],
            "words": found[0]["words"],
            "searches": found,
            "summary": None if comparison is None else comparison.summary.to_dict("records"),
            "claims": None if comparison is None else comparison.claims.to_dict("records"),
            "verdict": None if comparison is None else comparison.verdict,
            "frames": None if sweep is None else sweep.rows.to_dict("records"),
            "receptive_field": None if fields is None else fields.table.to_dict("records"),
            "report": report,
            "mlflow": session.store.uri,
            "seconds": seconds,
            "data": dataset.record(),
            "failed": failed,
        }
    )
