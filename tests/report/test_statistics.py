from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fieldshift.errors import UserError
from fieldshift.readings import UNMOVED
from fieldshift.report import caveats, claims, cost_sheets, estimate, outcomes, paired_difference, summarise, verdict

# Two-sided 95 % points of Student's t by degrees of freedom, from a printed table.
PRINTED_T = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 9: 2.2622, 29: 2.0452}
BASELINES = ("none", "affine")


def asked_of(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The summary of a comparison and its claims."""
    summary = summarise(rows, baseline_arms=BASELINES)
    return summary, claims(summary)


def two_sided_p(t: float, df: int) -> float:
    """Twice the upper tail of Student's t: Simpson's rule over its density, substituted to a finite interval."""
    constant = math.gamma((df + 1) / 2) / (math.sqrt(df * math.pi) * math.gamma(df / 2))
    grid = np.linspace(math.atan(abs(t)), math.pi / 2, 20_001)[:-1]  # x = tan(u), dx = 1 / cos(u)^2 du
    x = np.tan(grid)
    values = constant * (1 + x**2 / df) ** (-(df + 1) / 2) / np.cos(grid) ** 2
    return float(2 * np.trapezoid(values, grid))


@pytest.mark.parametrize("df", PRINTED_T)
def test_the_interval_is_the_printed_t_times_the_standard_error(df: int) -> None:
    values = np.random.default_rng(df).normal(0.7, 0.05, df + 1).tolist()
    mean = sum(values) / len(values)
    std = math.sqrt(sum((value - mean) ** 2 for value in values) / df)
    found = estimate(values)
    reach = PRINTED_T[df] * std / math.sqrt(df + 1)
    assert found.n == df + 1
    assert (found.mean, found.std) == pytest.approx((mean, std))
    assert (found.low, found.high) == pytest.approx((mean - reach, mean + reach), rel=1e-4)


@pytest.mark.parametrize(
    ("gaps", "outcome"), [((0.1, 0.12, 0.15), "wins"), ((-0.1, 0.12, 0.15), "cannot be told apart")]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_p_is_the_tail_of_the_t_density_and_agrees_with_the_interval(
    gaps: tuple[float, ...], outcome: str, sign: int
) -> None:
    theirs = {0: 0.5, 1: 0.4, 2: 0.6, 7: 0.1}
    ours = {seed: theirs[seed] + sign * gap for seed, gap in enumerate(gaps)} | {8: 0.9}
    found = paired_difference(ours, theirs)
    signed = [sign * gap for gap in gaps]
    std = math.sqrt(sum((gap - sum(signed) / 3) ** 2 for gap in signed) / 2)
    assert found.pairs == 3
    assert found.p == pytest.approx(two_sided_p(sum(signed) / 3 / (std / math.sqrt(3)), 2), rel=1e-3)
    assert found.outcome == (outcome if sign > 0 or outcome != "wins" else "loses")
    assert (found.p < 0.05) == (found.outcome != "cannot be told apart")
    assert math.isnan(found.wilcoxon_p)


def test_wilcoxon_counts_the_sign_patterns_once_there_are_six_pairs() -> None:
    gaps = [0.01, 0.02, -0.03, 0.04, 0.05, 0.06, 0.07]
    found = paired_difference(dict(enumerate(gaps)), dict.fromkeys(range(7), 0.0))
    ranks = range(1, 8)
    sums = [sum(rank for rank, up in zip(ranks, pattern, strict=True) if up) for pattern in np.ndindex(*(2,) * 7)]
    smaller = 3  # the rank of the only negative difference
    assert found.wilcoxon_p == pytest.approx(2 * sum(total <= smaller for total in sums) / 2**7)


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=8),
    st.lists(st.floats(0, 1), min_size=8, max_size=8),
)
@settings(deadline=None)  # the first call imports scipy
@example([0.0, 0.0], [1.0] * 2 + [0.0] * 6)
@example([0.5, 0.5], [0.5] * 8)
@example([0.0, 0.0, 1.0, 0.0, 2.2250738585e-313], [0.0, 0.0, 0.0, 1.0] + [0.0] * 4)  # scipy's t test overflows
def test_a_difference_changes_sign_with_its_sides(ours: list[float], theirs: list[float]) -> None:
    a, b = dict(enumerate(ours)), dict(enumerate(theirs))
    one, other = paired_difference(a, b), paired_difference(b, a)
    turned = (-other.mean, -other.high, -other.low, other.p)
    assert (one.mean, one.low, one.high, one.p) == pytest.approx(turned, nan_ok=True)
    has_none = np.std([a[key] - b[key] for key in a], ddof=1) <= 1e-12 < abs(one.mean)  # equal differences
    assert math.isnan(one.low) if has_none else one.low <= one.mean <= one.high


def test_too_few_runs_give_no_interval_and_no_winner() -> None:
    assert math.isnan(estimate([]).mean)
    lone = estimate([0.5])
    assert (lone.n, lone.mean) == (1, 0.5)
    assert math.isnan(lone.low)
    assert paired_difference({0: 0.5}, {1: 0.5}).pairs == 0
    single = paired_difference({0: 0.5}, {0: 0.25})
    assert (single.pairs, single.mean, single.outcome) == (1, 0.25, "cannot be told")


def test_equal_differences_are_no_evidence() -> None:
    """Scores are multiples of 1 / images: with 20 images and 2 seeds, a tenth of equally good arms differ equally."""
    same = paired_difference({0: 0.3, 1: 0.1}, {0: 0.3, 1: 0.1})
    assert (same.low, same.high, same.p, same.outcome) == (0.0, 0.0, 1.0, "cannot be told apart")
    shifted = paired_difference({0: 0.3, 1: 0.2}, {0: 0.2, 1: 0.1})
    assert shifted.mean == pytest.approx(0.1)
    assert all(map(math.isnan, (shifted.low, shifted.high, shifted.p)))
    assert shifted.outcome == "cannot be told"
    generator = np.random.default_rng(0)
    draws = generator.binomial(20, 0.9, (4000, 2, 2)) / 20
    found = [paired_difference(dict(enumerate(ours)), dict(enumerate(theirs))) for ours, theirs in draws]
    assert sum(each.p < 0.05 for each in found) < 0.05 * len(found)


def test_a_summary_has_one_row_per_arm_and_reading_with_the_numbers_of_its_trials(rows: pd.DataFrame) -> None:
    summary = summarise(rows, baseline_arms=BASELINES)
    assert len(summary) == 12
    assert list(dict.fromkeys(summary["reading"])) == ["equal epochs", "equal compute"]
    for row in summary.to_dict("records"):
        part = rows[(rows["arm"] == row["arm"]) & (rows["reading"] == row["reading"])]
        scores = part["score"].tolist()
        assert row["n"] == len(scores)
        assert row["scores"] == tuple(scores)
        assert row["seeds"] == tuple(range(len(scores)))
        assert row["mean"] == pytest.approx(sum(scores) / len(scores))
        hours = (
            sum(30 + seed + (39 if row["arm"].startswith("das") else 0) for seed in row["seeds"]) / len(scores) / 3600
        )
        assert row["device_hours"] == pytest.approx(hours)
        assert row["reference"] == "affine"
    roles = dict(zip(summary["arm"], summary["role"], strict=True))
    assert roles == {
        "none": "baseline",
        "affine": "baseline",
        "das": "das",
        "das-gsf": "das",
        "wide-field": "control",
        "replicate": "control",
    }
    single = summary[summary["arm"] == "das-gsf"]
    assert single["low"].isna().all()
    assert set(single["note"]) == {"1 run: no interval"}
    for _, part in summary.groupby("reading"):
        assert part["mean"].is_monotonic_decreasing


def test_paired_differences_are_those_of_common_seeds(rows: pd.DataFrame) -> None:
    part = summarise(rows, baseline_arms=BASELINES).query("reading == 'equal compute'").set_index("arm")
    gaps = [0.90 - 0.70, 0.88 - 0.71, 0.93 - 0.75, 0.91 - 0.72]
    mean = sum(gaps) / 4
    reach = PRINTED_T[3] * math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / 3 / 4)
    das = part.loc["das"]
    assert (das["difference"], das["difference_low"], das["difference_high"]) == pytest.approx(
        (mean, mean - reach, mean + reach), rel=1e-4
    )
    assert das["pairs"] == 4
    affine = part.loc["affine"]
    assert bool(affine["is_reference"])
    assert math.isnan(affine["difference"])
    duel = outcomes(summarise(rows, baseline_arms=BASELINES)).query("reading == 'equal compute'").set_index("opponent")
    assert (duel.loc["affine", "difference"], duel.loc["affine", "low"]) == pytest.approx(
        (mean, mean - reach), rel=1e-4
    )
    assert part.loc["das-gsf", "pairs"] == 1


def test_the_best_baseline_is_that_of_the_best_judged_score(make_trial: Any) -> None:
    trials = [
        make_trial(arm, seed, score + 0.01 * seed, score_tta=tta)
        for arm, score, tta in (("none", 0.68, math.nan), ("affine", 0.70, 0.65), ("das", 0.75, math.nan))
        for seed in range(3)
    ]
    summary = summarise(pd.DataFrame(trials), baseline_arms=BASELINES).set_index("arm")
    assert set(summary["reference"]) == {
        "none"
    }  # affine is judged by its lower, averaged score: that was fixed beforehand
    assert dict(summary["judged"]) == {"none": "plain", "affine": "averaged", "das": "plain"}
    assert summary.loc["affine", "mean"] == pytest.approx(0.71)
    assert summary.loc["affine", "judged_mean"] == summary.loc["affine", "tta_mean"] == pytest.approx(0.65)
    assert summary.loc["das", "difference"] == pytest.approx(0.76 - 0.69)
    partial = pd.DataFrame(trials)
    partial.loc[partial.index[partial["arm"] == "affine"][0], "score_tta"] = math.nan
    found = summarise(partial, baseline_arms=BASELINES).set_index("arm")
    assert found.loc["affine", "judged"] == "plain"
    assert "2 of 3" in str(found.loc["affine", "note"])


def test_costs_are_multiples_of_the_plain_networks_and_a_disagreement_is_said(make_trial: Any) -> None:
    rows = [
        make_trial(arm, seed, 0.5, flops=flops, epochs=epochs, device_seconds_per_epoch=seconds)
        for arm, flops, epochs, seconds in (
            ("none", 4e6, 18, 2.0), ("affine", 4e6, 18, 2.2), ("das", 12e6, 6, 8.0), ("dilated", 4e6, 18, 1.6),
        )
        for seed in (0, 1)
    ]  # fmt: skip
    summary = summarise(pd.DataFrame(rows), baseline_arms=BASELINES)
    shares = summary.set_index("arm")[["operations_share", "seconds_share"]]
    assert shares["operations_share"].to_dict() == pytest.approx({"none": 1, "affine": 1, "das": 3, "dilated": 1})
    assert shares["seconds_share"].to_dict() == pytest.approx({"none": 1, "affine": 1.1, "das": 4, "dilated": 0.8})
    (sheet,) = cost_sheets(summary)
    said = [note for note in sheet.notes if "but" in note]
    assert said == [  # 10 % apart is tolerated
        "das: 3.00 times the operations of none, but 4.00 times its seconds.",
        "dilated: 1.00 times the operations of none, but 0.80 times its seconds.",
    ]
    assert {row[0]: row[-2:] for row in sheet.rows}["das"] == ("3.00", "4.00")
    unknown = summarise(pd.DataFrame(rows).drop(columns="device_seconds_per_epoch"), baseline_arms=BASELINES)
    assert {row[-1] for row in cost_sheets(unknown)[0].rows} == {"-"}


def test_devices_multiply_and_unknown_costs_stay_unknown(make_trial: Any) -> None:
    frame = pd.DataFrame(
        [make_trial("das", 0, 0.5, devices=4), make_trial("none", 0, 0.5, devices=1, search_seconds=None)]
    )
    summary = summarise(frame, baseline_arms=BASELINES).set_index("arm")
    assert summary.loc["das", "device_hours"] == pytest.approx((30 + 39) * 4 / 3600)
    shared = summarise(pd.DataFrame([make_trial("das", 0, 0.5, devices=1, search_devices=4)]), baseline_arms=BASELINES)
    assert shared.loc[0, "device_hours"] == pytest.approx((30 + 39 * 4) / 3600)
    assert math.isnan(float(str(summary.loc["none", "device_hours"])))


def test_costs_are_the_devices_seconds_where_they_were_measured(make_trial: Any) -> None:
    measured = {"device_seconds": 20.0, "search_device_seconds": 16.0, "devices": 2}
    rows = [make_trial("das", 0, 0.5, **measured), make_trial("none", 0, 0.5)]
    summary = summarise(pd.DataFrame(rows), baseline_arms=BASELINES)
    by_arm = summary.set_index("arm")
    assert by_arm.loc["das", ["device_seconds", "search_device_seconds", "clock"]].tolist() == [20, 16, "device"]
    assert by_arm.loc["das", "device_hours"] == pytest.approx((20 + 16) * 2 / 3600)
    assert by_arm.loc["none", ["device_seconds", "clock"]].tolist() == [30, "wall"]
    sheet = cost_sheets(summary)[0]
    shown = {row[0]: row[5:7] for row in sheet.rows}
    assert shown == {"das": ("20.0", "16.0"), "none": ("30.0", "0.0")}
    assert "none: wall-clock seconds; the device seconds are not known." in sheet.notes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": 63.1}, "63.1"),
        ({"score": math.nan}, "failed trials"),
        ({"score_tta": -0.1}, "score_tta"),
        ({"reading": "equal time"}, "equal time"),
        ({"seed": 1}, "twice"),
    ],
)
def test_wrong_rows_are_refused_in_one_line(rows: pd.DataFrame, change: dict[str, Any], words: str) -> None:
    for name, value in change.items():
        rows.loc[0, name] = value
    with pytest.raises(UserError, match=words) as caught:
        summarise(rows, baseline_arms=BASELINES)
    assert "\n" not in str(caught.value)


def test_missing_columns_and_no_rows_are_refused(rows: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="flops, frames"):
        summarise(rows.drop(columns=["flops", "frames"]), baseline_arms=BASELINES)
    with pytest.raises(UserError, match="no finished trial"):
        summarise(rows.iloc[:0], baseline_arms=BASELINES)


def test_the_verdict_says_wins_loses_and_cannot_be_told(rows: pd.DataFrame) -> None:
    summary = summarise(rows, baseline_arms=BASELINES)
    lines = verdict(summary, claims(summary)).splitlines()
    assert len(lines) == 3
    assert lines[1].startswith(
        "At equal compute, das (accuracy 90.5 %). Does the motion help? No: it loses to no motion, replicate"
    )
    assert "(-5.0, " in lines[1]
    assert (
        "Does it help at equal compute? Not shown: it wins against the best 2D arm, affine, 72.0 % (+18.5, " in lines[1]
    )
    assert "it cannot be told apart from the best enlarged field, wide-field, 90.5 % (+0.0, " in lines[1]
    duels = outcomes(summary).query("reading == 'equal compute'").set_index("opponent")
    assert dict(duels["outcome"]) == {
        "replicate": "loses",
        "das-gsf": "cannot be told",
        "wide-field": "cannot be told apart",
        "affine": "wins",
        "none": "wins",
    }


def test_the_verdict_invents_no_winner_where_there_is_none(make_trial: Any) -> None:
    lone = summarise(pd.DataFrame([make_trial("das", 0, 0.9), make_trial("none", 0, 0.1)]), baseline_arms=BASELINES)
    assert "cannot be compared with the best 2D arm" in verdict(lone, claims(lone))
    assert "no interval" in verdict(lone, claims(lone))
    assert "wins" not in verdict(lone, claims(lone))
    assert verdict(lone, claims(lone)).count("Unanswered") == 2
    without = summarise(pd.DataFrame([make_trial("none", 0, 0.1)]), baseline_arms=BASELINES)
    assert verdict(without, claims(without)) == "At equal compute: das was not run, so there is no verdict."
    bare = summarise(pd.DataFrame([make_trial("das", 0, 0.1)]), baseline_arms=BASELINES)
    assert "no 2D arm was run (add the arm none)" in verdict(bare, claims(bare))
    apart = summarise(pd.DataFrame([make_trial("das", 0, 0.9), make_trial("none", 1, 0.1)]), baseline_arms=BASELINES)
    assert "no common seed" in verdict(apart, claims(apart))


def test_a_random_policy_that_equals_the_searched_one_is_told(make_trial: Any) -> None:
    policies = {
        "das": ("a", "b", "c"),
        "random-policy": ("b", "b", "c"),
        "none": ("", "", ""),
        "das-folded": ("a",) * 3,
    }
    rows = pd.DataFrame(
        [
            make_trial(arm, seed, 0.5 + 0.01 * seed, policy=digest)
            for arm, digests in policies.items()
            for seed, digest in enumerate(digests)
        ]
    )
    told = [point for point in caveats(*asked_of(rows)) if "same training" in point]
    assert len(told) == 1
    assert told[0].startswith("random-policy drew the motions that the search of das found, at seed 1, 2 of 3:")
    still = rows.assign(policy=rows["policy"].where((rows["arm"] != "das-folded") | (rows["seed"] != 1), UNMOVED))
    told = [point for point in caveats(*asked_of(still.assign(temporal="tsm"))) if "same training" in point]
    assert told[1:] == ["The motion of das-folded is none at seed 1 of 3: there it is the same training as none."]
    gated = caveats(*asked_of(still.assign(temporal="gsf")))  # without motion, its network is not that of the arm none
    assert not any("The motion of das-folded" in point for point in gated)
    longer = still.assign(temporal="tsm", epochs=still["epochs"].where(still["arm"] != "none", 99))
    assert not any("The motion of das-folded" in point for point in caveats(*asked_of(longer)))
    other = rows.assign(policy=[f"{place}" for place in range(len(rows))])
    for without in (other, rows.drop(columns="policy")):  # earlier versions did not record the motions
        assert not any("same training" in point for point in caveats(*asked_of(without)))


def test_caveats_follow_from_the_summary(rows: pd.DataFrame) -> None:
    text = " ".join(caveats(*asked_of(rows)))
    assert "only 1 run" in text
    assert "das-gsf: 1 run: no interval." in text
    assert "half of the comparison" not in text
    assert "--budgets search-included" in text
    assert "need the arm random-policy." in text
    assert "No enlarged field" not in text
    lonely = rows[(rows["reading"] == "equal epochs") & (rows["arm"] != "wide-field")]
    text = " ".join(caveats(*asked_of(lonely)))
    assert "equal compute was not run" in text
    assert "No enlarged field" in text
