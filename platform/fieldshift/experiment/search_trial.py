"""One search, as a worker executes it: plain values in, plain values out, the same in-process and on a cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import WorkerContext
from fieldshift.experiment.cards import STILL_ARMS, arm_card, without_auxiliary
from fieldshift.experiment.options import Experiment
from fieldshift.search import SearchConfig

if TYPE_CHECKING:
    from fieldshift.search import Space


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
    found = search_policy(
        network,
        dataset,
        load_space(payload["space"]),
        config,
        objective=objective_for(dataset.task, len(dataset.classes), dataset.ignore_index),
        normalise=card.plan().normalise,
        device=context.device,
        seed=experiment.seed,
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


def number_of_passes(config: SearchConfig, space: Space, edges: int) -> int:
    """Passes over the halves in all: those of the supernet, and those between two decisions of the selection."""
    if config.selection != "perturbation":
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
    cells = f"{size:,}" if size < 10**7 else f"{size:.1e}"
    return f"{len(space.edges)} edge(s) with {each}, {cells} cells"


def pass_note(metrics: dict[str, float]) -> str:
    """The note of a progress bar after a pass: its number, loss and entropy."""
    parts = [f"pass {int(metrics['pass'])}"]
    parts += [
        f"{name.split('/')[-1]} {metrics[name]:.3f}" for name in ("train/loss", "search/entropy") if name in metrics
    ]
    return ", ".join(parts)
