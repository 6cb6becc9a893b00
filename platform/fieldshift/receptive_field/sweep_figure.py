"""A printable figure of the receptive field against the number of frames T."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fieldshift.errors import UserError
from fieldshift.receptive_field.effective_map import EffectiveField, check_comparable
from fieldshift.receptive_field.figure_frame import COLUMN, LINES, PAGE, framed_figure
from fieldshift.receptive_field.measures import measures

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any


def sweep_figure(fields: Mapping[int, EffectiveField], *, narrow: bool = False) -> Figure:
    """Draws spread along and across, area, and share through other frames, of effective fields against the number of frames.

    fields: T -> the field of a network that reads T frames, at least two, of the same conditions, else UserError. Spread
    in pixels by weighted second moments; areas in square pixels: those with half and 99 % of the mass, and the
    theoretical region reshaped by the policy. narrow: panels below each other, for a telephone.
    """
    if len(fields) < 2:
        raise UserError(f"A field against T needs at least 2 numbers of frames, but got {len(fields)}.")
    counts = sorted(fields)
    check_comparable([fields[count] for count in counts])
    found = [measures(fields[count]) for count in counts]
    last = fields[counts[-1]].conditions
    lines = [f"{replace(last, frames=1).lines()[0]}, temporal module {last.temporal}", last.lines()[1]]
    width, height = (COLUMN, 3 * 2.6) if narrow else (PAGE, 2.7)
    figure, (top,) = framed_figure(width, [height], [*lines, f"policy: {'; '.join(last.policy) or 'replicate'}"])
    left, right, last_panel = top.subplots(3, 1) if narrow else top.subplots(1, 3)
    spreads = {"along": [one.moments.along for one in found], "across": [one.moments.across for one in found]}
    for (name, values), colour, mark in zip(spreads.items(), LINES, "os", strict=False):
        left.plot(counts, values, color=colour, marker=mark, markersize=4, label=f"\N{GREEK SMALL LETTER SIGMA} {name}")
    left.set_ylabel("spread of the effective field (px)", fontsize=8)
    squared = "px\N{SUPERSCRIPT TWO}"
    areas: dict[str, list[float | None]] = {
        "theory": [fields[count].theoretical_area for count in counts],
        "holds 99 % of the mass": [one.area[0.99] for one in found],
        "holds 50 %": [one.area[0.5] for one in found],
    }
    for (name, sizes), colour, mark in zip(areas.items(), ("#000000", *LINES[2:]), "^os", strict=False):
        shown = [(count, size) for count, size in zip(counts, sizes, strict=True) if size is not None]
        if shown:
            right.plot(*zip(*shown, strict=True), color=colour, marker=mark, markersize=4, label=name)
    right.set_ylabel(f"area ({squared})", fontsize=8)
    through = [(count, 100 * share) for count in counts if (share := fields[count].other_frames) is not None]
    if through:
        last_panel.plot(
            *zip(*through, strict=True), color=LINES[0], marker="o", markersize=4, label="through other frames"
        )
    last_panel.set_ylabel("share of the gradient's mass (%)", fontsize=8)
    for axis in (left, right, last_panel):
        axis.set_xlabel("frames T", fontsize=8)
        axis.set_xticks(counts)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=7, frameon=False)
    return figure
