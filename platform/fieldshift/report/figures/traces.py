"""Records of a search, read for drawing: weights by edge and candidate, curves by name, decisions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fieldshift.motions.policy_file import may_be_chance

Weights = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Choice:
    """A decision: its place, the cost of removing each candidate, those that were kept, and whether that may be chance."""

    at: str
    harm: dict[str, float]
    kept: frozenset[str]
    may_be_chance: bool


def weights_by_edge(history: Sequence[Mapping[str, Any]]) -> Weights:
    """The mixture weights {edge: {candidate: one value per pass}}; NaN for passes without one.

    They are the softmax over the candidates of an edge of the values "alpha/EDGE/CANDIDATE".
    """
    tables = [_row_weights(row) for row in history]
    edges = list(dict.fromkeys(edge for table in tables for edge in table))
    found: Weights = {}
    for edge in edges:
        ops = list(dict.fromkeys(op for table in tables for op in table.get(edge, {})))
        found[edge] = {op: [table.get(edge, {}).get(op, math.nan) for table in tables] for op in ops}
    return found


def curve(history: Sequence[Mapping[str, Any]], name: str) -> list[float] | None:
    """The values of a name, NaN for passes without it; None if no pass has it."""
    if not any(name in row for row in history):
        return None
    return [float(row.get(name, math.nan)) for row in history]


def losses(history: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """All curves whose name ends in 'loss', in order of appearance."""
    names = dict.fromkeys(name for row in history for name in row if name.endswith("loss"))
    return {name: curve(history, name) or [] for name in names}


def choice(decision: Mapping[str, Any]) -> Choice:
    """A decision as written by `fieldshift.search`."""
    harm = {str(name): float(value) for name, value in decision["harm"].items()}
    kept = frozenset(str(name) for name in decision["chosen"])
    return Choice(str(decision["at"]), harm, kept, may_be_chance(decision))


def _row_weights(row: Mapping[str, Any]) -> dict[str, dict[str, float]]:
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
