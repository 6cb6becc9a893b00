"""Figures that draw all text literally: names come from users, and `$` in them does not start a formula.

matplotlib reads text with two dollar signs as a formula. Here only the numbers of its own scales are formulas; titles,
labels, ticks, legends and footers are drawn literally.
"""

from __future__ import annotations

import io
import re
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.text import Text

NOTEBOOK_DPI = 110
_NUMBER = re.compile(r"\$\\mathdefault\{[-+\d.,{}^\\ a-z]*\}\$")  # written only by matplotlib's formatters


class LiteralFigure(Figure):
    """A matplotlib Figure that draws all its text literally."""

    def draw(self, renderer: Any) -> None:
        for axes in self.axes:  # those of subfigures, too
            for each in (axes, *axes.child_axes):
                for axis in (each.xaxis, each.yaxis) if each.axison else ():
                    axis.get_ticklabels(which="both")  # created here for the first time, then reused
        for text in self.findobj(Text):
            text.set_parse_math(bool(_NUMBER.fullmatch(text.get_text())))
        engine = self.get_layout_engine()
        only_lays_out = self.axes and self.canvas.is_saving() and not isinstance(engine, PlaceHolderLayoutEngine)
        if engine is not None and only_lays_out:
            engine.execute(self)  # `savefig` draws twice, and of the first time keeps the layout alone
        else:
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        """The picture that a notebook shows where a cell ends with the figure."""
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=NOTEBOOK_DPI, bbox_inches="tight")
        return stream.getvalue()
