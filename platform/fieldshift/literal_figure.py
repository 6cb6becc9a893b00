"""Figures that draw every text as it is written: names come from users, and `$` in one is no mathematics.

matplotlib reads a text with two dollar signs as a formula. Here only the numbers of its own scales are formulas; titles,
labels, ticks, legends and footers are drawn literally, whoever wrote them.
"""

from __future__ import annotations

import re
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

_NUMBER = re.compile(r"\$\\mathdefault\{[-+\d.,{}^\\ a-z]*\}\$")  # what matplotlib's formatters write, and nobody else


class LiteralFigure(Figure):
    """A matplotlib Figure whose texts are drawn literally."""

    def draw(self, renderer: Any) -> None:
        for axes in self.findobj(Axes):
            for axis in (axes.xaxis, axes.yaxis) if isinstance(axes, Axes) and axes.axison else ():
                axis.get_ticklabels(which="both")  # made as late as this, and then kept
        for text in self.findobj(Text):
            text.set_parse_math(bool(_NUMBER.fullmatch(text.get_text())))
        super().draw(renderer)
