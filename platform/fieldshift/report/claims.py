"""What a comparison is asked of each method: against the best 2D baseline, the best enlarged field, and its controls."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from fieldshift.report.intervals import Difference, paired_difference
from fieldshift.report.statistics import base_of

METHODS = ("das", "das-folded")
FIELDS = ("wide-field", "dilated")
OUTCOMES = ("wins", "loses", "cannot be told apart", "cannot be told")
BASELINE, FIELD, CONTROL = "best 2D baseline", "best enlarged field", "control"
COLUMNS = (
    "reading", "method", "question", "opponent", "role", "is_reference", "difference", "low", "high", "p", "holm_p", "pairs",
    "outcome",
)  # fmt: skip

# What stands for a method without motions and with random ones; the folded identity is the plain network with tsm.
_CONTROLS = {
    "das": (("replicate",), ("random-policy",), ("no-shift",)),
    "das-folded": (("identity-folded", "none"), ("random-policy-folded",)),
}


def methods_of(summary: pd.DataFrame) -> list[str]:
    """The methods of a summary: das and das-folded, then either joined with a 2D augmentation."""
    arms = [str(arm) for arm in dict.fromkeys(summary["arm"]) if base_of(str(arm)) in METHODS]
    return sorted(arms, key=lambda arm: (arm not in METHODS, arm))


def outcomes(summary: pd.DataFrame, method: str = "das") -> pd.DataFrame:
    """The method against every other arm of each reading, one row each, with the columns COLUMNS but question and holm_p.

    Differences are method - opponent over common seeds, judged scores in [0, 1]; the outcome is one of OUTCOMES,
    by whether the 95 % interval of the paired difference includes zero.
    """
    records = []
    for reading in dict.fromkeys(summary["reading"]):
        part = summary[summary["reading"] == reading].to_dict("records")
        ours = next((row for row in part if row["arm"] == method), None)
        if ours is not None:
            records += [_record(ours, row) for row in part if row is not ours]
    names = [name for name in COLUMNS if name not in {"question", "holm_p"}]
    return pd.DataFrame.from_records(records, columns=names)


def claims(summary: pd.DataFrame) -> pd.DataFrame:
    """What is asked of every method at every reading, one row each with the columns COLUMNS.

    question is one of BASELINE (the best by judged mean), FIELD (likewise, of `wide-field` and `dilated`, plain or joined) and
    CONTROL: no motion, random motions, the frames without a shift, joined with the method's own augmentation. holm_p is p
    corrected for the number of rows (Holm 1979), NaN where there is no p.
    """
    records = []
    for method in methods_of(summary):
        for reading, part in outcomes(summary, method).groupby("reading", sort=False):
            rows = {str(row["opponent"]): row for row in part.to_dict("records")}
            means = summary[summary["reading"] == reading].set_index("arm")["judged_scores"].map(_mean)
            asked = {BASELINE: [name for name, row in rows.items() if row["is_reference"]]}
            fields = [name for name in rows if base_of(name) in FIELDS]
            asked[FIELD] = [max(fields, key=lambda name: float(means[name]))] if fields else []
            asked[CONTROL] = controls_of(method, rows)
            records += [{**rows[name], "question": question} for question, names in asked.items() for name in names]
    found = pd.DataFrame.from_records(records, columns=[name for name in COLUMNS if name != "holm_p"])
    corrected = holm([float(p) for p in found["p"]])
    return found.assign(holm_p=pd.Series(corrected, index=found.index, dtype=float))[list(COLUMNS)]


def controls_of(method: str, arms: Mapping[str, Any]) -> list[str]:
    """The controls of a method among the arms: each the first that was run of those which stand for it."""
    base, joined, augmentation = method.partition("+")
    found = []
    for names in _CONTROLS[base]:
        named = [augmentation if name == "none" and joined else f"{name}{joined}{augmentation}" for name in names]
        found += [name for name in named if name in arms][:1]
    return found


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number, NaN left out of it. Source: Holm 1979 (step-down)."""
    order = sorted((place for place, p in enumerate(values) if not math.isnan(p)), key=lambda place: values[place])
    corrected, largest = [math.nan] * len(values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * values[place]))
        corrected[place] = largest
    return corrected


def _record(ours: Mapping[Any, Any], row: Mapping[Any, Any]) -> dict[str, Any]:
    found: Difference = paired_difference(_judged(ours), _judged(row))
    return {
        "reading": row["reading"],
        "method": ours["arm"],
        "opponent": row["arm"],
        "role": row["role"],
        "is_reference": bool(row["is_reference"]),
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "pairs": found.pairs,
        "outcome": found.outcome,
    }


def _judged(row: Mapping[Any, Any]) -> dict[Hashable, float]:
    return dict(zip(row["seeds"], row["judged_scores"], strict=True))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
