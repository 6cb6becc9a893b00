"""The state of a search: the complete contents of its checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from fieldshift.errors import UserError
from fieldshift.motions.policy_file import FINISHED

PHASES = ("supernet", "options", "edges", FINISHED)
MAGNITUDES, EARLIER_MAGNITUDES = "magnitudes.position", "magnitudes.place"  # names of one tensor of the cell
SCHEMA = 2  # 1: the step size of the tuning restarted after each decision


@dataclass(kw_only=True)
class SearchState:
    """The progress of a search.

    Random draws and learning rates are functions of the seed and of these counters, so no generator or
    scheduler has to be stored.

    Attributes:
        phase: supernet (weights and alpha learn), options (every edge chooses its operation), edges (every node chooses which
            edges stay) or done.
        epoch: finished epochs of the supernet phase.
        tuned: finished tuning epochs since the last decision.
        tuning: whether tuning after the last decision continues.
        passes: finished epochs of any kind; seeds the order of samples.
        decided: the chosen operation of each edge, None where open.
        kept: whether each edge is still in the cell.
        decisions: the decisions in order, with their scores.
        history: one row per pass: losses, scores, weights.
        warned: whether a collapse to the identity was reported.
        seconds: time spent, over all sessions of a resumed search.
        device_seconds: the same on the device's clock; NaN if a version that did not measure it began the search.
        cost: the image passes so far, as a plain `SearchCost`.
        cell: the cell's tensors.
        network: the network's tensors.
        optimizer: the state of the network's optimizer.
        alpha_optimizer: the state of alpha's optimizer.
        fingerprint: what must be equal to resume a search: seed, space, settings.
    """

    phase: str = "supernet"
    epoch: int = 0
    tuned: int = 0
    tuning: bool = False
    passes: int = 0
    decided: list[int | None] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    warned: bool = False
    seconds: float = 0.0
    device_seconds: float = 0.0
    cost: dict[str, Any] = field(default_factory=dict)
    cell: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    alpha_optimizer: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    def to_values(self) -> dict[str, Any]:
        """Tensors and plain values only, as `write_checkpoint` takes them."""
        shallow = {each.name: getattr(self, each.name) for each in fields(self)}
        return {"schema": SCHEMA, **shallow}

    @classmethod
    def from_values(cls, values: dict[str, Any], path: str) -> SearchState:
        """The state of a checkpoint. Raises UserError if `path` does not contain a search of this version."""
        values = {"device_seconds": math.nan, **values}
        known = {each.name for each in fields(cls)}
        if values.get("schema") != SCHEMA or set(values) - {"schema"} != known:
            raise UserError(
                f"{path} is not the state of a search of this version; delete it, or give another --out, to start again."
            )
        state = cls(**{name: value for name, value in values.items() if name != "schema"})
        if EARLIER_MAGNITUDES in state.cell:
            state.cell[MAGNITUDES] = state.cell.pop(EARLIER_MAGNITUDES)
        assert state.phase in PHASES
        return state
