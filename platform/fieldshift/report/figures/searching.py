"""Figures of a search: mixture weights and losses over its passes, and the measurements behind its decisions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fieldshift.report.figures.look import (
    GREY,
    INK,
    MARKS,
    MUTED,
    NARROW,
    SERIES,
    SMALL,
    WIDTH,
    apart,
    legend,
    new_figure,
    plain_axes,
)
from fieldshift.report.figures.traces import Choice, Weights, choice, curve, losses, weights_by_edge

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

KEPT, LOST = SERIES[1], GREY
STILL = "identity"
MOST_PANELS = 48
"""Edges, or decisions, that a figure has panels for: hundreds take minutes to draw, and nobody compares them by eye."""
ACROSS = {5: 16, 3: 29, 2: 46, 1: 1000}
"""Columns of a wide legend, by the length of a name that no longer fits beside so many."""
LOSS_WORDS = {
    "train/loss": "loss on the half that trains the network",
    "val/loss": "loss on the half that trains the motions",
}


def search_history(history: Sequence[Mapping[str, Any]], *, narrow: bool = False) -> Figure:
    """The mixture weights of a search over its passes, one small panel per edge; below, entropy, identity share and losses.

    history has one mapping per pass, as `FoundPolicy.history`: pass, alpha/EDGE/CANDIDATE, search/entropy (of the
    undecided edges, 1 = undecided), search/identity_share and names that end in "loss"; missing ones are not drawn. If there
    are more candidates than colours, those with the smallest final weights are grey. Of more than MOST_PANELS edges only the
    first have a panel. narrow: for a telephone.
    """
    assert history, "a search history has at least one pass"
    at = [int(row["pass"]) for row in history]
    weights = weights_by_edge(history)
    edges = len(weights)
    weights = dict(list(weights.items())[:MOST_PANELS])
    columns = 2 if narrow else 4
    rows = math.ceil(len(weights) / columns)
    tall = 1.25 * rows if rows > 1 else 1.9 * rows
    tall += 0.6 if narrow and weights else 0.0  # a longer legend
    below = 4.6 if narrow else 2.4
    figure = new_figure(tall + below + 0.2, NARROW if narrow else WIDTH)
    lower: Figure | SubFigure = figure
    if weights:
        parts: Any = figure.subfigures(2, 1, height_ratios=(tall, below))
        upper, lower = parts
        _weight_panels(upper, at, weights, figure, columns)
        upper.supylabel(_first_of("mixture weight", len(weights), edges, "edges"), fontsize=SMALL, color=INK)
    state, loss = lower.subplots(2, 1) if narrow else lower.subplots(1, 2)
    _curves(
        state,
        at,
        {
            "entropy (1 = undecided)": curve(history, "search/entropy"),
            "share of identity": curve(history, "search/identity_share"),
        },
        from_zero=True,
    )
    named = {LOSS_WORDS.get(name, name.replace("_", " ")): values for name, values in losses(history).items()}
    _curves(loss, at, named, from_zero=False)
    return figure


def decision_chart(
    decisions: Sequence[Mapping[str, Any]], *, criterion: str | None = None, narrow: bool = False
) -> Figure:
    """The measurements behind every decision of a selection: the loss or score lost when each candidate is removed.

    decisions has one mapping per decision, in order, as `FoundPolicy.decisions`: at, harm ({candidate: loss added or
    score lost when it is removed}), chosen and, for the mark of a choice that may be chance, margin and margin_error.
    criterion: what was measured, "loss" or "score", for the axis. Kept candidates are coloured; a
    bar to the left of zero means that the network was better without it. All panels share one scale. Of more than MOST_PANELS
    decisions only the first have a panel. narrow: for a telephone.
    """
    from matplotlib.patches import Patch

    assert decisions, "a decision chart has at least one decision"
    choices = [choice(decision) for decision in decisions[:MOST_PANELS]]
    longest = max(len(name) for each in choices for name in each.harm)
    columns = 1 if narrow else min(len(choices), 3 if longest <= 18 else 2)
    rows = [choices[start : start + columns] for start in range(0, len(choices), columns)]
    tallest = [max(len(each.harm) for each in row) for row in rows]
    heights = [0.17 * bars + 0.42 for bars in tallest]
    figure = new_figure(sum(heights) + 0.6, NARROW if narrow else WIDTH)
    panels = figure.subplots(len(rows), columns, squeeze=False, sharex=True, height_ratios=heights).ravel()
    for number, (panel, each) in enumerate(zip(panels, choices, strict=False)):
        doubt = " (may be chance)" if each.may_be_chance else ""
        _decision_panel(panel, each, f"{number + 1}. {each.at}{doubt}", tallest[number // columns])
    for panel in panels[len(choices) :]:
        panel.set_axis_off()
    for panel in panels[max(0, len(choices) - columns) : len(choices)]:
        panel.tick_params(labelbottom=True)
    legend(figure, [Patch(color=KEPT), Patch(color=LOST)], ["kept", "discarded"], place="outside upper left")
    lost = {"loss": "loss added", "score": "score lost"}.get(criterion or "", "lost")
    words = f"{lost} when the candidate is removed (further right: needed more)"
    figure.supxlabel(_first_of(words, len(choices), len(decisions), "decisions"), fontsize=SMALL, color=INK)
    return figure


def _first_of(words: str, shown: int, count: int, plural: str) -> str:
    """The words of an axis, with the number of panels where some were left out."""
    return words if shown == count else f"{words}; the first {shown} of {count} {plural}"


def _weight_panels(upper: SubFigure, at: Sequence[int], weights: Weights, figure: Figure, most: int) -> None:
    ops = list(dict.fromkeys(op for candidates in weights.values() for op in candidates))
    looks = _looks(ops, weights)
    columns = min(most, len(weights))
    panels = upper.subplots(math.ceil(len(weights) / columns), columns, sharex=True, sharey=True, squeeze=False).ravel()
    handles: dict[str, Artist] = {}
    for panel, (edge, candidates) in zip(panels, weights.items(), strict=False):
        for op, values in candidates.items():
            colour, mark = looks[op]
            every = max(1, len(at) // 5)
            style = (0, (3, 2)) if op == STILL else "solid"
            line = panel.plot(at, values, color=colour, linestyle=style, linewidth=1.2)[0]
            line.set_marker(mark)
            line.set_markersize(3.2)
            line.set_markevery(every)
            handles.setdefault(op, line)
        plain_axes(panel, grid="y")
        panel.tick_params(labelsize=7)
        panel.set_title(f"edge {edge}", fontsize=SMALL, color=INK, loc="left", pad=2)
        _whole_passes(panel, at)
    for place, panel in enumerate(panels):
        if place >= len(weights):
            panel.set_axis_off()
        elif place + columns >= len(weights):
            panel.tick_params(labelbottom=True)
    found = [value for candidates in weights.values() for values in candidates.values() for value in values]
    panels[0].set_ylim(0, min(1.0, 1.1 * max(value for value in found if not math.isnan(value))))
    coloured = [op for op in ops if looks[op][0] != LOST]
    named = [(handles[op], name) for op, name in zip(coloured, apart(coloured), strict=True)]
    grey = [handles[op] for op in ops if looks[op][0] == LOST]
    named += [(grey[0], f"{len(grey)} others")] if grey else []
    longest = max(len(name) for _, name in named)
    across = (
        (1 if longest >= 16 else 2) if most < 4 else next(n for n, most_long in ACROSS.items() if longest < most_long)
    )
    legend(figure, [line for line, _ in named], [name for _, name in named], columns=across)


def _looks(ops: Sequence[str], weights: Weights) -> dict[str, tuple[str, str]]:
    def final(op: str) -> float:
        return max(candidates[op][-1] for candidates in weights.values() if op in candidates)

    moving = sorted((op for op in ops if op != STILL), key=final, reverse=True)
    coloured = moving if len(moving) <= len(SERIES) else moving[: len(SERIES) - 1]
    in_order = [op for op in ops if op in coloured]
    looks = {op: (SERIES[place], MARKS[place]) for place, op in enumerate(in_order)}
    return {op: looks.get(op, (INK if op == STILL else LOST, "")) for op in ops}


def _curves(panel: Axes, at: Sequence[int], named: Mapping[str, list[float] | None], *, from_zero: bool) -> None:
    shown = {name: values for name, values in named.items() if values is not None and not all(map(math.isnan, values))}
    if not shown:
        panel.set_axis_off()
        return
    for number, (name, values) in enumerate(shown.items()):
        style = ("-", "--", "-.", ":")[number % 4]
        line = panel.plot(at, values, color=SERIES[number % len(SERIES)], linewidth=1.4, linestyle=style, label=name)[0]
        if len(at) < 4:  # a single value between gaps has no line
            line.set_marker("o")
            line.set_markersize(3.2)
    if from_zero:
        panel.set_ylim(0, max(1.0, panel.get_ylim()[1]))
    panel.set_xlabel("pass over the training halves")
    plain_axes(panel, grid="y")
    _whole_passes(panel, at)
    panel.legend(  # above the curves
        frameon=False, fontsize=SMALL, labelcolor=INK, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2
    )  # fmt: skip


def _whole_passes(panel: Axes, at: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    panel.set_xlim(at[0] - 0.5, at[-1] + 0.5)


def _decision_panel(panel: Axes, each: Choice, title: str, places: int) -> None:
    from matplotlib.ticker import MaxNLocator

    ranked = sorted(each.harm.items(), key=lambda item: -item[1])
    colours = [KEPT if name in each.kept else LOST for name, _ in ranked]
    panel.barh(range(len(ranked)), [harm for _, harm in ranked], height=0.72, color=colours, linewidth=0)
    panel.set_yticks(range(len(ranked)), apart([name for name, _ in ranked], 34))
    panel.set_ylim(places - 0.4, -0.6)
    panel.axvline(0, color=MUTED, linewidth=0.8)
    panel.set_title(title, fontsize=SMALL, color=INK, loc="left", pad=3)
    plain_axes(panel, grid="x")
    panel.tick_params(labelsize=7)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=4))
