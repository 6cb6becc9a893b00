"""Summary of a comparison: means, intervals, paired differences and costs per arm and reading."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from fieldshift.errors import UserError
from fieldshift.readings import READINGS
from fieldshift.report.costs import copies_of, cost_columns, held_against, is_averaged, passes, shares
from fieldshift.report.intervals import Difference, Estimate, estimate, paired_difference

REQUIRED = (
    "arm",
    "reading",
    "seed",
    "score",
    "score_tta",
    "parameters",
    "flops",
    "epochs",
    "seconds",
    "search_seconds",
    "frames",
)
NO_DIFFERENCE = Difference(pairs=0, mean=math.nan, low=math.nan, high=math.nan, p=math.nan, wilcoxon_p=math.nan)


def role_of(arm: str, baseline_arms: Iterable[str]) -> str:
    """The role of an arm: 'baseline' for `baseline_arms`, 'das' for `das` and its variants `das-...`, else 'control'.

    An arm combined with a 2D augmentation (`das-folded+affine`) has the role of the arm before the plus.
    """
    if arm in set(baseline_arms):
        return "baseline"
    base = base_of(arm)
    return "das" if base == "das" or base.startswith("das-") else "control"


def base_of(arm: str) -> str:
    """The arm's name without the 2D augmentation that it is combined with."""
    return arm.partition("+")[0]


def summarise(rows: pd.DataFrame, *, baseline_arms: Iterable[str]) -> pd.DataFrame:
    """Summarises trials: mean, 95 % t interval, paired differences and costs per arm and reading, best judged mean first.

    rows has one row per trial with the columns of `REQUIRED`: score and score_tta (with test-time averaging, NaN
    if not measured) in [0, 1], flops of one image forward, seconds of training and search_seconds of the search.
    Optional columns: `devices` (1) of the training and `search_devices` (the same) of the search, `device_seconds` and
    `search_device_seconds` (the same on the device's clock, which other load does not slow down),
    `device_seconds_per_epoch` of one device, `views` averaged by score_tta, `copies` requested, `search_operations` of the
    search or tuning, `motions` (origin of the arm's policy, in words), `policy` (digest of the motions that an arm was
    trained under, "" without), `temporal` (temporal module of the arms that have one), `dilated` (whether the networks of all
    arms have a dilated last stage), and `key`, equal if one trial
    belongs to several readings. An arm that belongs to several readings has rows for each.

    Result, one row per (reading, arm): role; n, mean, low, high, std; tta_mean, tta_low, tta_high; judged ('averaged' if
    every trial has a score_tta of more than one view, else 'plain': trials measure it if averaging was requested, the arm
    has a 2D augmentation or is policy-2d, and its passes allow two views, so no score decides which is judged); judged_mean;
    passes (single-frame passes per image of the judged score); reference (the best baseline by judged mean), is_reference;
    difference, difference_low, difference_high, p, wilcoxon_p, pairs (this arm - reference over common seeds, judged scores);
    parameters, flops, epochs, frames, seconds, search_seconds, device_seconds, search_device_seconds and search_operations
    (means), clock ('wall' if the device's seconds are unknown, and those on the wall stand for them), device_hours (mean of
    (device_seconds * devices + search_device_seconds * search_devices) / 3600); operations_share and seconds_share (per
    training image, as multiples of those of the arm held_against); seeds, scores (plain) and judged_scores (tuples); trials
    (their keys); copies (NaN if unknown);
    motions; policies (the digests, by seed); temporal; dilated; note (missing values, in words).
    Raises UserError for missing columns, an unknown reading, a score outside [0, 1], or one seed twice in an arm.
    """
    _check(rows)
    baselines = tuple(baseline_arms)
    parts = [_summarise_reading(part, str(reading), baselines) for reading, part in _readings(rows)]
    return pd.concat(parts, ignore_index=True)


def _check(rows: pd.DataFrame) -> None:
    missing = [name for name in REQUIRED if name not in rows.columns]
    if missing:
        raise UserError(f"The trial rows lack the columns {', '.join(missing)}; add them to every row.")
    if rows.empty:
        raise UserError("There is no finished trial to report on; run the comparison first.")
    unknown = sorted(set(rows["reading"].astype(str)) - set(READINGS))
    if unknown:
        raise UserError(f"Unknown reading '{unknown[0]}'; known: {', '.join(READINGS)}.")
    for name in ("score", "score_tta"):
        values = pd.to_numeric(rows[name])
        outside = rows[~(values.between(0.0, 1.0) | (values.isna() & (name == "score_tta")))]
        if len(outside):
            first = outside.iloc[0]
            raise UserError(
                f"{name} of arm '{first['arm']}', seed {first['seed']} is {first[name]}; it must be in [0, 1]. "
                "Remove failed trials before reporting, and report their number."
            )
    twice = rows[rows.duplicated(["reading", "arm", "seed"])]
    if len(twice):
        first = twice.iloc[0]
        raise UserError(
            f"Arm '{first['arm']}' has seed {first['seed']} twice at {first['reading']}; give one row per "
            "arm, reading and seed."
        )


def _readings(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(name, rows[rows["reading"] == name]) for name in READINGS if (rows["reading"] == name).any()]


def _summarise_reading(rows: pd.DataFrame, reading: str, baselines: tuple[str, ...]) -> pd.DataFrame:
    trials = {str(arm): part.sort_values("seed") for arm, part in rows.groupby("arm", sort=True)}
    roles = {arm: role_of(arm, baselines) for arm in trials}
    averaged = {arm: is_averaged(part) for arm, part in trials.items()}
    judged = {
        arm: dict(zip(part["seed"], part["score_tta" if averaged[arm] else "score"].astype(float), strict=True))
        for arm, part in trials.items()
    }
    contenders = [arm for arm in trials if roles[arm] == "baseline"]
    means = {arm: estimate(list(scores.values())).mean for arm, scores in judged.items()}
    reference = max(contenders, key=lambda arm: means[arm], default=None)
    records = []
    for arm, part in trials.items():
        to_reference = NO_DIFFERENCE
        if reference is not None and arm != reference:
            to_reference = paired_difference(judged[arm], judged[reference])
        plain = estimate([float(score) for score in part["score"]])
        tested = part["score_tta"].dropna().astype(float)
        records.append(
            {
                "reading": reading,
                "arm": arm,
                "role": roles[arm],
                **_estimate_columns(plain),
                **{f"tta_{key}": value for key, value in _estimate_columns(estimate(list(tested))).items()},
                "judged": "averaged" if averaged[arm] else "plain",
                "judged_mean": means[arm],
                "passes": passes(part, averaged=averaged[arm]),
                "reference": reference,
                "is_reference": arm == reference,
                "difference": to_reference.mean,
                "difference_low": to_reference.low,
                "difference_high": to_reference.high,
                "p": to_reference.p,
                "wilcoxon_p": to_reference.wilcoxon_p,
                "pairs": to_reference.pairs,
                **cost_columns(part),
                "seeds": tuple(int(seed) for seed in part["seed"]),
                "scores": tuple(float(score) for score in part["score"]),
                "judged_scores": tuple(judged[arm].values()),
                "trials": tuple(str(row.get("key", (reading, arm, row["seed"]))) for row in part.to_dict("records")),
                "copies": copies_of(part),
                "motions": str(part["motions"].iloc[0]) if "motions" in part.columns else "",
                "policies": tuple(part["policy"].astype(str)) if "policy" in part.columns else (),
                "temporal": str(part["temporal"].iloc[0]) if "temporal" in part.columns else "",
                "dilated": "dilated" in part.columns and bool(part["dilated"].iloc[0]),
                "note": _note(plain.n, len(tested)),
            }
        )
    measured = shares(records, held_against(trials, reference))
    found = pd.DataFrame.from_records([row | share for row, share in zip(records, measured, strict=True)])
    return found.sort_values(["judged_mean", "arm"], ascending=[False, True], kind="stable")


def _estimate_columns(value: Estimate) -> dict[str, Any]:
    return {"n": value.n, "mean": value.mean, "low": value.low, "high": value.high, "std": value.std}


def _note(runs: int, averaged_runs: int) -> str:
    notes = []
    if runs == 1:
        notes.append("1 run: no interval")
    if 0 < averaged_runs < runs:
        notes.append(
            f"test-time averaging was measured in only {averaged_runs} of {runs} runs, so the plain score is judged"
        )
    return "; ".join(notes)
