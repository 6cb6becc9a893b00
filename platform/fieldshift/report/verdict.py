"""What may be said after a comparison: wins, loses or cannot be told, and the caveats that belong beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fieldshift.report.intervals import FEWEST_PAIRS_FOR_WILCOXON, Difference

OUTCOMES = ("wins", "loses", "cannot be told apart", "cannot be told")


def outcomes(summary: pd.DataFrame) -> pd.DataFrame:
    """Each duel of the method with one row: reading, opponent, role, is_reference, difference, low, high, p, pairs,
    outcome.

    The opponents are every arm of the same reading; differences are method - opponent, scores in [0, 1]; outcome is
    one of `OUTCOMES`, by whether the 95 % interval of the paired difference includes zero.
    """
    records = []
    for row in summary[summary["arm"] != summary["method"]].to_dict("records"):
        duel = _duel(row)
        records.append(
            {
                "reading": row["reading"],
                "opponent": row["arm"],
                "role": row["role"],
                "is_reference": bool(row["is_reference"]),
                "difference": duel.mean,
                "low": duel.low,
                "high": duel.high,
                "p": duel.p,
                "pairs": duel.pairs,
                "outcome": duel.outcome,
            }
        )
    names = ["reading", "opponent", "role", "is_reference", "difference", "low", "high", "p", "pairs", "outcome"]
    return pd.DataFrame.from_records(records, columns=names)


def verdict(summary: pd.DataFrame, score_name: str = "accuracy") -> str:
    """One line a reading that says how the method stands to the best baseline and to each control.

    summary comes from `summarise`. A difference whose 95 % interval includes zero "cannot be told apart"; without
    two common seeds there is no interval and the paragraph says that instead of a winner.
    """
    sentences = []
    for reading in dict.fromkeys(summary["reading"]):
        sentences.append(_verdict_of_reading(summary[summary["reading"] == reading], str(reading), score_name))
    return "\n".join(sentences)


def caveats(summary: pd.DataFrame) -> list[str]:
    """What a reader must know before believing the comparison, each point drawn from the summary itself."""
    points = []
    runs = int(summary["n"].min())
    if runs < 5:
        words = "a single run has no interval" if runs == 1 else "the intervals are wide and rest on normality"
        points.append(f"Some arms have only {runs} run{'s' if runs > 1 else ''}: {words}.")
    duels = summary[summary["arm"] != summary["method"]].groupby("reading").size()
    if len(duels) and duels.max() > 1:
        points.append(
            f"Every interval stands on its own: none is corrected for the up to {int(duels.max())} comparisons "
            "of a reading."
        )
    points.append(
        "The best baseline is picked by its mean on the same test scores it is then compared with, which favours it "
        "a little over the method."
    )
    if (summary["judged"] == "averaged").any():
        points.append(
            "An opponent is judged with test-time averaging where that scores higher; averaging costs it several "
            "forward passes an image, which its FLOPs column (one pass) does not show."
        )
    if int(summary["pairs"].max()) < FEWEST_PAIRS_FOR_WILCOXON:
        points.append(
            f"Fewer than {FEWEST_PAIRS_FOR_WILCOXON} common seeds: a rank test (Wilcoxon) cannot reach p = 0.05, so "
            "only the t test is given."
        )
    absent = {"equal epochs", "equal compute"} - set(summary["reading"])
    points += [f"The reading at {reading} was not run; the other one alone is half a comparison." for reading in absent]
    if not summary["arm"].eq("wide-field").any():
        points.append(
            "No wide-field control: a 2D network with larger kernels may reach the same score for less compute."
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


def _duel(row: Mapping[Any, Any]) -> Difference:
    return Difference(
        pairs=int(row["method_pairs"]),
        mean=float(row["method_difference"]),
        low=float(row["method_low"]),
        high=float(row["method_high"]),
        p=float(row["method_p"]),
        wilcoxon_p=math.nan,
    )


def _verdict_of_reading(part: pd.DataFrame, reading: str, score_name: str) -> str:
    method = str(part["method"].iloc[0])
    ours = part[part["arm"] == method]
    if ours.empty:
        return f"At {reading}: {method} was not run, so nothing can be said."
    start = f"At {reading}, {method} ({score_name} {percent(float(ours['mean'].iloc[0]))} %)"
    best = part[part["is_reference"]]
    if best.empty:
        sentences = [f"{start} has no 2D baseline beside it."]
    else:
        row = best.to_dict("records")[0]
        averaged = row["judged"] == "averaged"
        score = float(row["tta_mean"] if averaged else row["mean"])
        name = f"{row['arm']}{' with test-time averaging' if averaged else ''} ({percent(score)} %)"
        duel = _duel(row)
        sentences = [f"{start} {_words(duel.outcome)} the best 2D baseline, {name}: {_evidence(duel)}."]
    controls = part[part["role"] == "control"].to_dict("records")
    sentences.append(_controls_sentence(controls) if controls else "No control was run.")
    return " ".join(sentences)


def _controls_sentence(controls: Sequence[Mapping[Any, Any]]) -> str:
    groups = []
    for outcome in OUTCOMES:
        named = [(str(row["arm"]), _duel(row)) for row in controls if _duel(row).outcome == outcome]
        if named:
            groups.append(f"it {_words(outcome)} {_listed([f'{arm} ({_brief(duel)})' for arm, duel in named])}")
    return f"Of the controls (points, 95 % interval), {'; '.join(groups)}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _brief(duel: Difference) -> str:
    if math.isnan(duel.low):
        return "no common seed" if duel.pairs == 0 else f"{points_of(duel.mean)}, one common seed"
    return f"{points_of(duel.mean)}, {points_of(duel.low)} to {points_of(duel.high)}"


def _words(outcome: str) -> str:
    links = {"wins": "wins against", "loses": "loses to", "cannot be told apart": "cannot be told apart from"}
    return links.get(outcome, "cannot be compared with")


def _evidence(duel: Difference) -> str:
    if duel.pairs == 0:
        return "no common seed"
    if math.isnan(duel.low):
        return f"{points_of(duel.mean)} points in one common seed, which gives no interval"
    span = f"{points_of(duel.low)} to {points_of(duel.high)}"
    p = p_words(duel.p)
    p_text = f"p {p}" if p.startswith("<") else f"p = {p}"
    return f"{points_of(duel.mean)} points, 95 % interval {span}, {p_text}, {duel.pairs} paired seeds"
