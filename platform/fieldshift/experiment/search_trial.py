"""One search: checks before any work, and its execution in a worker, plain values in and plain values out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import WorkerContext
from fieldshift.console import say
from fieldshift.errors import UserError
from fieldshift.experiment.cards import STILL_ARMS, arm_card, without_auxiliary
from fieldshift.experiment.options import Experiment
from fieldshift.experiment.policy_source import PolicySource, policy_file
from fieldshift.motions.policy_file import search_settings
from fieldshift.run_folder import read_result
from fieldshift.search import RULES, SearchConfig

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
        device_seconds: the same on the device's own clock; NaN if unknown, in runs of earlier versions.
        devices: the number of workers that shared it.
    """

    folder: Path
    policy: AnyPolicy
    history: pd.DataFrame
    decisions: list[dict[str, Any]]
    seconds: float
    device_seconds: float = math.nan
    devices: int = 1

    @classmethod
    def from_row(cls, folder: Path, row: Mapping[str, Any]) -> SearchResult:
        """The result in a folder with policy.json whose plain values are `row`, as `run_search_trial` returns them."""
        import pandas as pd

        from fieldshift.motions.placed import load_policy

        device, seconds = row.get("device_seconds"), row["seconds"]
        return cls(
            folder,
            load_policy(folder / "policy.json"),
            pd.DataFrame(row["history"]),
            row["decisions"],
            seconds,
            math.nan if device is None else device,
            max(1, round(3600 * row.get("device_hours", 0) / seconds)) if seconds else 1,
        )


def search_of(source: PolicySource) -> SearchResult | None:
    """The finished search, alone or of a comparison, whose folder holds the given policy.json; None for other files."""
    if not isinstance(source, str) or policy_file(source).name != "policy.json":
        return None
    folder = policy_file(source).parent
    for place in (folder, folder.parent):  # a search, or the searches of a comparison
        try:
            result = read_result(place)
            rows = [result] if place == folder else [row for row in result["searches"] if row["key"] == folder.name]
            return SearchResult.from_row(folder, rows[0])
        except (UserError, OSError, LookupError, TypeError, ValueError):  # no search, or an earlier version's
            continue
    return None


def search_payload(
    experiment: Experiment, space_name: str, config: SearchConfig, *, digest: str, folder: Path
) -> dict[str, Any]:
    """The arguments of `run_search_trial` as plain values; the seed is the experiment's, `digest` that of the data."""
    return {
        "problem": experiment.plain(),
        "space": space_name,
        "search": config.record(),
        "seed": experiment.seed,
        "digest": digest,
        "folder": str(folder),
    }


def run_search_trial(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    """Runs one search; returns plain values, and writes the policy and the state into the folder.

    It resumes from a state found there, as a restarted worker does.
    """
    import torch

    from fieldshift.search import load_space
    from fieldshift.search import search as search_policy
    from fieldshift.training import objective_for

    experiment = Experiment.from_plain(payload["problem"]).with_seed(payload["seed"])
    config = replace(SearchConfig.from_record(payload["search"]), frames=experiment.frames)
    dataset = experiment.load(payload["digest"])
    torch.manual_seed(experiment.seed)
    # The target network itself, as an arm without motion builds it; the cell takes the place of its motions.
    card = arm_card(without_auxiliary(experiment), dataset, STILL_ARMS[experiment.form], None, None)
    network = card.build()
    folder = Path(payload["folder"])
    warnings: list[str] = []
    with context.folder(folder) as files:
        found = search_policy(
            network,
            dataset,
            load_space(payload["space"]),
            config,
            objective=objective_for(dataset.task, len(dataset.classes), dataset.ignore_index),
            normalise=card.plan().normalise,
            device=context.device,
            seed=experiment.seed,
            folder=files,
            report=lambda metrics, step: context.report({**metrics, "pass": float(step)}),
            progress=lambda line: warnings.append(line) if line.startswith("Warning") else None,
            resume=True,
        )
        if context.rank == 0:
            found.policy.save(files / "policy.json")
    return {
        "policy": str(folder / "policy.json"),
        "words": found.policy.describe(),
        "history": found.history,
        "decisions": found.decisions,
        "seconds": found.seconds,
        "device_seconds": found.device_seconds,
        "device_hours": found.device_hours,
        "cost": found.cost.record(),
        "warnings": warnings,
        "data": dataset.record(),
    }


def number_of_passes(config: SearchConfig, space: Space, edges: int) -> int:
    """Passes over the halves in all: those of the supernet, and those between two decisions of the selection."""
    if not RULES[config.selection].measures:
        return config.epochs
    kept = config.edges_per_node or space.edges_per_node
    return config.epochs + config.tune_epochs * (space.decisions(edges, kept) - 1)


def describe_space(space: Space) -> str:
    """The choices of a search in words."""
    each = f"{len(space.operations)} operations each"
    if space.is_placed:
        groups = f" and each of {space.groups} groups of channels" if space.groups > 1 else ""
        return f"a motion for each {space.per}{groups}, {each}"
    size = space.size()
    policies = f"{size:,}" if size < 10**7 else f"{Decimal(size):.1e}"  # beyond a float's range, too
    edges = "one edge" if len(space.edges) == 1 else f"{len(space.edges)} edges"
    return f"{edges} with {each}, {policies} possible policies"


def pass_note(metrics: dict[str, float]) -> str:
    """The note of a progress bar after a pass: its number, loss and entropy."""
    parts = [f"pass {int(metrics['pass'])}"]
    parts += [
        f"{name.split('/')[-1]} {metrics[name]:.3f}" for name in ("train/loss", "search/entropy") if name in metrics
    ]
    return ", ".join(parts)


def check_frames(search: SearchConfig, frames: int) -> None:
    """Raises UserError where a search has too few frames to distinguish motions, or two different numbers of frames."""
    if frames < 2:
        raise UserError(
            f"--frames is {frames}, but all motions of a video of one frame are alike; search with 2 or more."
        )
    if search.frames not in (None, frames):
        raise UserError(f"--search.frames is {search.frames} and --frames is {frames}; give only --frames.")


def note_frames(space: Space, frames: int) -> None:
    """Prints a note where a space has another number of frames than the command uses."""
    if space.frames not in (None, frames):
        say(f"note: the space {space.name} has frames = {space.frames}, which is not used: --frames is {frames}")


def space_of_search(space: Space, search: SearchConfig, given: Sequence[AnyPolicy] = ()) -> Space:
    """The space with as many edges per node as the searches keep, or as the given policy of this space was found with.

    Random policies are drawn from it, so that they have the size of the policies that they are compared with.
    """
    kept = search.edges_per_node
    for policy in given:
        if kept is None and policy.found.get("space") == space.name:
            kept = search_settings(policy.found).get("edges_per_node")
    return space.with_changes(edges_per_node=kept) if isinstance(kept, int) else space
