"""The frame of figures of receptive fields: their widths, colours and footers of conditions, and their files."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.errors import MissingFeatureError, UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any  # matplotlib is loaded on first use, and shapes are checked in tests without it

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PAGE, COLUMN = 7.6, 3.75
"""Inches: the width of a report's text, and of a telephone's screen. Figures of these widths keep their letters' size there."""
_FORMATS = ("png", "svg", "pdf")
_FOOTER_LINE = 0.16  # inches


def save_figure(figure: Figure, stem: str | Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Writes the figure as `stem`.png and so on, 200 dots per inch, and returns the paths. formats: png, svg, pdf."""
    for kind in formats:
        if kind not in _FORMATS:
            raise UserError(f"Unknown figure format '{kind}'. Known: {', '.join(_FORMATS)}.")
    stem, engine = Path(stem), figure.get_layout_engine()
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in formats]
    stem.parent.mkdir(parents=True, exist_ok=True)
    try:
        for path in paths:
            figure.savefig(path, dpi=200, facecolor="white")
            figure.set_layout_engine(None)  # further formats have the layout of the first
    finally:
        figure.set_layout_engine(engine)
    return paths


def framed_figure(width: float, heights: Sequence[float], lines: Sequence[str]) -> tuple[Figure, list[Any]]:
    """A figure with rows of the given heights in inches above a footer of the lines, and the rows as subfigures."""
    try:
        from fieldshift.literal_figure import LiteralFigure
    except ImportError as error:
        raise MissingFeatureError("Figures need the package matplotlib, which is not installed; install it.") from error
    text = [piece for line in lines for piece in textwrap.wrap(line, int(width * 16))]
    every = [*heights, _FOOTER_LINE * len(text) + 0.1]
    figure = LiteralFigure(figsize=(width, sum(every)), layout="constrained")
    rows: Any = figure.subfigures(len(every), 1, height_ratios=every)
    rows[-1].text(0.01, 1.0, "\n".join(text), fontsize=8, ha="left", va="top", color="0.25", gid="footer")
    return figure, list(rows[:-1])
