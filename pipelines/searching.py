"""The search: which motions serve a network best on a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import ClusterConfig, WorkerContext, check_fits, run_workers
from fieldshift.console import duration, progress, say
from fieldshift.data import LoadingConfig
from fieldshift.errors import UserError
from fieldshift.forms import Form
from fieldshift.networks import NetworkConfig
from fieldshift.run_folder import check_folder
from fieldshift.search import SearchConfig
from fieldshift.tracking import TrackingConfig
from pipelines.alignment import NoAlignmentError, check_alignment
from pipelines.labels import run_name
from pipelines.options import check_policy, check_space
from pipelines.pages import search_view
from pipelines.placement import placed
from pipelines.problem import MOVED_ARMS, STILL_ARMS, Problem, smallest_step
from pipelines.search_records import metrics_of, pass_metrics, record_found, search_labels
from pipelines.session import Session, open_session

if TYPE_CHECKING:
    import pandas as pd

    from fieldshift.folding import AnyPolicy
    from fieldshift.search import Space


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        folder: the run folder, with policy.json.
        policy: the motions.
        history: one row per pass over the halves of the training set.
        decisions: what the selection decided, in order, with the value of every candidate.
        seconds: time spent.
    """

    folder: Path
    policy: AnyPolicy
    history: pd.DataFrame
    decisions: list[dict[str, Any]]
    seconds: float


def search(
    *,
    data: str = "digit-pairs-left",
    task: str | None = None,
    network: str = "tiny-resnet",
    temporal: str = "tsm",
    frames: int = 3,
    form: Form = "video",
    space: str = "affine-one",
    seed: int = 0,
    explain: str | None = None,
    out: str | None = None,
    resume: bool = False,
    search: SearchConfig = SearchConfig(),
    architecture: NetworkConfig = NetworkConfig(),
    loading: LoadingConfig = LoadingConfig(),
    cluster: ClusterConfig = ClusterConfig(),
    tracking: TrackingConfig = TrackingConfig(),
) -> SearchResult | int:
    """Searches the motions that serve a network best (Differentiable Augmentation Search); the test set is not read.

    Args:
        data: data set: a name, or folder:PATH, npz:PATH, voc:PATH.
        task: classification or segmentation; by default the data set's own.
        network: network name: the search trains the target network itself.
        temporal: temporal module inside it.
        frames: frames of the video; in the folded form they decide the step between neighbouring frames.
        form: video (T moved frames) or folded (one frame, whose channels move).
        space: search space: a name, or a TOML file.
        seed: decides magnitudes, halves, weights and order: the same seed finds the same policy.
        explain: a policy file; says what was chosen, against what and by what margin, in words and in a picture beside it, and
            searches nothing.
        out: run folder; by default runs/search.
        resume: go on with the run in that folder.
        search: how the search is run.
        architecture: how the network is built, beside its name.
        loading: how files are read.
        cluster: where it runs.
        tracking: where it is recorded.
    """
    if explain is not None:
        return explain_policy(explain)
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
    check_space(space)
    check_frames(search, frames)
    search.check(cluster.workers)
    problem.check_names()
    config = {
        **problem.plain(), "space": space, "seed": seed, "search": search, "cluster": cluster, "tracking": tracking,
    }  # fmt: skip
    check_folder(out, "search", config, resume)
    check_fits(cluster, cluster.min_workers or cluster.workers)

    from fieldshift.search import load_space

    motion_space, dataset = load_space(space), problem.check()
    check_edges(search, motion_space)
    step = smallest_step(len(dataset.train) // 2, search.batch, cluster.workers, search.sync_batch_norm)
    edges = problem.edges_to_decide(dataset, motion_space, seed, step=step, order=search.order)
    try:
        check_alignment(dataset.task, MOVED_ARMS[form], None, space_of_search(motion_space, search), frames)
    except NoAlignmentError as error:
        say(f"note: {error}")
    tags = {"data": data, "network": network, "space": space, "seed": str(seed), "form": form}
    with open_session(
        "search", out=out, resume=resume, config=config, tracking=tracking, tags=tags, dataset=dataset
    ) as session:
        return run_search(
            session, problem, motion_space, space, search, seed=seed, cluster=cluster, digest=dataset.digest,
            edges=edges,
        )  # fmt: skip


def check_frames(search: SearchConfig, frames: int) -> None:
    """Raises UserError where a search has no frames to tell motions apart by, or two numbers of them."""
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
        raise UserError(f"--search.edges_per_node is {search.edges_per_node}, but no node of {space.name} has more than "
                        f"{incoming} edge(s).")  # fmt: skip


def space_of_search(space: Space, search: SearchConfig, given: Sequence[AnyPolicy] = ()) -> Space:
    """The space with as many edges per node as the searches keep, or as the given policy of this space was found with.

    Random policies are drawn from it, so that they are as large as what they are compared with.
    """
    kept = search.edges_per_node
    for policy in given:
        settings = policy.found.get("settings")
        if kept is None and policy.found.get("space") == space.name and isinstance(settings, dict):
            kept = settings.get("edges_per_node")
    return space.with_changes(edges_per_node=kept) if isinstance(kept, int) else space


def explain_policy(path: str) -> int:
    """Prints what was chosen, against what and by what margin, and draws it beside the policy file."""
    check_policy(path)

    from fieldshift.motions.placed import load_policy
    from fieldshift.report.figures.explained import explained
    from fieldshift.search.explain import explain
    from pipelines.problem import policy_file

    file = policy_file(path)
    policy = load_policy(file)
    for line in explain(policy):
        say(line)
    picture = file.with_suffix(".explained.png")
    try:
        explained(policy).save(picture)
    except OSError as error:
        raise UserError(
            f"The picture cannot be written to {picture} ({error.strerror}); copy the policy elsewhere."
        ) from None
    say(f"the same as a picture: {picture}")
    return 0


def run_search(
    session: Session,
    problem: Problem,
    space: Space,
    space_name: str,
    config: SearchConfig,
    *,
    seed: int,
    cluster: ClusterConfig,
    digest: str,
    edges: int,
) -> SearchResult:
    """Runs the search through Ray Train (or in-process), shows and records it, and writes the policy file."""
    import pandas as pd

    from fieldshift.motions.placed import load_policy
    from fieldshift.search.session import STATE_FILE

    finished = session.folder.finished_result()
    if finished is None:
        if not session.resume:
            (session.path / STATE_FILE).unlink(missing_ok=True)
        payload = search_payload(problem, space_name, config, seed=seed, digest=digest, folder=session.path)
        say(f"  {space.name}, {problem.form} form: {space_words(space)}")
        labels = search_labels({"seed": seed, "form": problem.form, **payload})
        run = session.child("search", labels, name=run_name(labels))
        run.log_params({f"search.{name}": str(value) for name, value in payload["search"].items()})
        with placed(cluster, on_ray=cluster.workers > 0), progress("search", passes_of(config, space, edges)) as bar:

            def reported(metrics: dict[str, float]) -> None:
                step = int(metrics["pass"])
                run.log_metrics(pass_metrics(metrics), step=step)
                if "train/loss" in metrics:
                    bar.show(step, note(metrics))

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


def search_payload(
    problem: Problem, space_name: str, config: SearchConfig, *, seed: int, digest: str, folder: Path
) -> dict[str, Any]:
    """What `run_search_trial` takes, as plain values."""
    return {
        "problem": problem.plain(),
        "space": space_name,
        "search": asdict(config),
        "seed": seed,
        "digest": digest,
        "folder": str(folder),
    }


def space_words(space: Space) -> str:
    """What there is to choose from, in words."""
    each = f"{len(space.options)} candidates each"
    if space.is_placed:
        groups = f" and each of {space.groups} groups of channels" if space.groups > 1 else ""
        return f"a motion for each {space.per}{groups}, {each}"
    return f"{len(space.edges)} edge(s) with {each}, {cells(space.size())} cells"


def cells(count: int) -> str:
    return f"{count:,}" if count < 10**7 else f"{count:.1e}"


def passes_of(config: SearchConfig, space: Space, edges: int) -> int:
    """Passes over the halves in all: those of the supernet, and those between two decisions of the selection."""
    if config.selection != "perturbation":
        return config.epochs
    kept = config.edges_per_node or space.edges_per_node
    return config.epochs + config.tune_epochs * (space.decisions(edges, kept) - 1)


def note(metrics: dict[str, float]) -> str:
    parts = [f"pass {int(metrics['pass'])}"]
    parts += [
        f"{name.split('/')[-1]} {metrics[name]:.3f}" for name in ("train/loss", "search/entropy") if name in metrics
    ]
    return ", ".join(parts)


def run_search_trial(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    """The search inside one worker; returns plain values. The policy and the state are written into the folder.

    It goes on from a state that it finds there, as a worker does that was started again.
    """
    import torch

    from fieldshift.search import load_space
    from fieldshift.search import search as search_policy
    from fieldshift.training import objective_for

    problem = Problem.from_plain(payload["problem"])
    values = {field.name: payload["search"][field.name] for field in fields(SearchConfig)}
    config = SearchConfig(**{**values, "frames": problem.frames})
    dataset = problem.load(payload["digest"])
    torch.manual_seed(payload["seed"])
    # The target network itself, as an arm without motion builds it; the cell takes the place of its motions.
    card = problem.without_auxiliary().card(dataset, STILL_ARMS[problem.form], None, None, payload["seed"])
    network = card.build()
    folder = Path(payload["folder"])
    warnings: list[str] = []
    found = search_policy(
        network,
        dataset,
        load_space(payload["space"]),
        config,
        objective=objective_for(dataset.task, len(dataset.classes), dataset.ignore_index),
        normalise=card.plan().normalise,
        device=context.device,
        seed=payload["seed"],
        folder=folder,
        report=lambda metrics, step: context.report({**metrics, "pass": float(step)}),
        progress=lambda line: warnings.append(line) if line.startswith("Warning") else None,
        resume=True,
    )
    if context.rank == 0:
        found.policy.save(folder / "policy.json")
    return {
        "policy": str(folder / "policy.json"),
        "words": found.policy.describe(),
        "history": found.history,
        "decisions": found.decisions,
        "seconds": found.seconds,
        "device_hours": found.device_hours,
        "cost": found.cost.record(),
        "warnings": warnings,
        "data": dataset.record(),
    }
