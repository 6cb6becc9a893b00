"""The tables of a study: the comparison, its costs, the frame sweep, the receptive fields and the policy in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from fieldshift.readings import SEARCH_INCLUDED
from fieldshift.report.costs import DEVICE, WALL, clock, device_seconds, disagree
from fieldshift.report.intervals import estimate
from fieldshift.report.sheet import Sheet
from fieldshift.report.verdict import p_words, percent, points_of
from fieldshift.wording import counted

if TYPE_CHECKING:
    from fieldshift.folding import AnyPolicy

SECONDS = {
    DEVICE: "Seconds are the device's: CPU seconds of the training process, or a GPU's seconds.",
    WALL: "Seconds are wall-clock seconds; an earlier version did not measure device seconds.",
}
ROLE_WORDS = {"das": "DAS", "baseline": "2D", "control": "control"}


def comparison_sheets(summary: pd.DataFrame, score_name: str = "accuracy", notes: Sequence[str] = ()) -> list[Sheet]:
    """The comparison, one sheet per reading: scores in percent with intervals and paired differences, best first.

    `notes` are printed below each sheet, after its own notes.
    """
    columns = (
        "arm", "kind", "n", f"{score_name} %", "95 % interval", "averaged", "passes", "vs best 2D", "95 % interval", "p",
    )  # fmt: skip
    sheets = []
    for reading, part in _by_reading(summary):
        sheets.append(
            Sheet(
                title=f"{reading.capitalize()}, test {score_name}",
                columns=columns,
                rows=tuple(_comparison_row(row) for row in part.to_dict("records")),
                align=("left", "left", *("right",) * (len(columns) - 2)),
                notes=(*_comparison_notes(part), *notes),
                breaks=(7,),
            )
        )
    return sheets


def cost_sheets(summary: pd.DataFrame) -> list[Sheet]:
    """The costs of the arms, one sheet per reading: operations and seconds on the device's clock."""
    columns = (
        "arm", "frames", "parameters", "MFLOPs", "epochs", "train s", "search s", "device-h", "operations", "time",
    )  # fmt: skip
    return [
        Sheet(
            title=f"{reading.capitalize()}, costs of one run",
            columns=columns,
            rows=tuple(_cost_row(row) for row in part.to_dict("records")),
            align=("left", *("right",) * (len(columns) - 1)),
            notes=_cost_notes(part),
            breaks=(8,),
        )
        for reading, part in _by_reading(summary)
    ]


def _cost_notes(part: pd.DataFrame) -> tuple[str, ...]:
    rows = part.to_dict("records")
    against = str(rows[0]["held_against"])
    return (
        "MFLOPs: forward pass of one image, all frames (convolutions, matrix products, motions, gates). Means over seeds. "
        f"{SECONDS[DEVICE]} device-h: hours of training and search, each times its devices.",
        f"operations, time: per training image, as multiples of those of {against}.",
        *_wall(rows),
        *_charges(rows),
        *(
            f"{row['arm']}: {row['operations_share']:.2f} times the operations of {against}, but {row['seconds_share']:.2f} "
            "times its seconds."
            for row in rows
            if disagree(row["operations_share"], row["seconds_share"])
        ),
    )


def _wall(rows: Sequence[Mapping[Any, Any]]) -> tuple[str, ...]:
    """The note on arms whose device seconds an earlier version did not measure."""
    named = [str(row["arm"]) for row in rows if row["clock"] == WALL]
    return (f"{', '.join(named)}: wall-clock seconds; the device seconds are not known.",) if named else ()


def _charges(rows: Sequence[Mapping[Any, Any]]) -> tuple[str, ...]:
    """The note with the operations that searches and tunings were charged for."""
    charged = ", ".join(
        f"{row['arm']} {row['search_operations'] / 1e12:.3g}" for row in rows if row["search_operations"] > 0
    )
    if rows[0]["reading"] != SEARCH_INCLUDED or not charged:
        return ()
    return (
        "The budget of every arm is the training of a video arm plus the most expensive search or tuning; its own search is "
        f"paid from it. In 1e12 operations, mean over seeds: {charged}; tunings count as if no sample was stopped early.",
    )


def sweep_sheet(rows: pd.DataFrame, score_name: str = "accuracy", notes: Sequence[str] = ()) -> Sheet:
    """The score against the number of frames T: mean and interval, one row per T (and arm, if there are several).

    rows has one row per run: frames, score in [0, 1], seconds, and optionally arm, epochs, device_seconds, parameters and
    flops. The epochs have a column where they differ. `notes` are printed below.
    """
    arms = "arm" in rows.columns and rows["arm"].nunique() > 1
    lengths = "epochs" in rows.columns and rows["epochs"].nunique() > 1
    records = []
    named = rows if "arm" in rows.columns else rows.assign(arm="")
    for (arm, frames), part in ((_pair(key), part) for key, part in named.groupby(["arm", "frames"], sort=True)):
        value = estimate([float(score) for score in part["score"]])
        flops = float(part["flops"].astype(float).mean()) if "flops" in part.columns else math.nan
        names = [str(arm)] if arms else []
        records.append(
            (
                *names,
                str(int(frames)),
                *([f"{float(part['epochs'].mean()):g}"] if lengths else []),
                str(value.n),
                percent(value.mean),
                interval(value.low, value.high),
                _seconds(float(device_seconds(part).mean())),
                _mega(flops),
            )
        )
    lead = (*(("arm",) if arms else ()), "frames T", *(("epochs",) if lengths else ()))
    columns = (*lead, "n", f"{score_name} %", "95 % interval", "train s", "MFLOPs")
    align = (*(("left",) if arms else ()), *("right",) * (len(columns) - arms))
    unequal = "The folded form trains until it has spent the compute of the study's video arm (equal compute)."
    own = (
        SECONDS[clock(rows)],
        *(("1 run: no interval.",) if any(record[-5] == "1" for record in records) else ()),
        *((unequal,) if lengths else ()),
    )
    title = f"Frame sweep, test {score_name}"
    return Sheet(title=title, columns=columns, rows=tuple(records), align=align, notes=(*own, *notes))


def field_sheet(
    numbers: Mapping[str, Mapping[str, Any]], title: str = "Receptive field", notes: Sequence[str] = ()
) -> Sheet:
    """Receptive-field measures side by side: numbers {network: {measure: value}}, one row per measure.

    Put the unit into the measure's name ("area at 50 %, px²") and the conditions (input size, layer, trained or not,
    number of images) into notes.
    """
    measures = list(dict.fromkeys(name for values in numbers.values() for name in values))
    frame = pd.DataFrame(
        {
            "measure": measures,
            **{name: [_number(values.get(key)) for key in measures] for name, values in numbers.items()},
        }
    )
    sheet = Sheet.from_frame(frame, title=title, notes=notes)
    return Sheet(
        title=title,
        columns=sheet.columns,
        rows=sheet.rows,
        align=("left", *("right",) * len(numbers)),
        notes=sheet.notes,
    )


def policy_sheet(policy: AnyPolicy) -> Sheet:
    """The description of a policy, one row per edge, with its frames, reference and fill in the title."""
    rows = []
    for line in policy.describe():
        edge, colon, words = line.partition(": ")
        rows.append((edge.removeprefix("edge "), words) if colon else ("", line))
    first = policy.parts[0]
    fill = first.fill if isinstance(first.fill, str) else ", ".join(f"{value:.3g}" for value in first.fill)
    title = (
        f"Policy {policy.digest()[:12]}: {counted(policy.frames, 'frame')}, "
        f"reference {first.reference}, {'symmetric' if first.symmetric else 'signed'} distances, fill {fill}"
    )
    return Sheet(title=title, columns=("edge", "motion"), rows=tuple(rows), align=("left", "left"))


def interval(low: float, high: float, signed: bool = False) -> str:
    """An interval of scores in [0, 1] as "84.8 to 95.2" percent (or signed points); '-' where there is none."""
    if math.isnan(low) or math.isnan(high):
        return "-"
    write = points_of if signed else percent
    return f"{write(low)} to {write(high)}"


def _comparison_row(row: Mapping[Any, Any]) -> tuple[str, ...]:
    reference = bool(row["is_reference"])
    return (
        str(row["arm"]),
        ROLE_WORDS[str(row["role"])],
        str(int(row["n"])),
        percent(float(row["mean"])),
        interval(float(row["low"]), float(row["high"])),
        percent(float(row["tta_mean"])) + ("*" if row["judged"] == "averaged" else ""),
        _whole(float(row["passes"])),
        "best 2D" if reference else points_of(float(row["difference"])),
        "" if reference else interval(float(row["difference_low"]), float(row["difference_high"]), signed=True),
        "" if reference else p_words(float(row["p"])),
    )


def _cost_row(row: Mapping[Any, Any]) -> tuple[str, ...]:
    return (
        str(row["arm"]),
        _whole(float(row["frames"])),
        _whole(float(row["parameters"])),
        _mega(float(row["flops"])),
        _whole(float(row["epochs"])),
        _seconds(float(row["device_seconds"])),
        _seconds(float(row["search_device_seconds"])),
        _hours(float(row["device_hours"])),
        _share(float(row["operations_share"])),
        _share(float(row["seconds_share"])),
    )


def _by_reading(summary: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(str(name), summary[summary["reading"] == name]) for name in dict.fromkeys(summary["reading"])]


def _comparison_notes(part: pd.DataFrame) -> tuple[str, ...]:
    notes = [
        "n: runs, one per seed. averaged: with test-time averaging. passes: single-frame passes per image of the judged score."
    ]
    averaged = [str(row["arm"]) for row in part.to_dict("records") if row["judged"] == "averaged"]
    if averaged:
        notes.append(
            f"* marks the judged score: {', '.join(averaged)} with averaging, like every arm with a 2D augmentation and two "
            "or more views; all other arms without. This was fixed in advance, not chosen by score."
        )
    notes += [words for row in part.to_dict("records") if (words := _unequal_passes(row))]
    for motions in dict.fromkeys(motions for motions in part["motions"] if motions):
        named = [str(row["arm"]) for row in part.to_dict("records") if row["motions"] == motions]
        notes.append(f"Motions of {', '.join(named)}: {motions}.")
    best = part[part["is_reference"]]
    if len(best):
        notes.append(
            f"vs best 2D: percentage points above {best.iloc[0]['arm']}, paired by seed; p is that of the paired t test."
        )
    else:
        notes.append("No 2D baseline in this reading, so no differences.")
    ranked = part[part["wilcoxon_p"].notna()]
    if len(ranked):
        values = ", ".join(f"{row['arm']} {p_words(float(row['wilcoxon_p']))}" for row in ranked.to_dict("records"))
        notes.append(f"Wilcoxon signed-rank p: {values}.")
    notes += [f"{row['arm']}: {row['note']}." for row in part.to_dict("records") if row["note"]]
    return tuple(notes)


def _unequal_passes(row: Mapping[Any, Any]) -> str:
    """The note on a combined video arm whose frames do not divide the passes of the other averaged arms; '' for others."""
    frames, asked = float(row["frames"]), float(row["copies"]) + 1
    if "+" not in str(row["arm"]) or not (frames > 1 and asked > 1) or row["passes"] == asked:
        return ""
    views = int(row["passes"] / frames)
    passes_note = (
        f"averages {views} views, {row['passes']:.0f} passes" if views > 1 else f"judged plain, {frames:.0f} passes"
    )
    return f"{row['arm']}: {passes_note}, as its {frames:.0f} frames do not divide the {asked:.0f} passes of arms of one frame."


def _pair(key: Any) -> tuple[str, int]:
    return str(key[0]), int(key[1])


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _whole(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.0f}"


def _mega(flops: float) -> str:
    if math.isnan(flops):
        return "-"
    return f"{flops / 1e6:,.1f}" if flops < 1e8 else f"{flops / 1e6:,.0f}"


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _seconds(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _hours(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"
