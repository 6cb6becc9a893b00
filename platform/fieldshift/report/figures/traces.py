"""Records of a search, read for drawing: weights by edge and candidate, curves by name, decisions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Weights = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Choice:
    """A decision: its place, the cost of removing each candidate, and the candidates that were kept."""

    at: str
    harm: dict[str, float]
    kept: frozenset[str]


def passes(history: Sequence[Mapping[str, Any]]) -> list[int]:
    """The numbers of the passes: `pass` or `epoch` of each row, else its position, from 1."""
    return [int(row.get("pass", row.get("epoch", place))) for place, row in enumerate(history, start=1)]


def weights_by_edge(history: Sequence[Mapping[str, Any]]) -> Weights:
    """The mixture weights {edge: {candidate: one value per pass}}; NaN for passes without one.

    A row has them either as `weights` = {edge: {candidate: weight}}, or as keys "alpha/EDGE/CANDIDATE" (as written by
    `fieldshift.search`), to which the softmax over the candidates of an edge is applied.
    """
    tables = [_row_weights(row) for row in history]
    edges = list(dict.fromkeys(edge for table in tables for edge in table))
    found: Weights = {}
    for edge in edges:
        ops = list(dict.fromkeys(op for table in tables for op in table.get(edge, {})))
        found[edge] = {op: [table.get(edge, {}).get(op, math.nan) for table in tables] for op in ops}
    return found


def curve(history: Sequence[Mapping[str, Any]], *names: str) -> list[float] | None:
    """The values of the first of these names that any pass has, NaN for passes without it; None if no pass has one."""
    for name in names:
        if any(name in row for row in history):
            return [float(row.get(name, math.nan)) for row in history]
    return None


def losses(history: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """All curves whose name ends in 'loss', in order of appearance."""
    names = dict.fromkeys(name for row in history for name in row if name.endswith("loss"))
    return {name: curve(history, name) or [] for name in names}


def choice(decision: Mapping[str, Any]) -> Choice:
    """A decision as `fieldshift.search` writes it (at, harm, chosen), or as (edge or node, candidates, kept)."""
    if "at" in decision:
        at = str(decision["at"])
    else:
        at = f"edge {decision['edge']}" if "edge" in decision else f"node {decision['node']}"
    harm = decision["harm"] if "harm" in decision else decision["candidates"]
    kept = decision["chosen"] if "chosen" in decision else decision["kept"]
    names = [kept] if isinstance(kept, (str, int)) else kept
    return Choice(at, {str(name): float(value) for name, value in harm.items()}, frozenset(str(name) for name in names))


def _row_weights(row: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    if "weights" in row:
        return {str(edge): {str(op): float(w) for op, w in ops.items()} for edge, ops in row["weights"].items()}
    alphas: dict[str, dict[str, float]] = {}
    for name, value in row.items():
        if name.startswith("alpha/"):
            _, edge, op = name.split("/", 2)
            alphas.setdefault(edge.replace("-", "->"), {})[op.replace(" then ", " + ")] = float(value)
    return {edge: _softmax(ops) for edge, ops in alphas.items()}


def _softmax(alpha: Mapping[str, float]) -> dict[str, float]:
    values = np.array(list(alpha.values()), dtype=np.float64)
    powers = np.exp(values - values.max())
    return dict(zip(alpha, (powers / powers.sum()).tolist(), strict=True))
