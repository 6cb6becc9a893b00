"""The search for the motions that serve a network best on a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import check_fits, run_workers
from fieldshift.console import duration, progress, say
from fieldshift.errors import UserError
from fieldshift.experiment import Experiment
from fieldshift.experiment.alignment import NoAlignmentError, check_alignment
from fieldshift.experiment.cards import MOVED_ARMS, edges_to_decide, search_step
from fieldshift.experiment.labels import run_name
from fieldshift.experiment.placement import placed
from fieldshift.experiment.search_trial import (
    describe_space,
    number_of_passes,
    pass_note,
    run_search_trial,
    search_payload,
)
from fieldshift.experiment.session import Session, open_session
from fieldshift.run_folder import check_folder
from fieldshift.search import SearchConfig
from pipelines.options import check_space
from pipelines.pages import search_view
from pipelines.search_records import metrics_of, pass_metrics, record_found, search_labels

if TYPE_CHECKING:
    import pandas as pd

    from fieldshift.folding import AnyPolicy
    from fieldshift.search import Space


@dataclass(frozen=True)
class SearchResult:
    """The results of a search.

    Attributes:
        folder: the run folder, with policy.json.
        policy: the motions.
        history: one row per pass over the halves of the training set.
        decisions: the decisions of the selection, in order, with the value of every candidate.
        seconds: time spent.
    """

    folder: Path
    policy: AnyPolicy
    history: pd.DataFrame
    decisions: list[dict[str, Any]]
    seconds: float


def search(*, space: str = "affine-one", search: SearchConfig = SearchConfig(), **shared: Any) -> SearchResult:
    """Searches the motions that serve a network best (Differentiable Augmentation Search); the test set is not read.

    The same seed finds the same policy: it decides magnitudes, halves, weights and order.

    Args:
        space: search space: a name, or a TOML file.
        search: settings of the search.
        shared: the options of `fieldshift.experiment.Experiment`: data, task, network, temporal, frames, form, seed,
            architecture, loading, cluster, tracking, out, resume.
    """
    experiment = Experiment(**shared)
    check_space(space)
    check_frames(search, experiment.frames)
    cluster = experiment.cluster
    search.check(cluster.workers)
    experiment.check_names()
    config = experiment.settings(space=space, search=search.record())
    check_folder(experiment.out, "search", config, experiment.resume)
    check_fits(cluster, cluster.min_workers or cluster.workers)

    from fieldshift.search import load_space

    motion_space, dataset = load_space(space), experiment.checked_dataset()
    check_edges(search, motion_space)
    step = search_step(dataset, search, cluster.workers)
    edges = edges_to_decide(experiment, dataset, motion_space, step=step, order=search.order)
    try:
        moved = MOVED_ARMS[experiment.form]
        check_alignment(dataset.task, moved, None, space_of_search(motion_space, search), experiment.frames)
    except NoAlignmentError as error:
        say(f"note: {error}")
    tags = {
        "data": experiment.data,
        "network": experiment.network,
        "space": space,
        "seed": str(experiment.seed),
        "form": experiment.form,
    }
    with open_session("search", experiment, config=config, tags=tags, dataset=dataset) as session:
        return run_search(
            session, experiment, motion_space, search, space_name=space, edges=edges, digest=dataset.digest
        )


def check_frames(search: SearchConfig, frames: int) -> None:
    """Raises UserError where a search has too few frames to distinguish motions, or two different numbers of frames."""
    if frames < 2:
        raise UserError(
            f"--frames is {frames}, but all motions of a video of one frame are alike; search with 2 or more."
        )
    if search.frames not in (None, frames):
        raise UserError(f"--search.frames is {search.frames} and --frames is {frames}; give --frames alone.")


def check_edges(search: SearchConfig, space: Space) -> None:
    """Raises UserError where more edges are to be kept than a node of the space has."""
    incoming = space.inputs + space.nodes - 1
    if search.edges_per_node is not None and search.edges_per_node > incoming:
        raise UserError(
            f"--search.edges_per_node is {search.edges_per_node}, but no node of {space.name} has more than {incoming} edge(s)."
        )


def space_of_search(space: Space, search: SearchConfig, given: Sequence[AnyPolicy] = ()) -> Space:
    """The space with as many edges per node as the searches keep, or as the given policy of this space was found with.

    Random policies are drawn from it, so that they have the size of the policies that they are compared with.
    """
    kept = search.edges_per_node
    for policy in given:
        settings = policy.found.get("settings")
        if kept is None and policy.found.get("space") == space.name and isinstance(settings, dict):
            kept = settings.get("edges_per_node")
    return space.with_changes(edges_per_node=kept) if isinstance(kept, int) else space


def run_search(
    session: Session,
    experiment: Experiment,
    space: Space,
    config: SearchConfig,
    *,
    space_name: str,
    edges: int,
    digest: str,
) -> SearchResult:
    """Runs the search through Ray Train (or in-process), shows and records it, and writes the policy file."""
    import pandas as pd

    from fieldshift.motions.placed import load_policy
    from fieldshift.search.run import STATE_FILE

    cluster = experiment.cluster
    finished = session.folder.finished_result()
    if finished is None:
        if not session.resume:
            (session.path / STATE_FILE).unlink(missing_ok=True)
        payload = search_payload(experiment, space_name, config, digest=digest, folder=session.path)
        say(f"  {space.name}, {experiment.form} form: {describe_space(space)}")
        labels = search_labels({"form": experiment.form, **payload})
        run = session.child("search", labels, name=run_name(labels))
        run.log_params({f"search.{name}": str(value) for name, value in payload["search"].items()})
        passes = number_of_passes(config, space, edges)
        with placed(cluster, on_ray=cluster.workers > 0), progress("search", passes) as bar:

            def reported(metrics: dict[str, float]) -> None:
                step = int(metrics["pass"])
                run.log_metrics(pass_metrics(metrics), step=step)
                if "train/loss" in metrics:
                    bar.show(step, pass_note(metrics))

            found = run_workers(
                run_search_trial,
                payload,
                cluster=cluster,
                name="search",
                storage=session.path / "ray",
                on_report=reported,
            )
        finished = session.folder.write_result(found)
        record_found(run, found)
        run.close("FINISHED")
        session.keep(search_view(session.mark, metrics_of([found])))
    policy = load_policy(session.path / "policy.json")
    say(f"policy, found in {duration(finished['seconds'])}:")
    for line in policy.describe():
        say(f"  {line}")
    for warning in finished["warnings"]:
        say(f"  note: {warning}")
    say(f"  {session.path / 'policy.json'}")
    return SearchResult(
        session.path, policy, pd.DataFrame(finished["history"]), finished["decisions"], finished["seconds"]
    )
