"""Costs of the arms: operations and measured seconds, also as multiples of those of a reference arm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

DEVICE, WALL = "device", "wall"
TOLERATED = 1.15
"""Factor by which operations and seconds may differ before a table notes it."""


def cost_columns(part: pd.DataFrame) -> dict[str, Any]:
    """Means over the trials of one arm; NaN if a trial lacks the value."""
    costs = {
        name: float(pd.to_numeric(part[name]).mean(skipna=False))
        for name in ("parameters", "flops", "epochs", "frames", "seconds", "search_seconds")
    }
    devices = _numbers(part, "devices").fillna(1.0)
    training, searching = device_seconds(part), device_seconds(part, "search_")
    held = training * devices + searching * _numbers(part, "search_devices").fillna(devices)
    return {
        **costs,
        "device_seconds": float(training.mean(skipna=False)),
        "search_device_seconds": float(searching.mean(skipna=False)),
        "clock": clock(part),
        "search_operations": float(_numbers(part, "search_operations").mean(skipna=False)),
        "device_hours": float(held.mean(skipna=False)) / 3600.0,
        "device_seconds_per_epoch": float(_numbers(part, "device_seconds_per_epoch").mean(skipna=False)),
    }


def device_seconds(rows: pd.DataFrame, of: str = "") -> pd.Series[float]:
    """Seconds of training (or of the search with `of` "search_") on the device's clock, one per trial.

    Where earlier versions did not measure it, the seconds on the wall.
    """
    return _numbers(rows, f"{of}device_seconds").fillna(_numbers(rows, f"{of}seconds"))


def clock(rows: pd.DataFrame) -> str:
    """The clock of `device_seconds`: DEVICE, or WALL if a trial of an earlier version has no seconds of the device."""
    return DEVICE if _numbers(rows, "device_seconds").notna().all() else WALL


def is_averaged(part: pd.DataFrame) -> bool:
    """Whether an arm is judged with test-time averaging: all its trials measured it over more than one view."""
    return bool((part["score_tta"].notna() & (_numbers(part, "views") != 1)).all())


def copies_of(part: pd.DataFrame) -> float:
    """The requested number of augmented copies for test-time averaging; NaN if unknown."""
    return float(_numbers(part, "copies").mean(skipna=False))


def passes(part: pd.DataFrame, *, averaged: bool) -> float:
    """Single-frame passes per image of the judged score: frames times averaged views; NaN if unknown."""
    views = _numbers(part, "views") if averaged else 1.0
    return float((_numbers(part, "frames") * views).mean(skipna=False))


def held_against(arms: Iterable[str], best_baseline: str | None) -> str:
    """The arm that costs are compared with: the plain network if it was run, else the best 2D baseline, else the first."""
    named = list(arms)
    return "none" if "none" in named else best_baseline or named[0]


def shares(rows: Sequence[Mapping[str, Any]], arm: str) -> list[dict[str, Any]]:
    """Operations and device seconds per training image of each row, as multiples of those of an arm."""
    measure = next(row for row in rows if row["arm"] == arm)
    return [
        {
            "held_against": arm,
            "operations_share": _share(row["flops"], measure["flops"]),
            "seconds_share": _share(row["device_seconds_per_epoch"], measure["device_seconds_per_epoch"]),
        }
        for row in rows
    ]


def disagree(operations: float, seconds: float) -> bool:
    """Whether the two ratios differ by more than TOLERATED; False if one is unknown."""
    if not (operations > 0 and seconds > 0):
        return False
    return not 1 / TOLERATED <= seconds / operations <= TOLERATED


def _numbers(part: pd.DataFrame, name: str) -> pd.Series[float]:
    if name not in part.columns:
        return pd.Series(math.nan, index=part.index)
    return pd.to_numeric(part[name]).astype(float)


def _share(value: float, of: float) -> float:
    return value / of if of > 0 else math.nan
