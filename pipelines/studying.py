"""The main job: search, comparison, frame sweep, receptive fields and report, as named stages that can be resumed."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import ClusterConfig
from fieldshift.console import duration, say
from fieldshift.experiment import Experiment
from fieldshift.experiment.budget import readings_of
from fieldshift.experiment.placement import placed, workers_of_trials
from fieldshift.experiment.policy_source import file_of_form
from fieldshift.experiment.search_trial import SearchResult
from fieldshift.experiment.session import FailsWithTrials, Session, open_session
from fieldshift.forms import Form, check_form
from fieldshift.run_folder import is_finished
from fieldshift.search import SearchConfig
from fieldshift.training import Recipe
from fieldshift.wording import counted
from pipelines.comparison import Comparison, ComparisonPlan, run_comparison
from pipelines.field_records import record_on_trials
from pipelines.fields import FieldResult, run_fields
from pipelines.policies import FOLDER, SEARCHES, ArmPolicies, record_of, run_searches, search_cluster
from pipelines.study_plan import (
    STAGES,
    STUDY_READINGS,
    STUDY_RECIPE,
    STUDY_SEEDS,
    PreparedStudy,
    StudyPlan,
    check_stages,
    checked_counts,
    prepare_study,
    study_arms,
)
from pipelines.summing import record_study
from pipelines.sweeping import FrameSweep, run_sweep, swept_arm

if TYPE_CHECKING:
    from fieldshift.folding import AnyPolicy


@dataclass(frozen=True)
class StudyResult(FailsWithTrials):
    """The results of a study; a stage that was not asked for, and not there from before, is None.

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

    @property
    def firsts(self) -> dict[Form, SearchResult]:
        """The search with the first seed, by form."""
        found: dict[Form, SearchResult] = {}
        for (form, _), result in self.searches.items():
            found.setdefault(form, result)
        return found

    @property
    def policy_part(self) -> dict[str, Any]:
        """The policies as part of the configuration of later stages, which depend on them."""
        found = record_of(self.searches)
        return {"policies": [{name: each[name] for name in ("form", "seed", "policy")} for each in found]}


def study(  # noqa: PLR0913 - the options of a command
    *,
    form: Form | None = None,
    searches: str = "per-seed",
    space: str = "affine-one",
    arms: list[str] | None = None,
    budgets: list[str] | None = None,
    frame_counts: list[int] | None = None,
    stages: list[str] | None = None,
    seeds: int = STUDY_SEEDS,
    frame_seeds: int = 1,
    tta_copies: int = 8,
    tune_randaugment: int = 0,
    search: SearchConfig = SearchConfig(),
    recipe: Recipe = STUDY_RECIPE,
    cluster: ClusterConfig = ClusterConfig(trials_at_once=2),
    **shared: Any,
) -> StudyResult:
    """Runs the whole job: search, compare, frames, receptive-field, report.

    Args:
        form: video or folded, to search and compare in one of the forms; by default in both.
        searches: per-seed (a search for every seed), or one (the first seed's search is used for all seeds).
        space: search space: a name, or a TOML file.
        arms: arms to compare, or "all"; any arm may be joined with a 2D augmentation, such as das-folded+affine. By
            default none, affine, randaugment, das in both forms, das-folded+affine, their controls and dilated kernels.
        budgets: equal-epochs and equal-compute by default; search-included trains arms without a search longer, by the
            operations of the most expensive search.
        frame_counts: numbers of frames; the folded form uses those of 3 or more. By default 1 3 5 (video) and 3 5 7 (folded).
        stages: stages to run, by default all: search, compare, frames, receptive-field, report.
        seeds: number of seeds for each arm.
        frame_seeds: number of seeds for each number of frames, at most `seeds`.
        tta_copies: augmented copies for test-time augmentation (TTA) of arms with a 2D augmentation, which are then judged by
            the score with TTA: over copies + 1 single-frame passes, or as many T-frame views as fit into these (with one
            view the plain score counts); 0 turns TTA off.
        tune_randaugment: samples of an Optuna search for N and M of the arm randaugment, each trained for as many epochs as
            the arm; 0 uses torchvision's defaults, as arms joined with it (das+randaugment) always do.
        search: settings of the searches.
        recipe: training recipe, the same in every arm.
        cluster: processes and machines of the run.
        shared: the options of `fieldshift.experiment.Experiment`: data, task, network, temporal, frames, seed,
            architecture, loading, tracking, out, resume.
    """
    experiment = Experiment(form=form or "video", cluster=cluster, **shared)
    wanted = check_stages(stages)
    if form is not None:
        check_form(form)
    compared = ComparisonPlan(
        arms=study_arms(arms, form, experiment.temporal),
        readings=readings_of(budgets, STUDY_READINGS),
        seeds=experiment.seeds(seeds),
        recipe=recipe,
        copies=tta_copies,
        tuning_samples=tune_randaugment,
    )
    plan = StudyPlan(
        experiment=experiment,
        form=form,
        stages=wanted,
        named=arms is not None,
        searches=searches,
        space=space,
        search=search,
        frame_counts=checked_counts(frame_counts),
        frame_seeds=frame_seeds,
        comparison=compared,
    )
    plan.check()
    prepared = prepare_study(plan)
    tags = {
        "data": experiment.data,
        "network": experiment.network,
        "frames": str(experiment.frames),
        "form": " and ".join(prepared.edges),
    }
    with open_session("study", experiment, config=prepared.config, tags=tags, dataset=prepared.dataset) as session:
        return run_stages(session, prepared)


def run_stages(session: Session, study: PreparedStudy) -> StudyResult:
    """Runs the stages asked for, or takes finished ones from the folder; prints, records and returns their results."""
    started = time.perf_counter()
    stages, cluster = study.plan.stages, study.experiment.cluster
    if cluster.address is None and not session.resume:
        from pipelines.estimating import estimated_seconds, roughly

        say(f"estimated time: {roughly(estimated_seconds(study))}, from the speed of a training step here")
    with placed(cluster, on_ray=needs_ray(session, stages, cluster)):
        found = search_stage(session, study)
        if "compare" in stages:
            found = replace(found, comparison=comparison_stage(session, study, found))
        if "frames" in stages:
            found = replace(found, frames=frames_stage(session, study, found))
    if "receptive-field" in stages:
        found = replace(found, fields=fields_stage(session, study, found))
    parts = (found.comparison, found.frames)
    found = replace(found, failed={key: why for part in parts if part is not None for key, why in part.failed.items()})
    if "report" in stages:
        from pipelines.reporting import write_study_report

        headline(session, "report", "tables and figures")
        found = replace(found, report=write_study_report(session, study, found))
    seconds = time.perf_counter() - started
    write_summary(session, study, found, seconds)
    policies = [session.path / name for name in policy_files(found.policies).values()]
    record_study(session, found.comparison, policies + ([] if found.report is None else [found.report]))
    say()
    if found.comparison is not None and found.comparison.answers.rows:
        from fieldshift.report import show

        show(found.comparison.answers)
    say(f"study finished in {duration(seconds)}")
    if found.report is not None:
        say(f"  report        {found.report}")
    for file in policies:
        say(f"  policy        {file}")
    if session.store.uri:
        address = session.store.uri.partition("?")[0]
        shown = session.path if session.store.is_own else address
        say(f"  MLflow store  {address}   (fieldshift ui --run {shlex.quote(str(shown))})")
    return found


def search_stage(session: Session, study: PreparedStudy) -> StudyResult:
    """Searches in every form and with every seed, and writes the first seed's policies into the study's folder."""
    plan, experiment = study.plan, study.experiment
    seeds = len(plan.comparison.seeds)
    where = f"{study.space.name} on {experiment.data} with {experiment.network} + {experiment.temporal}"
    of_each = f"{seeds} seeds" if plan.searches == SEARCHES[0] and seeds > 1 else f"seed {experiment.seed}"
    forms = f"{' and '.join(study.edges)} form{'s' * (len(study.edges) > 1)}"
    headline(session, "search", f"{where}, T = {experiment.frames}, {forms}, {of_each}")
    results = run_searches(
        session.stage(FOLDER, study.settings["search"]),
        replace(experiment, cluster=search_cluster(experiment.cluster)),
        study.space,
        plan.search.like(plan.comparison.recipe),
        space_name=plan.space,
        edges=study.edges,
        seeds=study.searched_seeds,
        digest=study.dataset.digest,
    )
    first = next(iter(results.values()))
    found = StudyResult(session.path, first.policy, {}, first, results)
    found = replace(found, policies={form: each.policy for form, each in found.firsts.items()})
    for form, name in policy_files(found.policies).items():
        found.policies[form].save(session.path / name)
    return found


def comparison_stage(session: Session, study: PreparedStudy, found: StudyResult) -> Comparison:
    """Compares the arms that can be built."""
    plan = replace(study.plan.comparison, arms=study.arms)
    headline(
        session,
        "compare",
        f"{counted(len(plan.arms), 'arm')}, {counted(len(plan.seeds), 'seed')}, {' and '.join(plan.readings)}",
    )
    stage = session.stage("compare", {**study.settings["compare"], **found.policy_part})
    policies, searches = ArmPolicies.searched(found.searches, plan.seeds), record_of(found.searches)
    return run_comparison(stage, study.experiment, study.dataset, plan, policies, study.space, searches)


def frames_stage(session: Session, study: PreparedStudy, found: StudyResult) -> FrameSweep:
    """Trains the found policies with other numbers of frames."""
    plan, experiment = study.plan, study.experiment
    policies = ArmPolicies.searched(found.searches, plan.comparison.seeds)
    arms = [
        swept_arm(experiment, study.dataset, form, policies, plan.counts[form], plan.comparison.recipe)
        for form in study.edges
        if plan.counts[form]
    ]
    words = "; ".join(f"{swept.arm} T = {', '.join(map(str, swept.counts))}" for swept in arms)
    headline(session, "frames", f"{words}, {counted(plan.frame_seeds, 'seed')}")
    return run_sweep(
        session.stage("frames", {**study.settings["frames"], **found.policy_part}),
        experiment,
        study.dataset,
        policies,
        arms=arms,
        seeds=plan.comparison.seeds[: plan.frame_seeds],
        known=[] if found.comparison is None else found.comparison.rows.to_dict("records"),
    )


def fields_stage(session: Session, study: PreparedStudy, found: StudyResult) -> FieldResult:
    """Measures the receptive fields of one trained network per arm, and of the networks of the frame sweep."""
    headline(session, "receptive-field", "theoretical, reshaped and effective")
    stage = session.stage("receptive-field", {**study.settings["receptive-field"], **found.policy_part})
    trained = {} if found.comparison is None else found.comparison.trained
    fields = run_fields(stage, study.experiment, study.dataset, found.policy, trained, sweep=of_one_arm(found.frames))
    if found.comparison is not None:
        sheet = fields.table.set_index("network").to_dict("index")
        record_on_trials(session, sheet, found.comparison.rows.to_dict("records"))
    return fields


def policy_files(forms: Iterable[Form]) -> dict[Form, str]:
    """The file of each form's policy: policy.json of the first form, which commands read from a run folder."""
    return {form: "policy.json" if place == 0 else file_of_form(form) for place, form in enumerate(forms)}


def needs_ray(session: Session, wanted: list[str], cluster: ClusterConfig) -> bool:
    """Returns whether a stage that is still to be run has workers or trials on Ray."""
    searching = search_cluster(cluster)
    on_ray = {"search": searching, "compare": cluster, "frames": cluster}
    return any(
        workers_of_trials(on_ray[stage]) > 0 for stage in on_ray if stage in wanted and not is_kept(session, stage)
    )


def is_kept(session: Session, stage: str) -> bool:
    """Returns whether an earlier run of this study has finished the stage."""
    folder = FOLDER if stage == "search" else stage
    return session.resume and is_finished(session.path / folder)


def headline(session: Session, stage: str, what: str) -> None:
    kept = " (kept from before)" if is_kept(session, stage) else ""
    say()
    say(f"[{STAGES.index(stage) + 1}/{len(STAGES)}] {stage}: {what}{kept}")


def of_one_arm(sweep: FrameSweep | None) -> FrameSweep | None:
    """The sweep of its first arm, whose networks' fields are drawn against T."""
    if sweep is None:
        return None
    return replace(sweep, rows=sweep.rows[sweep.rows["arm"] == sweep.rows["arm"].iloc[0]])


def write_summary(session: Session, study: PreparedStudy, found: StudyResult, seconds: float) -> None:
    """Writes the study's result.json."""
    searches, comparison = record_of(found.searches), found.comparison
    session.folder.write_result(
        {
            "policy": searches[0]["policy"],
            "words": searches[0]["words"],
            "searches": searches,
            "summary": None if comparison is None else comparison.summary.to_dict("records"),
            "claims": None if comparison is None else comparison.claims.to_dict("records"),
            "verdict": None if comparison is None else comparison.verdict,
            "frames": None if found.frames is None else found.frames.rows.to_dict("records"),
            "receptive_field": None if found.fields is None else found.fields.table.to_dict("records"),
            "report": found.report,
            "mlflow": session.store.uri,
            "seconds": seconds,
            "data": study.dataset.record(),
            "failed": found.failed,
        }
    )
