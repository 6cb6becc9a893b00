"""What is asked of das, das-folded and their joins: against which opponents, judged how, and corrected for how many."""

from __future__ import annotations

import math
import re
from typing import Any

import pandas as pd
import pytest
import torch

from fieldshift.folding import motions_of
from fieldshift.motions import Policy
from fieldshift.networks import TEMPORAL, video_network
from fieldshift.readings import GIVEN, UNSEARCHED
from fieldshift.report import answers, caveats, claims, comparison_sheets, headline, summarise, verdict
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


def asked_of(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The summary of a comparison and its claims."""
    summary = summarise(rows, baseline_arms=BASELINES)
    return summary, claims(summary)


@pytest.fixture
def summary(make_trial: Any) -> pd.DataFrame:
    rows = [
        make_trial(
            arm,
            seed,
            plain + off * (1 + place / 10),
            score_tta=math.nan if averaged is None else averaged + off * (1 + place / 10),
            motions="one search per seed" if arm.startswith("das") else "",
            temporal="tsm",
            key=f"{arm}-seed{seed}",
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


@pytest.mark.parametrize(
    ("views", "copies", "judged", "told"),
    [
        (3, 8, "averaged", None),
        (2, 7, "averaged", "das+affine: averages 2 views, 6 passes, as its 3 frames do not divide the 8 passes"),
        (1, 4, "plain", "das+affine: judged plain, 3 passes, as its 3 frames do not divide the 5 passes"),
        (1, 0, "plain", None),
    ],
)
def test_unequal_passes_are_said_and_one_view_is_no_average(
    views: int, copies: int, judged: str, told: str | None, make_trial: Any
) -> None:
    of_joined = 0.6 if views > 1 else math.nan
    rows = [
        make_trial("das+affine", 0, 0.5, score_tta=of_joined, frames=3, views=views, copies=copies),
        make_trial("affine", 0, 0.5, score_tta=0.6 if copies else math.nan, frames=1, views=copies + 1, copies=copies),
        make_trial("das", 0, 0.5, frames=3, views=1, copies=copies),
    ]
    summary = summarise(pd.DataFrame(rows), baseline_arms=BASELINES)
    assert summary.set_index("arm").loc["das+affine", "judged"] == judged
    (sheet,) = comparison_sheets(summary)
    said = [note for note in sheet.notes if "do not divide" in note]
    assert said == ([] if told is None else [f"{told} of arms of one frame."])
    if views == 1:  # as a version of before recorded it: the average over a single view
        rows[0]["score_tta"] = 0.5
        before = summarise(pd.DataFrame(rows), baseline_arms=BASELINES).set_index("arm")
        assert before.loc["das+affine", "judged"] == "plain"


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


def test_an_enlarged_field_is_no_question_where_all_arms_have_it(make_trial: Any) -> None:
    scores = {"none": 0.5, "das-folded": 0.6}
    rows = [make_trial(arm, seed, score + seed / 100) for arm, score in scores.items() for seed in (0, 1)]
    for dilated in (False, True):
        summary = summarise(pd.DataFrame(rows).assign(dilated=dilated), baseline_arms=BASELINES)
        asked = claims(summary)
        assert (FIELD in set(asked["question"])) == (not dilated)
        assert ("No enlarged field" in " ".join(caveats(summary, asked))) == (not dilated)
        assert BASELINE in set(asked["question"])
    wide = pd.DataFrame([*rows, make_trial("wide-field", 0, 0.55), make_trial("wide-field", 1, 0.56)])
    asked = claims(summarise(wide.assign(dilated=True), baseline_arms=BASELINES))
    assert list(asked.loc[asked["question"] == FIELD, "opponent"]) == ["wide-field"]


@pytest.mark.parametrize("motions", [GIVEN, UNSEARCHED])
def test_motions_that_no_search_found_say_nothing_about_searching(motions: str, make_trial: Any) -> None:
    scores = {"none": 0.5, "random-policy-folded": 0.52, "das-folded": 0.6}
    rows = [make_trial(arm, seed, score + seed / 100) for arm, score in scores.items() for seed in (0, 1)]
    summary = summarise(pd.DataFrame(rows).assign(motions=motions), baseline_arms=BASELINES)
    asked = claims(summary)
    assert RANDOM in set(asked["question"])  # still an opponent of the motion
    assert "random motions, random-policy-folded" in verdict(summary, asked)
    assert ("Does the search help?" in verdict(summary, asked)) == (motions == GIVEN)
    assert ("search helps" in answers(summary, asked).columns) == (motions == GIVEN)


def test_controls_are_joined_as_the_method_is() -> None:
    arms = dict.fromkeys(
        ["none", "affine", "identity-folded", "replicate+affine", "random-policy-folded", "random-policy+affine"]
    )
    for temporal in ("tsm", "gsf"):
        still = {STILL: "identity-folded", RANDOM: "random-policy-folded"}
        assert controls_of("das-folded", arms, temporal) == still
        assert controls_of("das+affine", arms, temporal) == {
            STILL: "replicate+affine", RANDOM: "random-policy+affine", UNSHIFTED: None
        }  # fmt: skip
    assert controls_of("das-folded+affine", arms, "tsm") == {STILL: "affine", RANDOM: None}


@pytest.mark.parametrize("temporal", [*TEMPORAL, ""])
def test_the_plain_network_stands_for_no_motion_only_where_it_is_the_folded_one_without(temporal: str) -> None:
    found = controls_of("das-folded", {"none": 0}, temporal)[STILL]
    if temporal == "" or TEMPORAL[temporal].folded is None:
        assert found is None
        return
    torch.manual_seed(0)
    plain = video_network("tiny-resnet", temporal="none", frames=1, num_classes=2, in_channels=1).eval()
    still = video_network(
        "tiny-resnet", temporal=temporal, frames=1, num_classes=2, in_channels=1, motions=motions_of(Policy.replicate(3))
    ).eval()  # fmt: skip
    names = {name.replace(".wrapped", ""): name for name in still.state_dict()}
    still.load_state_dict({names[name]: value for name, value in plain.state_dict().items()}, strict=False)
    images = torch.rand(2, 1, 1, 20, 20)
    with torch.no_grad():
        same = torch.equal(plain(images), still(images))
    assert found == ("none" if same else None)
    assert controls_of("das-folded+affine", {"affine": 0}, temporal)[STILL] == ("affine" if same else None)


@pytest.mark.parametrize(("temporal", "answered"), [("tsm", True), ("gsf", False), ("gsm", False)])
def test_with_a_gate_no_motion_is_unanswered_without_its_arm(temporal: str, answered: bool, make_trial: Any) -> None:
    rows = [
        make_trial(arm, seed, mean + off, temporal=temporal)
        for arm, mean in (("das-folded", 0.8), ("none", 0.6))
        for seed, off in enumerate(WOBBLE)
    ]
    asked = claims(summarise(pd.DataFrame(rows), baseline_arms=BASELINES)).set_index("question")
    assert asked.loc[STILL, "opponent"] == ("none" if answered else "identity-folded")
    assert (asked.loc[STILL, "outcome"] == UNANSWERED) != answered


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


def test_equal_numbers_of_other_trials_are_other_comparisons(make_trial: Any) -> None:
    """Two readings with trials of their own, whose scores happen to be equal: twice as many comparisons, not as many."""
    rows = [
        make_trial(arm, seed, mean + off * (1 + place / 10), reading, key=f"{arm}-{epochs}-seed{seed}")
        for reading, epochs in (("equal epochs", 6), ("equal compute", 18))
        for place, (arm, mean) in enumerate((("das", 0.8), ("replicate", 0.7), ("none", 0.6)))
        for seed, off in enumerate(WOBBLE)
    ]
    asked = claims(summarise(pd.DataFrame(rows), baseline_arms=BASELINES))
    made = asked[asked["p"].notna()]
    assert comparisons(asked) == len(made) == 4
    assert made["holm_p"].min() == pytest.approx(4 * made["p"].min())
    # The same scores of trials that both readings share, one of them read before another: joined, although rows are two.
    shared = [row | {"key": f"{row['arm']}-seed{row['seed']}"} for row in rows]
    assert comparisons(claims(summarise(pd.DataFrame(shared), baseline_arms=BASELINES))) == 2


def test_a_comparison_without_a_p_is_not_counted(make_trial: Any) -> None:
    """One seed in common: a difference, no interval, no p; it makes no other comparison less sure."""
    seeds = {"das": (0, 1, 2), "replicate": (0, 1, 2), "random-policy": (2,), "none": (0, 1, 2)}
    rows = [
        make_trial(arm, seed, 0.5 + 0.1 * (arm == "das") + WOBBLE[seed] * (1 + place / 10))
        for place, arm in enumerate(seeds)
        for seed in seeds[arm]
    ]
    summary = summarise(pd.DataFrame(rows), baseline_arms=BASELINES)
    asked = claims(summary)
    assert set(asked.loc[asked["question"] == RANDOM, "outcome"]) == {"cannot be told"}
    assert comparisons(asked) == 2
    assert "corrected for all 2 comparisons (Holm)" in verdict(summary, claims(summary))
    assert asked["holm_p"].min() == pytest.approx(2 * asked["p"].min())


def test_holm_is_the_step_down_of_its_definition() -> None:
    values = [0.01, 0.04, math.nan, 0.03, 0.005]
    assert holm(values)[:2] == pytest.approx([0.03, 0.06])
    assert math.isnan(holm(values)[2])
    assert holm(values)[3:] == pytest.approx([0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_the_table_of_answers_says_what_the_sentences_say(summary: pd.DataFrame) -> None:
    table = answers(summary, claims(summary))
    *lines, _ = verdict(summary, claims(summary)).splitlines()
    assert len(table.rows) == len(lines)
    for (reading, method, score, *cells), line in zip(table.rows, lines, strict=True):
        assert line.startswith(f"At {reading}, {method} (accuracy {score} %")
        questions = re.findall(r"\? ([^:]+):", line)
        assert [cell for cell in cells if cell != "-"] == questions
    assert table.columns[:3] == ("budget", "method", "accuracy %")


def test_the_verdict_answers_every_question_of_every_method_in_a_sentence(summary: pd.DataFrame) -> None:
    *lines, made = verdict(summary, claims(summary)).splitlines()
    assert [line.split(", ")[1].split(" (")[0] for line in lines] == list(OPPONENTS)
    for line in lines:
        for question in ("Does the motion help?", "Does the search help?", "Does it help at equal compute?"):
            assert line.count(question) == 1
    assert "Does the shift help? Yes: it wins against no shift, no-shift" in lines[0]
    assert "shift" not in lines[1]  # which has no such control
    assert "Does the motion help? Yes: it wins against no motion, none (+25.0, " in lines[1]
    assert "(accuracy 90.0 % with test-time averaging)" in lines[2]
    assert (
        "Does the search help? Unanswered: no network with random motions was run (add the arm "
        "random-policy-folded+affine)." in lines[2]
    )
    assert "the best 2D arm, affine, 70.0 % with test-time averaging (+20.0, " in lines[2]
    assert "the best enlarged field, dilated+affine, 80.0 % with test-time averaging (+10.0, " in lines[2]
    claim = claims(summary).query("method == 'das-folded' and question == @FIELD").iloc[0]
    assert f"p = {claim['p']:.3f}, corrected {claim['holm_p']:.3f}, 3 seeds" in lines[1]
    assert made.endswith("corrected for all 11 comparisons (Holm).")
    assert "11 comparisons of the verdict" in " ".join(caveats(summary, claims(summary)))


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
    line = verdict(*asked_of(pd.DataFrame(rows))).splitlines()[0]
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
    assert "Does the motion help? Yes, but not after correcting p: it wins against" in verdict(summary, claims(summary))


def test_the_table_says_what_is_judged_and_whose_motions_they_are(summary: pd.DataFrame) -> None:
    (sheet,) = comparison_sheets(summary, notes=["Made up."])
    notes = " ".join(sheet.notes)
    assert "* marks the judged score: das-folded+affine, dilated+affine, affine with averaging, like every arm" in notes
    assert "Motions of das-folded+affine, das-folded, das: one search per seed." in notes
    assert notes.endswith("Made up.")


def test_the_headline_shows_every_method_as_it_is_judged(summary: pd.DataFrame) -> None:
    values = [item.value for item in headline(summary).items]
    assert values[:4] == ["78.0 %", "85.0 %", "90.0 %", "70.0 %"]
    assert values[4:7] == ["+8.0", "+15.0", "+20.0"]
