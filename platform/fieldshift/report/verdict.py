"""What may be said after a comparison: wins, loses or cannot be told, and the caveats that belong beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fieldshift.report.claims import BASELINE, CONTROL, FIELD, FIELDS, OUTCOMES, claims, methods_of
from fieldshift.report.intervals import FEWEST_PAIRS_FOR_WILCOXON
from fieldshift.report.statistics import base_of


def verdict(summary: pd.DataFrame, score_name: str = "accuracy") -> str:
    """One line per reading and method: how it stands to the best 2D baseline, the best enlarged field and each control.

    summary comes from `summarise`; the methods are das, das-folded and either joined with a 2D augmentation. A difference
    whose 95 % interval includes zero "cannot be told apart"; without two common seeds there is no interval and the line says
    that instead of a winner. Beside each p stands the one corrected for the number of comparisons made (Holm).
    """
    asked, methods = claims(summary), methods_of(summary)
    sentences = []
    for reading in dict.fromkeys(summary["reading"]):
        part = summary[summary["reading"] == reading]
        present = [method for method in methods if (part["arm"] == method).any()]
        if not present:
            sentences.append(f"At {reading}: das was not run, so nothing can be said.")
        for method in present:
            own = asked[(asked["reading"] == reading) & (asked["method"] == method)]
            sentences.append(_verdict_of(method, part, own, str(reading), score_name, len(asked)))
    return "\n".join(sentences)


def caveats(summary: pd.DataFrame) -> list[str]:
    """What a reader must know before believing the comparison, each point drawn from the summary itself."""
    points = []
    runs = int(summary["n"].min())
    if runs < 5:
        words = "a single run has no interval" if runs == 1 else "the intervals are wide and rest on normality"
        points.append(f"Some arms have only {runs} run{'s' if runs > 1 else ''}: {words}.")
    made = len(claims(summary))
    if made > 1:
        points.append(
            f"Every interval stands on its own: none is corrected for the {made} comparisons of the verdict; the corrected p "
            "(Holm) is."
        )
    points.append(
        "The best baseline is picked by its mean on the same test scores it is then compared with, which favours it "
        "a little over the method."
    )
    if (summary["judged"] == "averaged").any():
        points.append(
            "A method is judged as was fixed beforehand (plain; with test-time averaging where it is joined with a 2D "
            "augmentation), an opponent with averaging where that scores higher; averaging costs several forward passes per "
            "image, which the FLOPs column (one pass) does not show."
        )
    if int(summary["pairs"].max()) < FEWEST_PAIRS_FOR_WILCOXON:
        points.append(
            f"Fewer than {FEWEST_PAIRS_FOR_WILCOXON} common seeds: a rank test (Wilcoxon) cannot reach p = 0.05, so "
            "only the t test is given."
        )
    absent = {"equal epochs", "equal compute"} - set(summary["reading"])
    points += [f"The reading at {reading} was not run; the other one alone is half a comparison." for reading in absent]
    if not summary["arm"].map(base_of).isin(FIELDS).any():
        points.append(
            "No enlarged field (wide-field, dilated): a 2D network with larger or dilated kernels may reach the same score "
            "for less compute."
        )
    noted = dict.fromkeys((row["arm"], row["note"]) for row in summary.to_dict("records") if row["note"])
    return points + [f"{arm}: {note}." for arm, note in noted]


def percent(score: float, digits: int = 1) -> str:
    """A score in [0, 1] as a percentage without the sign; '-' for NaN."""
    return "-" if math.isnan(score) else f"{100 * score:.{digits}f}"


def points_of(difference: float, digits: int = 1) -> str:
    """A difference of scores as signed percentage points; '-' for NaN."""
    if math.isnan(difference):
        return "-"
    text = f"{100 * difference:+.{digits}f}"
    return text.replace("-", "+") if float(text) == 0 else text


def p_words(p: float) -> str:
    """A p value to three digits; '<0.001' below that and '-' for NaN."""
    if math.isnan(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _verdict_of(
    method: str, part: pd.DataFrame, asked: pd.DataFrame, reading: str, score_name: str, comparisons: int
) -> str:
    rows = {str(row["arm"]): row for row in part.to_dict("records")}
    start = f"At {reading}, {method} ({_scored(rows[method], score_name)})"
    sentences = []
    for question, missing in ((BASELINE, f"{start} has no 2D baseline beside it."), (FIELD, "")):
        found = asked[asked["question"] == question].to_dict("records")
        for claim in found:
            row = rows[str(claim["opponent"])]
            name = f"{row['arm']} ({_scored(row)})"
            subject = start if question == BASELINE else "It"
            sentences.append(
                f"{subject} {_words(claim['outcome'])} the {question}, {name}: {_evidence(claim, comparisons)}."
            )
        if not found and missing:
            sentences.append(missing)
    controls = asked[asked["question"] == CONTROL].to_dict("records")
    sentences.append(_controls_sentence(controls) if controls else "No control was run.")
    return " ".join(sentences)


def _scored(row: Mapping[Any, Any], score_name: str = "") -> str:
    averaged = row["judged"] == "averaged"
    score = f"{percent(float(row['tta_mean'] if averaged else row['mean']))} %"
    return " ".join(word for word in (score_name, score, "with test-time averaging" if averaged else "") if word)


def _controls_sentence(controls: Sequence[Mapping[Any, Any]]) -> str:
    groups = []
    for outcome in OUTCOMES:
        named = [f"{_control(claim)} ({_brief(claim)})" for claim in controls if claim["outcome"] == outcome]
        if named:
            groups.append(f"it {_words(outcome)} {_listed(named)}")
    return f"Of the controls (points, 95 % interval), {'; '.join(groups)}."


def _control(claim: Mapping[Any, Any]) -> str:
    return f"{claim['opponent']} without motion" if claim["role"] == "baseline" else str(claim["opponent"])


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _brief(claim: Mapping[Any, Any]) -> str:
    if math.isnan(claim["low"]):
        return "no common seed" if claim["pairs"] == 0 else f"{points_of(claim['difference'])}, one common seed"
    span = f"{points_of(claim['low'])} to {points_of(claim['high'])}"
    return f"{points_of(claim['difference'])}, {span}, corrected {_p_text(claim['holm_p'])}"


def _words(outcome: str) -> str:
    links = {"wins": "wins against", "loses": "loses to", "cannot be told apart": "cannot be told apart from"}
    return links.get(outcome, "cannot be compared with")


def _evidence(claim: Mapping[Any, Any], comparisons: int) -> str:
    points = points_of(claim["difference"])
    if claim["pairs"] == 0:
        return "no common seed"
    if math.isnan(claim["low"]):
        return f"{points} points in one common seed, which gives no interval"
    span = f"{points_of(claim['low'])} to {points_of(claim['high'])}"
    corrected = f" ({_p_text(claim['holm_p'])} corrected for {comparisons} comparisons)" if comparisons > 1 else ""
    return f"{points} points, 95 % interval {span}, {_p_text(claim['p'])}{corrected}, {claim['pairs']} paired seeds"


def _p_text(p: float) -> str:
    words = p_words(p)
    return f"p {words}" if words.startswith("<") else f"p = {words}"
