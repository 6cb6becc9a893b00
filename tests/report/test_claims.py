"""What is asked of das, das-folded and their joins: against which opponents, judged how, and corrected for how many."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from fieldshift.report import caveats, claims, comparison_sheets, headline, summarise, verdict
from fieldshift.report.claims import (
    BASELINE,
    FIELD,
    RANDOM,
    STILL,
    UNANSWERED,
    UNSHIFTED,
    comparisons,
    controls_of,
    holm,
    methods_of,
)

BASELINES = ("none", "affine")
MEANS = {  # plain, averaged
    "none": (0.60, None),
    "affine": (0.55, 0.70),
    "wide-field": (0.72, None),
    "dilated": (0.71, None),
    "dilated+affine": (0.60, 0.80),
    "das": (0.78, None),
    "replicate": (0.40, None),
    "no-shift": (0.35, None),
    "random-policy": (0.50, None),
    "das-folded": (0.85, None),
    "random-policy-folded": (0.75, None),
    "das-folded+affine": (0.70, 0.90),
}
WOBBLE = (0.0, 0.01, -0.01)


@pytest.fixture
def summary(make_trial: Any) -> pd.DataFrame:
    rows = [
        make_trial(
            arm,
            seed,
            plain + off * (1 + place / 10),
            score_tta=math.nan if averaged is None else averaged + off * (1 + place / 10),
            motions="one search per seed" if arm.startswith("das") else "",
        )
        for place, (arm, (plain, averaged)) in enumerate(MEANS.items())
        for seed, off in enumerate(WOBBLE)
    ]
    return summarise(pd.DataFrame(rows), baseline_arms=BASELINES)


@pytest.mark.parametrize("averaged", [0.6, 0.8])
def test_what_is_judged_does_not_depend_on_any_score(averaged: float, make_trial: Any) -> None:
    rows = [
        make_trial(arm, seed, 0.7 + seed / 100, score_tta=tta + seed / 100)
        for arm, tta in (
            ("das-folded", math.nan), ("das-folded+affine", averaged), ("affine", averaged), ("policy-2d", averaged)
        )
        for seed in (0, 1)
    ]  # fmt: skip
    judged = summarise(pd.DataFrame(rows), baseline_arms=(*BASELINES, "policy-2d")).set_index("arm")
    measured = {"das-folded": "plain", **dict.fromkeys(("das-folded+affine", "affine", "policy-2d"), "averaged")}
    assert judged["judged"].to_dict() == measured
    assert judged.loc["affine", "judged_mean"] == pytest.approx(averaged + 0.005)


def test_passes_are_frames_times_the_views_of_the_judged_score(make_trial: Any) -> None:
    rows = [
        make_trial("das", 0, 0.5, frames=3, views=1),
        make_trial("das+affine", 0, 0.5, score_tta=0.5, frames=3, views=3),
        make_trial("affine", 0, 0.5, score_tta=0.5, frames=1, views=9),
        make_trial("none", 0, 0.5, frames=1, views=1),
    ]
    summary = summarise(pd.DataFrame(rows), baseline_arms=BASELINES)
    assert summary.set_index("arm")["passes"].to_dict() == {"das": 3, "das+affine": 9, "affine": 9, "none": 1}
    (sheet,) = comparison_sheets(summary)
    column = sheet.columns.index("passes")
    assert {row[0]: row[column] for row in sheet.rows} == {"das": "3", "das+affine": "9", "affine": "9", "none": "1"}
    before = pd.DataFrame([{name: value for name, value in row.items() if name != "views"} for row in rows])
    passes = summarise(before, baseline_arms=BASELINES).set_index("arm")["passes"]  # of a run that did not record views
    assert passes["das"] == 3
    assert math.isnan(float(passes["affine"]))


def test_a_joined_arm_has_the_role_of_its_base(summary: pd.DataFrame) -> None:
    roles = dict(zip(summary["arm"], summary["role"], strict=True))
    assert {arm for arm, role in roles.items() if role == "das"} == {"das", "das-folded", "das-folded+affine"}
    assert {arm for arm, role in roles.items() if role == "baseline"} == {"none", "affine"}
    assert roles["dilated+affine"] == "control"


OPPONENTS = {
    "das": {
        STILL: "replicate", RANDOM: "random-policy", UNSHIFTED: "no-shift", BASELINE: "affine", FIELD: "dilated+affine",
    },
    "das-folded": {STILL: "none", RANDOM: "random-policy-folded", BASELINE: "affine", FIELD: "dilated+affine"},
    "das-folded+affine": {
        STILL: "affine", RANDOM: "random-policy-folded+affine", BASELINE: "affine", FIELD: "dilated+affine",
    },
}  # fmt: skip


def test_every_method_is_asked_the_same_questions(summary: pd.DataFrame) -> None:
    assert methods_of(summary) == list(OPPONENTS)
    asked = claims(summary)
    for method, opponents in OPPONENTS.items():
        own = asked[asked["method"] == method]
        assert dict(zip(own["question"], own["opponent"], strict=True)) == opponents
    missing = asked[asked["outcome"] == UNANSWERED]
    assert list(missing["opponent"]) == ["random-policy-folded+affine"]  # the only one that was not run
    gaps = {(row["method"], row["question"]): row["difference"] for row in asked.to_dict("records")}
    assert gaps["das-folded", FIELD] == pytest.approx(0.85 - 0.80)
    assert gaps["das-folded+affine", BASELINE] == pytest.approx(0.90 - 0.70)


def test_controls_are_joined_as_the_method_is() -> None:
    arms = dict.fromkeys(
        ["none", "affine", "identity-folded", "replicate+affine", "random-policy-folded", "random-policy+affine"]
    )
    assert controls_of("das-folded", arms) == {STILL: "identity-folded", RANDOM: "random-policy-folded"}
    assert controls_of("das-folded+affine", arms) == {STILL: "affine", RANDOM: None}
    assert controls_of("das+affine", arms) == {
        STILL: "replicate+affine", RANDOM: "random-policy+affine", UNSHIFTED: None
    }  # fmt: skip


def test_the_same_trials_at_two_readings_are_one_comparison(summary: pd.DataFrame) -> None:
    """das and its controls have one trial for two readings: the correction is for what was compared, not for its printing."""
    twice = pd.concat([summary.assign(reading=reading) for reading in ("equal epochs", "equal compute")])
    once, both = claims(summary), claims(twice)
    # 5 of das, 4 of das-folded, 3 of das-folded+affine, of which affine stands for no motion and is the best 2D arm.
    assert comparisons(once) == comparisons(both) == 11
    assert len(both) == 2 * len(once)
    for reading in ("equal epochs", "equal compute"):
        assert list(both[both["reading"] == reading]["holm_p"].dropna()) == list(once["holm_p"].dropna())
    ps = sorted(set(once["p"].dropna()))
    assert once["holm_p"].min() == pytest.approx(min(1.0, 11 * ps[0]))


def test_holm_is_the_step_down_of_its_definition() -> None:
    values = [0.01, 0.04, math.nan, 0.03, 0.005]
    assert holm(values)[:2] == pytest.approx([0.03, 0.06])
    assert math.isnan(holm(values)[2])
    assert holm(values)[3:] == pytest.approx([0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_the_verdict_answers_every_question_of_every_method_in_a_sentence(summary: pd.DataFrame) -> None:
    *lines, made = verdict(summary).splitlines()
    assert [line.split(", ")[1].split(" (")[0] for line in lines] == list(OPPONENTS)
    for line in lines:
        for question in ("Does the motion help?", "Does the search help?", "Does it help at equal compute?"):
            assert line.count(question) == 1
    assert "Does the shift help? Yes: it wins against no shift, no-shift" in lines[0]
    assert "shift" not in lines[1]  # which has no such control
    assert "Does the motion help? Yes: it wins against no motion, none (+25.0, " in lines[1]
    assert "(accuracy 90.0 % with test-time averaging)" in lines[2]
    assert (
        "Does the search help? Unanswered: nothing was run that stands for the network with random motions (add the arm "
        "random-policy-folded+affine)." in lines[2]
    )
    assert "the best 2D arm, affine, 70.0 % with test-time averaging (+20.0, " in lines[2]
    assert "the best enlarged field, dilated+affine, 80.0 % with test-time averaging (+10.0, " in lines[2]
    claim = claims(summary).query("method == 'das-folded' and question == @FIELD").iloc[0]
    assert f"p = {claim['p']:.3f}, corrected {claim['holm_p']:.3f}, 3 seeds" in lines[1]
    assert made.endswith("comparisons made, 11 (Holm).")
    assert "11 comparisons of the verdict" in " ".join(caveats(summary))


@pytest.mark.parametrize(
    ("still", "drawn", "answer"),
    [
        (0.40, 0.50, "Yes"), (0.90, 0.50, "No"), (0.90, None, "No"), (0.40, 0.779, "Not shown"),
        (0.40, None, "Unanswered in part"), (None, 0.779, "Not shown"), (None, None, "Unanswered"),
    ],
)  # fmt: skip
def test_the_answer_is_yes_only_where_everything_asked_was_run_and_won(
    still: float | None, drawn: float | None, answer: str, make_trial: Any
) -> None:
    means = {"das": 0.78, "replicate": still, "random-policy": drawn}
    rows = [
        make_trial(arm, seed, mean + off * (1 + place / 10))
        for place, (arm, mean) in enumerate(means.items())
        if mean is not None
        for seed, off in enumerate(WOBBLE)
    ]
    line = verdict(summarise(pd.DataFrame(rows), baseline_arms=BASELINES)).splitlines()[0]
    assert f"Does the motion help? {answer}: " in line
    assert "Does it help at equal compute? Unanswered: " in line
    assert ("(add the arm replicate)" in line) == (still is None)


def test_a_yes_that_does_not_outlast_the_correction_says_so(make_trial: Any) -> None:
    """Both differences have an interval above zero; with p near 0.03 each, two comparisons make 0.06."""
    gaps = (0.012, 0.025, 0.036, 0.014)
    rows = [
        make_trial(arm, seed, 0.5 + (gap if arm == "das" else 0.0))
        for arm in ("das", "replicate", "random-policy")
        for seed, gap in enumerate(gaps)
    ]
    rows = [row | {"score": row["score"] + (0.0001 * row["seed"] if row["arm"] == "replicate" else 0)} for row in rows]
    summary = summarise(pd.DataFrame(rows), baseline_arms=BASELINES)
    asked = claims(summary).dropna(subset="p")
    assert (asked["p"] < 0.05).all()
    assert (asked["holm_p"] > 0.05).all()
    assert "Does the motion help? Yes, but not once p is corrected: it wins against" in verdict(summary)


def test_the_table_says_what_is_judged_and_whose_motions_they_are(summary: pd.DataFrame) -> None:
    (sheet,) = comparison_sheets(summary, notes=["Made up."])
    notes = " ".join(sheet.notes)
    assert (
        "* is judged: das-folded+affine, dilated+affine, affine averaged, as every arm with a 2D augmentation" in notes
    )
    assert "Motions of das-folded+affine, das-folded, das: one search per seed." in notes
    assert notes.endswith("Made up.")


def test_the_headline_shows_every_method_as_it_is_judged(summary: pd.DataFrame) -> None:
    values = [item.value for item in headline(summary).items]
    assert values[:4] == ["78.0 %", "85.0 %", "90.0 %", "70.0 %"]
    assert values[4:7] == ["+8.0", "+15.0", "+20.0"]
