"""What is asked of das, das-folded and their joins: against which opponents, judged how, and corrected for how many."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from fieldshift.report import caveats, claims, comparison_sheets, headline, summarise, verdict
from fieldshift.report.claims import BASELINE, CONTROL, FIELD, controls_of, holm, methods_of

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


def test_methods_are_judged_as_was_fixed_beforehand_and_opponents_by_their_better(make_trial: Any) -> None:
    rows = [
        make_trial(arm, seed, 0.7 + seed / 100, score_tta=averaged + seed / 100)
        for arm, averaged in (("das-folded", 0.8), ("das-folded+affine", 0.6), ("dilated+affine", 0.6), ("affine", 0.8))
        for seed in (0, 1)
    ]
    judged = summarise(pd.DataFrame(rows), baseline_arms=BASELINES).set_index("arm")["judged"]
    assert judged.to_dict() == {
        "das-folded": "plain",
        "das-folded+affine": "averaged",  # though it scores lower
        "dilated+affine": "plain",
        "affine": "averaged",
    }


def test_a_joined_arm_has_the_role_of_its_base(summary: pd.DataFrame) -> None:
    roles = dict(zip(summary["arm"], summary["role"], strict=True))
    assert {arm for arm, role in roles.items() if role == "das"} == {"das", "das-folded", "das-folded+affine"}
    assert {arm for arm, role in roles.items() if role == "baseline"} == {"none", "affine"}
    assert roles["dilated+affine"] == "control"


OPPONENTS = {
    "das": {BASELINE: {"affine"}, FIELD: {"dilated+affine"}, CONTROL: {"replicate", "no-shift", "random-policy"}},
    "das-folded": {BASELINE: {"affine"}, FIELD: {"dilated+affine"}, CONTROL: {"none", "random-policy-folded"}},
    "das-folded+affine": {BASELINE: {"affine"}, FIELD: {"dilated+affine"}, CONTROL: {"affine"}},
}


def test_every_method_is_asked_the_same_questions(summary: pd.DataFrame) -> None:
    assert methods_of(summary) == list(OPPONENTS)
    asked = claims(summary)
    for method, opponents in OPPONENTS.items():
        own = asked[asked["method"] == method]
        assert {question: set(part["opponent"]) for question, part in own.groupby("question")} == opponents
    gaps = {(row["method"], row["question"], row["opponent"]): row["difference"] for row in asked.to_dict("records")}
    assert gaps["das-folded", FIELD, "dilated+affine"] == pytest.approx(0.85 - 0.80)
    assert gaps["das-folded+affine", BASELINE, "affine"] == pytest.approx(0.90 - 0.70)


def test_controls_are_joined_as_the_method_is() -> None:
    arms = ["none", "affine", "identity-folded", "replicate+affine", "random-policy-folded", "random-policy+affine"]
    assert controls_of("das-folded", dict.fromkeys(arms)) == ["identity-folded", "random-policy-folded"]
    assert controls_of("das-folded+affine", dict.fromkeys(arms)) == ["affine"]
    assert controls_of("das+affine", dict.fromkeys(arms)) == ["replicate+affine", "random-policy+affine"]


def test_holm_is_the_step_down_of_its_definition() -> None:
    values = [0.01, 0.04, math.nan, 0.03, 0.005]
    assert holm(values)[:2] == pytest.approx([0.03, 0.06])
    assert math.isnan(holm(values)[2])
    assert holm(values)[3:] == pytest.approx([0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_the_verdict_has_a_line_for_every_method(summary: pd.DataFrame) -> None:
    lines = verdict(summary).splitlines()
    assert [line.split(", ")[1].split(" (")[0] for line in lines] == list(OPPONENTS)
    assert (
        "das-folded+affine (accuracy 90.0 % with test-time averaging) wins against the best 2D baseline, affine "
        in lines[2]
    )
    assert "the best enlarged field, dilated+affine (80.0 % with test-time averaging): +5.0 points" in lines[1]
    assert f"corrected for {len(claims(summary))} comparisons" in lines[0]
    assert f"{len(claims(summary))} comparisons of the verdict" in " ".join(caveats(summary))


def test_the_table_says_what_is_judged_and_whose_motions_they_are(summary: pd.DataFrame) -> None:
    (sheet,) = comparison_sheets(summary)
    notes = " ".join(sheet.notes)
    assert "Fixed beforehand, not chosen by score: plain das, das-folded; with averaging das-folded+affine." in notes
    assert "Motions of das-folded, das, das-folded+affine: one search per seed." in notes


def test_the_headline_shows_every_method_as_it_is_judged(summary: pd.DataFrame) -> None:
    values = [item.value for item in headline(summary).items]
    assert values[:4] == ["78.0 %", "85.0 %", "90.0 %", "70.0 %"]
    assert values[4:7] == ["+8.0", "+15.0", "+20.0"]
