"""The common style of all figures of a report: sizes, and colours that colour-blind readers can distinguish."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OWN = "fieldshift"  # the gid of our figures, whose colours the report changes on a dark page
WIDTH, NARROW = 7.6, 3.75  # inches, the width of the report's column, and of a telephone's screen
INK = "#1c2024"
MUTED = "#60666d"
RULE = "#d5d8dc"
PAPER = "#fefefe"
BLUE, GREY, BROWN = "#0072b2", "#a3a8ae", "#7f6a3f"  # those with another shade on a dark page
ROLE_COLOURS = {"das": "#d55e00", "baseline": BLUE, "control": GREY}
ROLE_LABELS = {"das": "das", "baseline": "2D baseline", "control": "control"}
SERIES = (BLUE, "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", BROWN, MUTED)
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
SMALL, NORMAL = 8.0, 9.0  # points


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure in the common style, size in inches, drawn without pyplot: no window and no global state."""
    from fieldshift.literal_figure import LiteralFigure

    figure = LiteralFigure(figsize=(width, height), facecolor=PAPER, layout="constrained")
    figure.set_gid(OWN)
    return figure


def plain_axes(axes: Axes, *, grid: str | None = None) -> None:
    """Styles axes with two thin spines, small ticks and, with grid 'x' or 'y', light grid lines behind the data."""
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(MUTED)
        spine.set_linewidth(0.7)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=SMALL, width=0.7, length=3)
    axes.xaxis.label.set(color=INK, fontsize=NORMAL)
    axes.yaxis.label.set(color=INK, fontsize=NORMAL)
    axes.title.set(color=INK, fontsize=NORMAL)
    axes.set_axisbelow(True)
    if grid == "x":
        axes.xaxis.grid(True, color=RULE, linewidth=0.6)
    elif grid == "y":
        axes.yaxis.grid(True, color=RULE, linewidth=0.6)


def legend(
    figure: Figure,
    handles: list[Artist],
    labels: list[str],
    columns: int | None = None,
    place: str = "outside lower center",
) -> None:
    """Adds a frameless legend below the figure, or at another of matplotlib's outside locations."""
    if not handles:
        return
    where: Any = place
    box = figure.legend(
        handles,
        labels,
        loc=where,
        ncols=columns or min(len(labels), 5),
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        handlelength=1.4,
        columnspacing=1.6,
    )
    box.set_gid("legend")


def apart(names: Sequence[str], limit: int = 28) -> list[str]:
    """The names, each cut to `limit` characters, or to as many more as it takes to tell different ones apart."""
    while len({shorten(name, limit) for name in names}) < len(set(names)):
        limit += 1
    return [shorten(name, limit) for name in names]


def shorten(name: str, limit: int = 28) -> str:
    """The name, cut to `limit` characters with "..." if it is longer."""
    return name if len(name) <= limit else name[: limit - 3] + "..."
