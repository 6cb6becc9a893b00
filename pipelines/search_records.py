"""Records of a search: its labels, metrics by pass and policy in MLflow, and the figure of its mixture weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.experiment.labels import Labels, policy_labels, sectioned
from fieldshift.whole_file import whole_file

if TYPE_CHECKING:
    from fieldshift.tracking import Run

WEIGHTS = "search.png"


def search_labels(trial: Mapping[str, Any]) -> Labels:
    """The labels of the search of one form and seed."""
    return {
        "arm": "search",
        "form": trial["form"],
        "T": str(trial["problem"]["frames"]),
        "seed": str(trial["seed"]),
        "epochs": str(trial["search"]["epochs"]),
    }


def pass_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a pass or a decision in MLflow."""
    return sectioned({name: value for name, value in metrics.items() if name != "pass"}, "search")


def record_found(run: Run, found: Mapping[str, Any]) -> None:
    """Records the policy of a finished search: its file, digest and motions in words, and numbers that were not logged.

    A report is lost where the process that should have logged it was killed.
    """
    from fieldshift.motions.placed import load_policy
    from fieldshift.search.journal import decision_metrics

    labels = {**policy_labels(load_policy(Path(found["policy"]))), "motions": "; ".join(found["words"]) or "no motion"}
    labels.pop("space", None)
    for row in found["history"]:
        run.log_metrics(pass_metrics(row), step=int(row["pass"]))
    for decision in found["decisions"]:
        if "pass" not in decision:  # of an earlier version
            continue
        run.log_metrics(decision_metrics(decision), step=int(decision["pass"]))
    run.log_params(labels)
    run.set_tags(labels)
    run.log_artifact(Path(found["policy"]))


def draw_weights(folder: Path, history: Sequence[Mapping[str, Any]]) -> Path:
    """Draws the mixture weights (softmax of alpha), entropy and losses of every pass into search.png of the run folder."""
    from fieldshift.report import search_history

    picture = folder / WEIGHTS
    with whole_file(picture) as temporary:
        search_history(history).savefig(temporary, dpi=150, format="png")
    return picture


def metrics_of(found: Iterable[Mapping[str, Any] | None]) -> set[str]:
    """The names that the numbers of finished searches have in MLflow."""
    names: set[str] = set()
    for result in found:
        if result is None:
            continue
        alphas = {name for row in result["history"] for name in pass_metrics(row)}
        edges = {name.split("/")[1] for name in alphas if name.startswith("alpha/")}
        names |= alphas
        if result["decisions"]:
            names |= {f"harm/{name.removeprefix('alpha/')}" for name in alphas if name.startswith("alpha/")}
            names |= {f"margin/{edge}" for edge in edges}
    return names
