"""Segmentation examples side by side: image, ground truth, prediction, and wrong pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fieldshift.report.figures.look import INK, MUTED, SMALL, WIDTH, apart, legend, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

COLUMNS = ("image", "ground truth", "predicted", "wrong pixels, in orange")
WRONG, IGNORED = (0.835, 0.369, 0.0), (1.0, 1.0, 1.0)
LEGEND_ROWS = 0.2  # inches per row of the legend


@dataclass(frozen=True, kw_only=True)
class MapExample:
    """One row of the figure.

    Attributes:
        image: (H, W) or (H, W, 3), uint8.
        truth: (H, W) class numbers; other values are ignored and drawn white.
        predicted: (H, W) class numbers.
        words: a line below the image, such as its name and scores.
    """

    image: NDArray[Any]
    truth: NDArray[Any]
    predicted: NDArray[Any]
    words: str


def map_examples(examples: Sequence[MapExample], classes: Sequence[str]) -> Figure:
    """One row per example, with a legend of the classes that occur; wrong pixels are orange on the greyed image."""
    import numpy as np
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.patches import Patch

    height, width = examples[0].truth.shape
    seen = sorted(
        {int(label) for each in examples for part in (each.truth, each.predicted) for label in np.unique(part)}
    )
    named = [label for label in seen if label < len(classes)]
    ignored = any(label >= len(classes) for label in seen)
    row = (WIDTH / len(COLUMNS)) * min(height / width, 2.0) + 0.22
    legend_rows = -(-(len(named) + ignored) // 6)
    figure = new_figure(row * len(examples) + 0.3 + LEGEND_ROWS * legend_rows)
    grid = figure.subplots(len(examples), len(COLUMNS), squeeze=False)
    palette = class_colours(len(classes))
    for axes, each in zip(grid, examples, strict=True):
        pictures = (
            each.image,
            coloured(each.truth, palette),
            coloured(np.where(each.truth < len(classes), each.predicted, len(classes)), palette),
            mistakes(each, len(classes)),
        )
        for panel, picture, column in zip(axes, pictures, COLUMNS, strict=True):
            panel.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            panel.set_xticks([])
            panel.set_yticks([])
            for spine in panel.spines.values():
                spine.set_color(MUTED)
                spine.set_linewidth(0.5)
            if panel in grid[0]:
                panel.set_title(column, fontsize=SMALL, color=INK)
        axes[0].annotate(
            shorten(each.words, 110), (0, 0), xytext=(0, -4), xycoords="axes fraction", textcoords="offset points",
            va="top", fontsize=SMALL, color=INK, annotation_clip=False,
        ).set_in_layout(False)  # fmt: skip
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(h_pad=0.11, w_pad=0.03)
    handles: list[Any] = [Patch(facecolor=palette[label]) for label in named]
    labels = apart([classes[label] for label in named], 16)
    if ignored:
        handles.append(Patch(facecolor=IGNORED, edgecolor=MUTED, linewidth=0.5))
        labels.append("not counted")
    legend(figure, handles, labels, columns=6)
    return figure


def class_colours(count: int) -> NDArray[Any]:
    """(count, 3) colours in [0, 1]: matplotlib's tab20, dark ones first, or evenly spaced hues for more classes."""
    import matplotlib as mpl
    import numpy as np

    table = np.asarray(mpl.colormaps["tab20"].colors)  # type: ignore[attr-defined]
    table = np.concatenate([table[0::2], table[1::2]])
    if count <= len(table):
        few: NDArray[Any] = table[:count]
        return few
    turn: NDArray[Any] = np.asarray(mpl.colormaps["hsv"](np.arange(count) / count))[:, :3]
    return turn


def coloured(labels: NDArray[Any], palette: NDArray[Any]) -> NDArray[Any]:
    """(H, W) class numbers as (H, W, 3) colours; white for other values."""
    import numpy as np

    table = np.concatenate([palette, [IGNORED]])
    picture: NDArray[Any] = table[np.minimum(labels, len(palette))]
    return picture


def mistakes(example: MapExample, classes: int) -> NDArray[Any]:
    """The image in pale grey with wrong pixels in orange and ignored ones in white."""
    import numpy as np

    image = np.asarray(example.image, dtype=float) / 255
    grey = image.mean(-1) if image.ndim == 3 else image
    pale = np.repeat((0.35 + 0.6 * grey)[..., None], 3, axis=-1)
    counts = example.truth < classes
    pale[(example.predicted != example.truth) & counts] = WRONG
    pale[~counts] = IGNORED
    return pale
