"""The log of a search: metrics for the tracker, lines for people, and a warning when it collapses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fieldshift.search.cell import Cell
from fieldshift.search.selection import Decision

COLLAPSED = 0.5  # share of the open edges' weight on the identity above which a search warns


def weight_metrics(cell: Cell) -> dict[str, float]:
    """alpha by edge and operation, the entropy of the open edges (1 = undecided, 0 = one operation), identity's share."""
    alpha = cell.alpha.detach().cpu()
    labels = [operation.label.replace(" + ", " then ") for operation in cell.operations]
    metrics = {
        f"alpha/{metric_name(name)}/{label}": value
        for name, row in zip(cell.edge_names, alpha.tolist(), strict=True)
        for label, value in zip(labels, row, strict=True)
    }
    open_edges = [e for e, choice in enumerate(cell.decided) if choice is None]
    if open_edges:
        open_weights = alpha.softmax(-1)[open_edges]
        entropy = -(open_weights * open_weights.clamp(min=1e-12).log()).sum(-1).mean()
        still = [o for o, operation in enumerate(cell.operations) if operation.is_identity]
        metrics["search/entropy"] = float(entropy) / max(math.log(len(labels)), 1e-12)
        metrics["search/identity_share"] = float(open_weights[:, still].sum(-1).mean())
    return metrics


def metric_name(edge: str) -> str:
    """An edge's name as a part of a metric's name: "edge 0->1" -> "0-1"."""
    return edge.removeprefix("edge ").replace("->", "-")


def collapse_warning(metrics: dict[str, float]) -> str | None:
    """A line with advice when most of the weight is on the identity, otherwise None."""
    share = metrics.get("search/identity_share", 0.0)
    if share <= COLLAPSED:
        return None
    return (
        f"Warning: the identity holds {share:.0%} of the open edges' weight. Alpha tends to favour the smallest changes: "
        "use search.selection = perturbation instead of magnitude, lower search.alpha_learning_rate, set search.warmup_epochs, "
        "or remove the identity from the space."
    )


def pass_line(name: str, row: dict[str, float], score: str) -> str:
    """Formats one line about a pass."""
    text = f"{name}: loss {row['train/loss']:.3f}, {score} {row[f'train/{score}']:.1%}"
    if "val/loss" in row:
        text += f", alpha's loss {row['val/loss']:.3f}"
    if "search/entropy" in row:
        text += f", entropy {row['search/entropy']:.2f}, identity {row['search/identity_share']:.0%}"
    return text + f" ({row['seconds']:.1f} s)"


def decision_metrics(decision: Mapping[str, Any]) -> dict[str, float]:
    """The values that a stored decision is based on, by alternative, and its margin."""
    at = metric_name(decision["at"])
    harm = {label.replace(" + ", " then ").replace("->", "-"): value for label, value in decision["harm"].items()}
    return {f"harm/{at}/{label}": value for label, value in harm.items()} | {f"margin/{at}": decision["margin"]}


def decision_line(decision: Decision) -> str:
    """Formats one line about a decision."""
    error = "" if decision.margin_error is None else f", standard error {decision.margin_error:.2g}"
    return f"{decision.at}: {' and '.join(decision.chosen)} (margin {decision.margin:.3g}{error})"
