"""Scores of the arms of a comparison, and the score against the number of frames."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fieldshift.report.costs import device_seconds
from fieldshift.report.figures.look import (
    INK,
    MARKS,
    MUTED,
    NARROW,
    NORMAL,
    PAPER,
    ROLE_COLOURS,
    ROLE_LABELS,
    SERIES,
    SMALL,
    WIDTH,
    apart,
    legend,
    new_figure,
    plain_axes,
)
from fieldshift.report.intervals import estimate

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def accuracy_bars(summary: pd.DataFrame, *, score_name: str = "accuracy", narrow: bool = False) -> Figure:
    """The mean score of every arm in percent, one panel per reading, with 95 % intervals and one dot per seed.

    All panels have the same order of arms: by the judged mean of the last reading, best first. Bars start at zero; if
    all scores are so close and high that bars would hide the differences, markers on a shortened axis replace them.
    A diamond marks the mean with test-time averaging if it differs. The number beside a bar is the judged mean.
    summary comes from `summarise`. narrow: panels below each other, for a telephone.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    readings = list(dict.fromkeys(summary["reading"]))
    order = _order(summary)
    scores = np.array([score for row in summary["scores"] for score in row], dtype=np.float64)
    bars = bool(scores.min() < 0.85 * scores.max())
    height = 0.95 + 0.29 * len(order)
    figure = new_figure(height * len(readings) + 0.6, NARROW) if narrow else new_figure(height)
    grid = (len(readings), 1) if narrow else (1, len(readings))
    panels = figure.subplots(*grid, sharey=True, squeeze=False).ravel()
    span = _span(summary, bars)
    for panel, reading in zip(panels, readings, strict=True):
        _score_panel(panel, summary[summary["reading"] == reading], order, span, bars)
        panel.set_title(str(reading).capitalize().replace(", ", ",\n"), fontsize=NORMAL, color=INK, loc="left")
        panel.set_xlabel(f"test {score_name} (%)" + ("" if bars else ", axis not from 0"))
    panels[0].set_yticks(range(len(order)), apart(order, 20 if narrow else 28))
    panels[0].set_ylim(len(order) - 0.4, -0.6)
    roles = [role for role in ROLE_COLOURS if (summary["role"] == role).any()]
    handles: list[Artist] = [Patch(color=ROLE_COLOURS[role]) for role in roles]
    labels = [ROLE_LABELS[role] for role in roles]
    if (summary["n"] > 1).any():
        handles.append(Line2D([], [], color=INK, linewidth=1.3))
        labels.append("95 % interval")
    handles.append(_dot_handle("o"))
    labels.append("one seed")
    if any(_averaging_moved(row) for row in summary.to_dict("records")):
        handles.append(_dot_handle("D"))
        labels.append("mean with test-time averaging (judged)")
    legend(figure, handles, labels, columns=2 if narrow else 6)
    return figure


def frame_curve(rows: pd.DataFrame, *, score_name: str = "accuracy", narrow: bool = False) -> Figure:
    """The score in percent against the number of frames T, and the device's training seconds below.

    With several runs per T: their mean, its 95 % interval and a small dot per run.

    rows has one row per run: frames, score in [0, 1], seconds, and optionally arm (one line per arm) and device_seconds.
    """
    arms = list(dict.fromkeys(rows["arm"].astype(str))) if "arm" in rows.columns else [""]
    ticks = sorted({int(frames) for frames in rows["frames"]})
    figure = new_figure(4.3, NARROW if narrow else WIDTH)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1.0))
    handles: list[Artist] = []
    for number, arm in enumerate(arms):
        part = rows[rows["arm"].astype(str) == arm] if arm else rows
        colour, mark = SERIES[number % len(SERIES)], MARKS[number % len(MARKS)]
        shift = 1.0 + 0.03 * (number - (len(arms) - 1) / 2)
        handles.append(_curve(top, bottom, part, (colour, mark), shift))
    for axes, label in ((top, f"test {score_name} (%)"), (bottom, "training (device s)")):
        axes.set_ylabel(label)
        plain_axes(axes, grid="y")
    bottom.set_ylim(0, 1.2 * bottom.dataLim.ymax)  # room for the highest marker
    bottom.set_xscale("log", base=2)
    bottom.set_xticks(ticks, [str(tick) for tick in ticks])
    bottom.set_xticks([], minor=True)
    bottom.set_xlim(ticks[0] / 1.2, ticks[-1] * 1.2)
    bottom.set_xlabel("frames T")
    if len(arms) > 1:
        legend(figure, handles, arms, columns=2 if narrow else None)
    return figure


def _order(summary: pd.DataFrame) -> list[str]:
    last = list(dict.fromkeys(summary["reading"]))[-1]
    decisive = summary[summary["reading"] == last].sort_values("judged_mean", ascending=False)
    rest = summary[~summary["arm"].isin(decisive["arm"])].sort_values("judged_mean", ascending=False)
    return list(dict.fromkeys([*decisive["arm"], *rest["arm"]]))


def _span(summary: pd.DataFrame, bars: bool) -> tuple[float, float]:
    rows = summary.to_dict("records")
    tops = [100 * max(*row["scores"], _or_zero(row["high"]), _or_zero(row["tta_mean"])) for row in rows]
    lows = [100 * min(*row["scores"], row["low"] if row["n"] > 1 else 1.0) for row in rows]
    below = 0.2 + 0.06 * (max(tops) - min(lows))  # room for half a marker
    # An interval may exceed 100 %; a score cannot, so the axis ends there and the interval is cut.
    return (0.0 if bars else max(0.0, math.floor(min(lows) - below))), min(100.0, max(tops))


def _score_panel(panel: Axes, part: pd.DataFrame, order: list[str], span: tuple[float, float], bars: bool) -> None:
    start, end = span
    room = (end - start) * 0.17
    rows = {str(row["arm"]): row for row in part.to_dict("records")}
    for place, arm in enumerate(order):
        if arm not in rows:
            panel.text(start, place, " not run", va="center", fontsize=SMALL, color=MUTED, style="italic")
            continue
        row = rows[arm]
        colour = ROLE_COLOURS[str(row["role"])]
        mean = 100 * float(row["mean"])
        if bars:
            panel.barh(place, mean, height=0.68, color=colour, linewidth=0)
        else:
            panel.plot(mean, place, "o", markersize=10, color=colour, markeredgewidth=0)
        if int(row["n"]) > 1:
            low, high = max(start, 100 * float(row["low"])), min(100.0, 100 * float(row["high"]))
            # A light line under the dark one keeps the interval visible on the bar and on the page, light or dark.
            casing = 3.0 if bars else 0.0
            panel.plot([low, high], [place, place], color=PAPER, linewidth=casing, solid_capstyle="butt")
            panel.plot([low, high], [place, place], color=INK, linewidth=1.3, solid_capstyle="butt")
        spread = np.linspace(-0.2, 0.2, len(row["scores"])) if len(row["scores"]) > 1 else [0.0]
        dots = [100 * score for score in row["scores"]]
        panel.plot(dots, place + np.asarray(spread), **_dot("o"))
        if _averaging_moved(row):
            panel.plot(100 * float(row["tta_mean"]), place, **_dot("D"))
        reach = max([mean, *dots, 100 * _or_zero(row["high"]), 100 * _or_zero(row["tta_mean"])])
        panel.annotate(
            f"{100 * float(row['judged_mean']):.1f}",
            (min(reach, end), place),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=INK,
        )
    panel.set_xlim(start, end + room)
    panel.set_xticks([tick for tick in panel.get_xticks() if start <= tick <= 100.0])
    plain_axes(panel, grid="x")
    panel.spines["left"].set_visible(bars)
    panel.tick_params(axis="y", length=0)


def _curve(top: Axes, bottom: Axes, rows: pd.DataFrame, look: tuple[str, str], shift: float) -> Artist:
    groups = [(frames, rows[rows["frames"] == frames]) for frames in sorted({int(value) for value in rows["frames"]})]
    colour, mark = look
    at = [frames * shift for frames, _ in groups]
    values = [estimate([100 * float(score) for score in part["score"]]) for _, part in groups]
    line = top.plot(at, [value.mean for value in values], color=colour, marker=mark, markersize=5, linewidth=1.4)[0]
    sure = [(frames, value) for frames, value in zip(at, values, strict=True) if value.n > 1]
    if sure:
        places = [frames for frames, _ in sure]
        means = [value.mean for _, value in sure]
        reach = [value.high - value.mean for _, value in sure]
        top.errorbar(places, means, yerr=reach, fmt="none", ecolor=colour, elinewidth=1.1, capsize=3)
        beside, scores = rows["frames"] * shift * 1.035, 100 * rows["score"]
        top.plot(beside, scores, "o", markersize=2.6, color=colour, alpha=0.55, linewidth=0)
    seconds = [float(device_seconds(part).mean()) for _, part in groups]
    bottom.plot(at, seconds, color=colour, marker=mark, markersize=4, linewidth=1.2)
    return line


def _dot(mark: str) -> dict[str, Any]:
    size = 3.0 if mark == "o" else 4.6
    return {
        "marker": mark,
        "linestyle": "none",
        "markersize": size,
        "markerfacecolor": PAPER,
        "markeredgecolor": INK,
        "markeredgewidth": 0.7,
        "zorder": 4,
    }


def _dot_handle(mark: str) -> Artist:
    from matplotlib.lines import Line2D

    return Line2D([], [], **_dot(mark))


def _averaging_moved(row: Mapping[Any, Any]) -> bool:
    return abs(float(row["tta_mean"]) - float(row["mean"])) > 1e-9  # False for NaN


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else float(value)
