"""The questions that a comparison answers per method: does the motion help, does the search, is it better than 2D?"""

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
UNANSWERED = "unanswered"
STILL, RANDOM, UNSHIFTED = "no motion", "random motions", "no shift"
BASELINE, FIELD = "best 2D arm", "best enlarged field"
COLUMNS = (
    "reading", "method", "question", "opponent", "role", "is_reference", "difference", "low", "high", "p", "holm_p", "pairs",
    "outcome", "comparison",
)  # fmt: skip

# The control arms by question; the first one that was run is used.
_CONTROLS: dict[str, dict[str, tuple[str, ...]]] = {
    "das": {STILL: ("replicate",), RANDOM: ("random-policy",), UNSHIFTED: ("no-shift",)},
    "das-folded": {STILL: ("identity-folded",), RANDOM: ("random-policy-folded",)},
}
PLAIN_WHEN_STILL = ("tsm", "tsm-inplace")
"""Temporal modules whose folded network without motion equals the arm none, bit for bit; a gate also changes features."""
_TO_ADD = {BASELINE: "none", FIELD: "dilated"}


def methods_of(summary: pd.DataFrame) -> list[str]:
    """The methods of a summary: das and das-folded, then both combined with a 2D augmentation."""
    arms = [str(arm) for arm in dict.fromkeys(summary["arm"]) if base_of(str(arm)) in METHODS]
    return sorted(arms, key=lambda arm: (arm not in METHODS, arm))


def outcomes(summary: pd.DataFrame, method: str = "das") -> pd.DataFrame:
    """The method compared with every other arm at each reading, one row per pair.

    The columns are COLUMNS without question, holm_p and comparison, and `trials`: the keys of the compared trials.
    Differences are method - opponent over common seeds, of judged scores in [0, 1]; the outcome is one of OUTCOMES,
    depending on whether the 95 % interval of the paired difference includes zero.
    """
    records = []
    for reading in dict.fromkeys(summary["reading"]):
        part = summary[summary["reading"] == reading].to_dict("records")
        ours = next((row for row in part if row["arm"] == method), None)
        if ours is not None:
            records += [_record(ours, row) for row in part if row is not ours]
    names = [name for name in COLUMNS if name not in {"question", "holm_p", "comparison"}] + ["trials"]
    return pd.DataFrame.from_records(records, columns=names)


def claims(summary: pd.DataFrame) -> pd.DataFrame:
    """The questions to every method at every reading, one row per question with the columns COLUMNS.

    question is STILL, RANDOM or UNSHIFTED (the method's controls: no motion, random motions, frames without a shift, each
    combined with the method's own augmentation), BASELINE (the best 2D arm by judged mean) or FIELD (the best of `wide-field`
    and `dilated`, plain or combined; where all arms are dilated it is not asked without one). If no opponent was run, the
    outcome is UNANSWERED and the opponent is the arm to add. With a gate (gsm, gsf) only identity-folded is das-folded without
    motion. comparison numbers the pairs of trials: rows with equal numbers compare the same trials; 0 is unanswered. holm_p is
    p corrected for the number of different comparisons that have a p (`comparisons`), NaN if there is none. Source: Holm 1979.
    """
    records: list[dict[str, Any]] = []
    for method in methods_of(summary):
        for reading in dict.fromkeys(summary.loc[summary["arm"] == method, "reading"]):
            part = summary[summary["reading"] == reading]
            found = outcomes(part, method)
            rows = {str(row["opponent"]): row for row in found.to_dict("records")}
            means = part.set_index("arm")["judged_mean"]
            fields = [name for name in rows if base_of(name) in FIELDS]
            temporal = str(part.loc[part["arm"] == method, "temporal"].iloc[0])
            asked = controls_of(method, rows, temporal)
            asked[BASELINE] = next((name for name, row in rows.items() if row["is_reference"]), None)
            if fields or not part["dilated"].any():
                asked[FIELD] = max(fields, key=lambda name: float(means[name]), default=None)
            for question, opponent in asked.items():
                if opponent is not None:
                    records.append(
                        {**{str(name): value for name, value in rows[opponent].items()}, "question": question}
                    )
                elif question != UNSHIFTED:
                    records.append(_unanswered(str(reading), method, question))
    names = [name for name in COLUMNS if name not in {"holm_p", "comparison"}]
    table = pd.DataFrame.from_records(records, columns=[*names, "trials"])
    numbers: dict[Hashable, int] = {}
    compared = [numbers.setdefault(each, len(numbers) + 1) if each else 0 for each in table["trials"]]
    each = {number: float(p) for number, p in zip(compared, table["p"], strict=True)}
    corrected = dict(zip(each, holm(list(each.values())), strict=True))
    holm_p = pd.Series([corrected[number] for number in compared], dtype=float)
    return table.assign(holm_p=holm_p, comparison=pd.Series(compared, dtype=int))[list(COLUMNS)]


def comparisons(claims: pd.DataFrame) -> int:
    """The number of different comparisons with a p value; the same trials at two readings count once."""
    return int(claims.loc[claims["p"].notna(), "comparison"].nunique())


def controls_of(method: str, arms: Mapping[str, Any], temporal: str) -> dict[str, str | None]:
    """The control arm for each question to a method: the first of its possible controls that was run, else None.

    `temporal` is the name of the method's temporal module; with "" (unknown) no arm replaces a missing control.
    """
    base, joined, augmentation = method.partition("+")
    found = {}
    for question, controls in _CONTROLS[base].items():
        is_plain = base == "das-folded" and question == STILL and temporal in PLAIN_WHEN_STILL
        names = (*controls, "none") if is_plain else controls
        named = [augmentation if name == "none" and joined else f"{name}{joined}{augmentation}" for name in names]
        found[question] = next((name for name in named if name in arms), None)
    return found


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number, not counting NaN. Source: Holm 1979 (step-down)."""
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
        "trials": (ours["trials"], row["trials"]),
    }


def _unanswered(reading: str, method: str, question: str) -> dict[str, Any]:
    base, joined, augmentation = method.partition("+")
    control = _CONTROLS[base].get(question)
    return {
        "reading": reading,
        "method": method,
        "question": question,
        "opponent": _TO_ADD[question] if control is None else f"{control[0]}{joined}{augmentation}",
        "role": "",
        "is_reference": False,
        **dict.fromkeys(("difference", "low", "high", "p"), math.nan),
        "pairs": 0,
        "outcome": UNANSWERED,
        "trials": (),
    }


def _judged(row: Mapping[Any, Any]) -> dict[Hashable, float]:
    return dict(zip(row["seeds"], row["judged_scores"], strict=True))
