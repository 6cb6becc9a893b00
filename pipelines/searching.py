"""The search for the motions that serve a network best on a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fieldshift.cluster import check_fits, run_workers
from fieldshift.console import duration, progress, say
from fieldshift.experiment import Experiment
from fieldshift.experiment.alignment import NoAlignmentError, check_alignment
from fieldshift.experiment.cards import MOVED_ARMS, edges_to_decide, note_short_search, search_step
from fieldshift.experiment.labels import run_name
from fieldshift.experiment.placement import check_elastic, placed
from fieldshift.experiment.search_trial import (
    SearchResult,
    check_frames,
    describe_space,
    note_frames,
    number_of_passes,
    pass_note,
    run_search_trial,
    search_payload,
    space_of_search,
)
from fieldshift.experiment.session import Session, open_session
from fieldshift.run_folder import check_folder
from fieldshift.search import SearchConfig
from pipelines.options import check_space
from pipelines.pages import search_view
from pipelines.search_records import WEIGHTS, draw_weights, metrics_of, pass_metrics, record_found, search_labels

if TYPE_CHECKING:
    from fieldshift.search import Space


def search(*, space: str = "affine-one", search: SearchConfig = SearchConfig(), **shared: Any) -> SearchResult:
    """Searches for the motions that serve a network best (Differentiable Augmentation Search), without the test set.

    The seed decides magnitudes, halves, weights and order: the same seed finds the same policy.

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
    check_elastic(cluster, search.batch, "--search.batch")
    experiment.check_names()
    config = experiment.settings(space=space, search=search.record())
    check_folder(experiment.out, "search", config, experiment.resume)
    check_fits(cluster, cluster.min_workers or cluster.workers)

    from fieldshift.search import load_space

    motion_space, dataset = load_space(space), experiment.checked_dataset(search=search)
    motion_space.check_kept(search.edges_per_node)
    note_frames(motion_space, experiment.frames)
    note_short_search(dataset, search)
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

    from fieldshift.search.explain import close_decisions
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
                shared=session.storage(cluster),
                on_report=reported,
            )
        record_found(run, found)
        run.log_artifact(draw_weights(session.path, found["history"]))
        run.close("FINISHED")
        session.keep(search_view(session.mark, metrics_of([found])))
        finished = session.folder.write_result(found)
    found_here = SearchResult.from_row(session.path, finished)
    say(f"policy, found in {duration(finished['seconds'])}:")
    for line in found_here.policy.describe():
        say(f"  {line}")
    for warning in (*finished["warnings"], *close_decisions(found_here.policy)):
        say(f"  note: {warning}")
    say(f"  {session.path / 'policy.json'}")
    if (session.path / WEIGHTS).exists():  # folders of earlier versions have none
        say(f"  {session.path / WEIGHTS}: the weight of every candidate, pass by pass")
    return found_here
