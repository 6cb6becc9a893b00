"""The conclusions of a comparison (wins, loses or cannot be told) and their caveats."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from fieldshift.readings import EQUAL_COMPUTE, EQUAL_EPOCHS, READINGS, SEARCH_INCLUDED, UNMOVED, UNSEARCHED
from fieldshift.report.claims import (
    BASELINE,
    FIELD,
    FIELDS,
    OUTCOMES,
    RANDOM,
    STILL,
    UNANSWERED,
    UNSHIFTED,
    comparisons,
    controls_of,
    methods_of,
)
from fieldshift.report.intervals import FEWEST_PAIRS_FOR_WILCOXON
from fieldshift.report.sheet import Sheet
from fieldshift.report.statistics import base_of

SURE = 0.05
"""Corrected p values from this one on make a yes a yes with a reservation."""

# The questions to a method, in the words of a column, and their opponents.
QUESTIONS = (
    ("Does the motion help?", "motion helps", (STILL, RANDOM)),
    ("Does the search help?", "search helps", (RANDOM,)),
    ("Does the shift help?", "shift helps", (UNSHIFTED,)),
    ("Does it help at {reading}?", "beats 2D arms and enlarged fields", (BASELINE, FIELD)),
)


def questions_to(row: Mapping[Any, Any]) -> list[tuple[str, str, tuple[str, ...]]]:
    """The questions to a method's row of the summary: motions that no search found say nothing about searching."""
    return [each for each in QUESTIONS if each[2] != (RANDOM,) or row["motions"] != UNSEARCHED]


def verdict(summary: pd.DataFrame, asked: pd.DataFrame, score_name: str = "accuracy") -> str:
    """The verdict, one line per reading and method: does the motion help, does the search, is it better than 2D?

    summary comes from `summarise`, asked from `claims(summary)`. The methods are das, das-folded and both combined with a 2D
    augmentation. The motion is compared with no motion and with random motions, the search with random motions, the method
    with the best 2D arm and the best enlarged field, both chosen by judged mean. The answer is yes if the method wins against
    all of them (with a reservation if a corrected p is 0.05 or more), no if it loses to one, and not shown otherwise;
    questions whose opponents were not run are unanswered. A difference whose 95 % interval includes zero "cannot be told
    apart"; without two common seeds there is no interval and no winner. Each p is followed by the one corrected for the
    number of different comparisons (Holm), which the last line gives.
    """
    methods = methods_of(summary)
    lines = []
    for reading in dict.fromkeys(summary["reading"]):
        part = summary[summary["reading"] == reading]
        present = [method for method in methods if (part["arm"] == method).any()]
        if not present:
            lines.append(f"At {reading}: das was not run, so there is no verdict.")
        for method in present:
            own = asked[(asked["reading"] == reading) & (asked["method"] == method)]
            lines.append(_verdict_of(method, part, own.to_dict("records"), str(reading), score_name))
    if made := comparisons(asked):
        lines.append(
            "In brackets: points, their 95 % interval over paired seeds, p of the paired t test, and p corrected for all "
            f"{made} comparisons (Holm)."
        )
    return "\n".join(lines)


def answers(summary: pd.DataFrame, asked: pd.DataFrame, score_name: str = "accuracy") -> Sheet:
    """The verdict as a table: one row per reading and method with its judged score and the answer to every question.

    Takes what `verdict` takes.
    """
    names = [words for _, words, _ in QUESTIONS]
    rows = []
    for reading in dict.fromkeys(summary["reading"]):
        part = summary[summary["reading"] == reading]
        for method in methods_of(part):
            own = asked[(asked["reading"] == reading) & (asked["method"] == method)].to_dict("records")
            [row] = part[part["arm"] == method].to_dict("records")
            questions = questions_to(row)
            cells = [
                _answer(found)
                if each in questions and (found := [claim for claim in own if claim["question"] in each[2]])
                else "-"
                for each in QUESTIONS
            ]
            rows.append((str(reading), method, percent(float(row["judged_mean"])), *cells))
    kept = [number for number in range(len(QUESTIONS)) if any(row[3 + number] != "-" for row in rows)]
    return Sheet(
        title="Does it help?",
        columns=("budget", "method", f"{score_name} %", *(names[number] for number in kept)),
        rows=tuple((*row[:3], *(row[3 + number] for number in kept)) for row in rows),
        align=("left", "left", "right", *["left"] * len(kept)),
        notes=(
            "Yes: wins against every opponent of the question; No: loses to one; Not shown: cannot be told apart from one; "
            "Unanswered: no opponent was run; Unanswered in part: some opponents were not run.",
        ),
    )


def caveats(summary: pd.DataFrame, asked: pd.DataFrame) -> list[str]:
    """The caveats of a comparison, derived from its summary and its `claims`."""
    points = []
    runs = int(summary["n"].min())
    if runs < 5:
        words = "a single run has no interval" if runs == 1 else "the intervals are wide and assume normality"
        points.append(f"Some arms have only {runs} run{'s' if runs > 1 else ''}: {words}.")
    made = comparisons(asked)
    if made > 1:
        points.append(
            f"The intervals are not corrected for multiple comparisons; p is, for the {made} comparisons of the verdict "
            "(Holm)."
        )
    points.append(
        "The best 2D arm and the best enlarged field are chosen by their means on the same test scores that the methods are "
        "then compared on, which slightly favours them over the method."
    )
    if (summary["judged"] == "averaged").any():
        points.append(
            "An arm with a 2D augmentation is judged with test-time averaging if its passes allow two views, every other arm "
            "without, as fixed in advance; the passes column gives the number of single-frame passes per image, which the "
            "operations of training do not include."
        )
    if 1 < int(summary["pairs"].max()) < FEWEST_PAIRS_FOR_WILCOXON:
        points.append(
            f"Fewer than {FEWEST_PAIRS_FOR_WILCOXON} common seeds: a rank test (Wilcoxon) cannot reach p = 0.05, so "
            "only the t test is given."
        )
    absent = [name for name in READINGS if name not in set(summary["reading"])]
    points += [
        f"The budget {name} was not run; the other one shows only half of the comparison."
        for name in (EQUAL_EPOCHS, EQUAL_COMPUTE)
        if name in absent and len(absent) < len(READINGS)
    ]
    if SEARCH_INCLUDED in absent and (summary["search_seconds"] != 0).any():
        points.append("The compute does not include the cost of the searches; --budgets search-included does.")
    unanswered = asked[asked["outcome"] == UNANSWERED]
    if not summary["dilated"].any() and not summary["arm"].map(base_of).isin(FIELDS).any():
        points.append(
            "No enlarged field (wide-field, dilated): a 2D network with larger or dilated kernels may reach the same score "
            "for less compute."
        )
    if missing := list(dict.fromkeys(unanswered["opponent"])):
        points.append(
            f"The unanswered questions of the verdict need the arm{'s' * (len(missing) > 1)} {', '.join(missing)}."
        )
    points += equal_trainings(summary)
    noted = dict.fromkeys((row["arm"], row["note"]) for row in summary.to_dict("records") if row["note"])
    return points + [f"{arm}: {note}." for arm, note in noted]


def equal_trainings(summary: pd.DataFrame) -> list[str]:
    """A caveat for each method and its controls without motion and with random motions where two have the same motions."""
    points = {}
    for reading in dict.fromkeys(summary["reading"]):
        rows = {str(row["arm"]): row for row in summary[summary["reading"] == reading].to_dict("records")}
        for method in methods_of(summary):
            if method not in rows:
                continue
            controls = controls_of(method, rows, str(rows[method]["temporal"]))
            random, still = controls[RANDOM], controls[STILL]
            if random and (same := equal_seeds(rows[method], rows[random])):
                of_search = rows[method]["motions"] != UNSEARCHED
                whose = f"that the search of {method} found" if of_search else f"of {method}"
                points[method, random] = (
                    f"{random} drew the motions {whose}, at seed {same}: there both arms are the same training, and their "
                    f"difference says nothing about the {'search' if of_search else 'motions'}."
                )
            for arm in (method, random):
                if arm and still and (same := equal_seeds(rows[arm], rows[still])):
                    points[arm, still] = (
                        f"The motion of {arm} is none at seed {same}: there it is the same training as {still}."
                    )
    return list(points.values())


def equal_seeds(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The seeds, such as "1, 2 of 3", at which two arms are the same training; an arm without a policy moves nothing."""
    if ours["epochs"] != theirs["epochs"]:
        return ""
    moved, other = (
        {seed: policy or UNMOVED for seed, policy in zip(row["seeds"], row["policies"], strict=False)}
        for row in (ours, theirs)
    )
    same = [str(seed) for seed, policy in moved.items() if other.get(seed) == policy]
    return f"{', '.join(same)} of {len(moved)}" if same else ""


def percent(score: float) -> str:
    """A score in [0, 1] as a percentage without the sign; '-' for NaN."""
    return "-" if math.isnan(score) else f"{100 * score:.1f}"


def points_of(difference: float) -> str:
    """A difference of scores as signed percentage points; '-' for NaN."""
    if math.isnan(difference):
        return "-"
    text = f"{100 * difference:+.1f}"
    return text.replace("-", "+") if float(text) == 0 else text


def p_words(p: float) -> str:
    """A p value to three digits; '<0.001' below that and '-' for NaN."""
    if math.isnan(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _verdict_of(
    method: str, part: pd.DataFrame, asked: Sequence[Mapping[Any, Any]], reading: str, score_name: str
) -> str:
    rows = {str(row["arm"]): row for row in part.to_dict("records")}
    sentences = [f"At {reading}, {method} ({_scored(rows[method], score_name)})."]
    answered: set[str] = set()
    for question, _, opponents in questions_to(rows[method]):
        found = [claim for claim in asked if claim["question"] in opponents]
        if found:
            sentences.append(
                f"{question.format(reading=reading)} {_answer(found)}: {_evidence(found, rows, answered)}."
            )
            answered |= set(opponents)
    return " ".join(sentences)


def _answer(found: Sequence[Mapping[Any, Any]]) -> str:
    outcomes = {str(claim["outcome"]) for claim in found}
    if "loses" in outcomes:
        return "No"
    if outcomes == {"wins"}:
        return "Yes" if all(claim["holm_p"] < SURE for claim in found) else "Yes, but not after correcting p"
    if outcomes == {UNANSWERED}:
        return "Unanswered"
    return "Unanswered in part" if outcomes == {"wins", UNANSWERED} else "Not shown"


def _evidence(
    found: Sequence[Mapping[Any, Any]], rows: Mapping[str, Mapping[Any, Any]], answered: Collection[str]
) -> str:
    """The opponents that it wins against and loses to, with the numbers that no earlier question gave."""
    groups = []
    for outcome in OUTCOMES:
        named = [
            _opponent(claim, rows) + ("" if claim["question"] in answered else f" ({_numbers(claim)})")
            for claim in found
            if claim["outcome"] == outcome
        ]
        if named:
            groups.append(f"it {_words(outcome)} {_listed(named)}")
    for claim in found:
        if claim["outcome"] == UNANSWERED:
            groups.append(f"no {_kind(claim)} was run (add the arm {claim['opponent']})")
    return "; ".join(groups)


def _kind(claim: Mapping[Any, Any]) -> str:
    question = str(claim["question"])
    named = {
        STILL: "network of the same form without motion",
        RANDOM: "network with random motions",
        BASELINE: "2D arm",
        FIELD: "arm with an enlarged field",
    }
    return named.get(question, question)


def _opponent(claim: Mapping[Any, Any], rows: Mapping[str, Mapping[Any, Any]]) -> str:
    question, name = claim["question"], claim["opponent"]
    if question in (BASELINE, FIELD):
        return f"the {question}, {name}, {_scored(rows[str(name)])}"
    return f"{question}, {name}"


def _scored(row: Mapping[Any, Any], score_name: str = "") -> str:
    averaged = "with test-time averaging" if row["judged"] == "averaged" else ""
    return " ".join(word for word in (score_name, f"{percent(float(row['judged_mean']))} %", averaged) if word)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _words(outcome: str) -> str:
    links = {"wins": "wins against", "loses": "loses to", "cannot be told apart": "cannot be told apart from"}
    return links.get(outcome, "cannot be compared with")


def _numbers(claim: Mapping[Any, Any]) -> str:
    points = points_of(claim["difference"])
    if claim["pairs"] == 0:
        return "no common seed"
    if math.isnan(claim["low"]):
        seeds = "one common seed" if claim["pairs"] == 1 else f"the same at {claim['pairs']} seeds"
        return f"{points}, {seeds}, no interval"
    span = f"{points_of(claim['low'])} to {points_of(claim['high'])}"
    corrected = f"corrected {p_words(claim['holm_p'])}"
    return f"{points}, {span}, {_p_text(claim['p'])}, {corrected}, {claim['pairs']} seeds"


def _p_text(p: float) -> str:
    words = p_words(p)
    return f"p {words}" if words.startswith("<") else f"p = {words}"
