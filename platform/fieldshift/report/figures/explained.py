"""A picture of a policy with the decisions that led to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fieldshift.folding import AnyPolicy
from fieldshift.motions import Policy
from fieldshift.motions.policy_file import decisions_of
from fieldshift.report.figures.policies import policy_graph
from fieldshift.report.figures.searching import decision_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

DPI = 160


def explained(policy: AnyPolicy) -> Image.Image:
    """The graph of a policy and, if its search is recorded, the chart of its decisions below, as one picture.

    A policy with several motions has one graph per motion.
    """
    from PIL import Image

    decisions = decisions_of(policy.found)
    figures = [policy_graph(policy)] if isinstance(policy, Policy) else [policy_graph(part) for part in policy.parts]
    parts = [drawn(figure) for figure in (*figures, *([decision_chart(decisions)] if decisions else []))]
    sheet = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        sheet.paste(part, ((sheet.width - part.width) // 2, top))
        top += part.height
    return sheet


def drawn(figure: Figure) -> Image.Image:
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels: Any = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return Image.fromarray(np.asarray(pixels)[..., :3])
