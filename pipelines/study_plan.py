"""The plan of a study: its options, checked with and without the data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import check_fits
from fieldshift.cluster.reach import check_reach
from fieldshift.errors import UserError, unknown_name
from fieldshift.experiment import Experiment
from fieldshift.experiment.alignment import check_alignment
from fieldshift.experiment.budget import check_tuning
from fieldshift.experiment.cards import MOVED_ARMS, edges_to_decide, note_short_search, search_step, training_step
from fieldshift.experiment.placement import check_trials_fit, sharing_workers
from fieldshift.experiment.search_trial import check_frames, note_frames, space_of_search
from fieldshift.forms import FORMS, Form
from fieldshift.readings import READINGS
from fieldshift.run_folder import check_folder
from fieldshift.search import SearchConfig
from fieldshift.training import Recipe, arm_named
from pipelines.arms import arms_that_build, check_arms, check_forms
from pipelines.comparison import ComparisonPlan
from pipelines.options import check_copies, check_space
from pipelines.policies import SEARCHES, check_searches, search_cluster
from pipelines.sweeping import FEWEST, check_counts

if TYPE_CHECKING:
    from fieldshift.data import DataSet
    from fieldshift.search import Space

STAGES = ("search", "compare", "frames", "receptive-field", "report")

# Sized for a quarter of an hour on two cores; `--arms all` trains the others too.
STUDY_ARMS = (
    "none",
    "affine",
    "randaugment",
    "das",
    "replicate",
    "random-policy",
    "das-folded",
    "das-folded+affine",
    "random-policy-folded",
    "dilated",
    "dilated+affine",
)
STUDY_SEEDS, STUDY_READINGS = 5, READINGS[:2]
STUDY_RECIPE = Recipe(epochs=6)
STUDY_FRAMES, STUDY_STEPS = (1, 3, 5), (3, 5, 7)


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """A study's options.

    Attributes:
        experiment: the shared options; its form is the one asked for, video where both are.
        form: the form asked for, None for both.
        stages: stages to run.
        named: whether the arms were named, so that one that cannot be built is an error.
        searches: per-seed or one.
        space: name or file of the search space.
        search: settings of the searches.
        frame_counts: numbers of frames asked for, None for the default ones.
        frame_seeds: number of seeds of the frame sweep.
        comparison: settings of the comparison.
    """

    experiment: Experiment
    form: Form | None
    stages: list[str]
    named: bool
    searches: str
    space: str
    search: SearchConfig
    frame_counts: list[int] | None
    frame_seeds: int
    comparison: ComparisonPlan

    @property
    def counts(self) -> dict[Form, list[int]]:
        """Numbers of frames of the sweep in each form."""
        if self.frame_counts is None:
            return {"video": list(STUDY_FRAMES), "folded": list(STUDY_STEPS)}
        return {"video": self.frame_counts, "folded": [count for count in self.frame_counts if count >= FEWEST]}

    @property
    def workers(self) -> int:
        """Number of workers that share the batches of one training."""
        return sharing_workers(self.experiment.cluster)

    @property
    def search_workers(self) -> int:
        """Number of workers that share the batches of one search."""
        return sharing_workers(search_cluster(self.experiment.cluster))

    def settings(self, arms: list[str] | None = None) -> dict[str, dict[str, Any]]:
        """The configuration of every stage by its name; `arms` are the arms that can be built, once they are known."""
        plan, experiment = self.comparison, self.experiment
        base = experiment.settings(form=self.form, seeds=len(plan.seeds))
        compared = {
            "space": self.space,
            "readings": plan.readings,
            "recipe": plan.recipe,
            "average_copies": plan.copies,
            "tune_randaugment": plan.tuning_samples,
        }
        swept = {"frame_counts": self.frame_counts, "frame_seeds": self.frame_seeds, "recipe": plan.recipe}
        return {
            "search": {**base, "space": self.space, "searches": self.searches, "search": self.search.record()},
            "compare": {**base, **compared, **({} if arms is None else {"arms": arms})},
            "frames": {**base, **swept},
            "receptive-field": base,
        }

    def check(self) -> None:
        """Checks all options that can be checked without the data. Raises UserError."""
        experiment, plan, cluster = self.experiment, self.comparison, self.experiment.cluster
        if self.frame_seeds < 1:
            raise UserError(f"--frame_seeds is {self.frame_seeds}, but must be at least 1.")
        if self.frame_seeds > len(plan.seeds):
            raise UserError(
                f"--frame_seeds is {self.frame_seeds}, but the frame sweep uses seeds of the comparison, and --seeds is "
                f"{len(plan.seeds)}; give --frame_seeds {len(plan.seeds)} or fewer, or more --seeds."
            )
        if self.form == "folded" and self.frame_counts is not None and min(self.frame_counts) < FEWEST:
            raise UserError(
                f"--frame_counts holds {min(self.frame_counts)}, but --form folded needs a frame to either side of the "
                f"reference; give {FEWEST} or more."
            )
        check_copies(plan.copies)
        check_tuning(plan.tuning_samples, plan.arms)
        self.search.check(self.search_workers, plan.recipe)
        check_space(self.space)
        check_frames(self.search, experiment.frames)
        check_searches(self.searches, self.search, FORMS)
        experiment.check_names()
        if self.named:
            check_forms(plan.arms, experiment)
        plan.recipe.check(self.workers, here=cluster.address is None, recompute=experiment.architecture.recompute)
        check_folder(experiment.out, "study", whole(self.settings()), experiment.resume)
        searched_by = search_cluster(cluster)
        if searched_by.trial_workers or cluster.trials_at_once != 0:
            check_reach(cluster, max(searched_by.trial_workers, 1))
        if cluster.workers:
            check_fits(cluster, cluster.workers)
        is_used = cluster.trials_at_once == 0 and searched_by.trials_at_once != 0  # by the searches alone
        trials = replace(cluster, workers=0) if cluster.min_workers is None else cluster
        check_trials_fit(replace(trials, address=None, storage=None) if is_used else trials)


@dataclass(frozen=True, kw_only=True)
class PreparedStudy:
    """A study on its data, checked, before any long work.

    Attributes:
        plan: the options.
        dataset: the data.
        space: the search space, with as many edges per node as the searches keep.
        arms: the arms that can be built.
        edges: number of edges to decide in each form that is searched.
        settings: configuration of every stage by its name.
    """

    plan: StudyPlan
    dataset: DataSet
    space: Space
    arms: list[str]
    edges: dict[Form, int]
    settings: dict[str, dict[str, Any]]

    @property
    def experiment(self) -> Experiment:
        return self.plan.experiment

    @property
    def searched_seeds(self) -> list[int]:
        """Seeds of the searches: every seed of the comparison, or the first one."""
        seeds = self.plan.comparison.seeds
        return seeds if self.plan.searches == SEARCHES[0] else seeds[:1]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the whole study."""
        return whole(self.settings)


def whole(settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The configurations of all stages as one."""
    return {name: value for stage in settings.values() for name, value in stage.items()}


def prepare_study(plan: StudyPlan) -> PreparedStudy:
    """Loads the data and checks what depends on them. Raises UserError before any long work."""
    from fieldshift.search import load_space

    experiment, search, recipe = plan.experiment, plan.search, plan.comparison.recipe
    space = load_space(plan.space)
    space.check_kept(search.edges_per_node)
    note_frames(space, experiment.frames)
    space = space_of_search(space, search)
    dataset = experiment.checked_dataset(recipe, search)
    note_short_search(dataset, search.like(recipe))
    searched = search_step(dataset, search.like(recipe), plan.search_workers)
    arms, edges = arms_that_build(
        experiment,
        dataset,
        plan.comparison.arms,
        {},
        space,
        named=plan.named,
        step=training_step(dataset, recipe, plan.workers),
        searched=searched,
    )
    if not edges:
        edges = {experiment.form: edges_to_decide(experiment, dataset, space, step=searched)}
    if "frames" in plan.stages:
        check_sweep(plan, dataset, space, edges)
    return PreparedStudy(plan=plan, dataset=dataset, space=space, arms=arms, edges=edges, settings=plan.settings(arms))


def check_sweep(plan: StudyPlan, dataset: DataSet, space: Space, edges: dict[Form, int]) -> None:
    """Raises UserError where the frame sweep has no numbers of frames for a form that is searched, or cannot align maps."""
    counts = plan.counts
    if "video" not in edges and not counts["folded"]:
        raise UserError(
            f"--frame_counts holds {', '.join(map(str, counts['video']))}, but the folded form needs a frame to either side "
            "of the reference; give 3 or more."
        )
    if "video" in edges:
        check_alignment(dataset.task, MOVED_ARMS["video"], None, space, max(counts["video"]))


def study_arms(arms: list[str] | None, form: Form | None, temporal: str) -> list[str]:
    """The arms to compare: of one form, or of both. Raises UserError for a named arm of another form."""
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


def check_stages(stages: list[str] | None) -> list[str]:
    """The stages to run; the search is always among them, since all other stages use its policy."""
    for name in stages or ():
        if name not in STAGES:
            raise unknown_name("stage", name, STAGES)
    if stages is not None and not stages:
        raise UserError(f"--stages is empty; give one or more of {', '.join(STAGES)}.")
    return [name for name in STAGES if stages is None or name in stages or name == "search"]


def checked_counts(frame_counts: list[int] | None) -> list[int] | None:
    """The numbers of frames asked for, sorted. Raises UserError for one that no video has."""
    return None if frame_counts is None else check_counts(frame_counts)
