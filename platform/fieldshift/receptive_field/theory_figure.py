"""A printable figure of a network's theoretical receptive field: per layer, and on the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fieldshift.errors import UserError
from fieldshift.receptive_field.figure_frame import LINES, framed_figure
from fieldshift.receptive_field.theory import LayerField

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any

MOST_BOXES = 6


def theory_figure(
    fields: Sequence[LayerField], shown: LayerField, size: tuple[int, int], *, name: str, notes: Sequence[str] = ()
) -> Figure:
    """Draws the size of every layer's field in the network's order, and the boxes of centre units on an image of (H, W) pixels.

    shown: the layer whose box is drawn thick, with those of a few earlier layers of other sizes inside. Raises UserError if
    no layer has a field of known size.
    """
    known = [field for field in fields if field.size is not None and field.map_size is not None and field.rows]
    if shown not in known:
        raise UserError(f"Layer '{shown.name}' has no map of units with a known field; choose another layer.")
    height, width = size
    assert shown.size is not None
    lines = [
        f"{name}, theory, image {height} x {width} px; drawn: the centre unit {shown.centre_unit()} of layer {shown.name}, "
        f"field {shown.size[0]} x {shown.size[1]} px",
        *notes,
    ]
    if (first := next((field for field in fields if field.unbounded_by), None)) is not None:
        lines.append(f"from layer {first.name} on units see the whole image as well, by {first.unbounded_by}")
    figure, (top,) = framed_figure(9.6, [4.0], lines)
    left, right = top.subplots(1, 2)
    main, beside = main_path(known)
    for i, (words, side) in enumerate((("height", 0), ("width", 1))):
        sides = [field.size[side] for field in known if field.size is not None]
        if side == 0 or sides != [field.size[0] for field in known if field.size is not None]:
            left.step(
                [n + 1 for n in main],
                [sides[n] for n in main],
                where="mid",
                color=LINES[i],
                label=f"{words} of the field",
            )
            if beside:
                words = "of layers with a smaller field than an earlier one (shortcuts, branches)"
                left.plot(
                    [n + 1 for n in beside], [sides[n] for n in beside], ".", color=LINES[i], markersize=4, alpha=0.6,
                    label=words if side == 0 else None,
                )  # fmt: skip
    left.axhline(max(size), color="0.5", linestyle="--", linewidth=1, label="side of the image")
    left.plot([known.index(shown) + 1], [shown.size[0]], marker="o", color=LINES[1], label=shown.name)
    left.set_xlabel("layers in order", fontsize=8)
    left.locator_params(axis="x", integer=True)
    left.set_ylabel("side of the theoretical field (px)", fontsize=8)
    left.set_ylim(bottom=0)
    left.tick_params(labelsize=7)
    left.grid(alpha=0.25)
    left.legend(fontsize=7, frameon=False)
    _draw_boxes(right, boxes_of(known, shown), shown, size)
    return figure


def main_path(known: Sequence[LayerField]) -> tuple[list[int], list[int]]:
    """The positions of layers with a growing field, and of those with a smaller one than an earlier layer, as shortcuts."""
    main: list[int] = []
    beside: list[int] = []
    largest = (0, 0)
    for number, field in enumerate(known):
        assert field.size is not None
        grows = field.size[0] >= largest[0] and field.size[1] >= largest[1]
        (main if grows else beside).append(number)
        largest = (max(largest[0], field.size[0]), max(largest[1], field.size[1]))
    return main, beside


def boxes_of(known: Sequence[LayerField], shown: LayerField) -> list[LayerField]:
    """The shown layer and a few earlier ones of different sizes, the smallest first."""
    before = known[: known.index(shown)]
    outermost_last = sorted(before, key=lambda field: -field.name.count("."))
    by_size = {field.size: field for field in outermost_last if field.size != shown.size}
    sizes = sorted(by_size.values(), key=lambda field: field.size or (0, 0))
    step = max(1, -(-len(sizes) // (MOST_BOXES - 1)))
    return [*sizes[step - 1 :: step], shown]


def _draw_boxes(axis: Any, boxes: Sequence[LayerField], shown: LayerField, size: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    height, width = size
    axis.add_patch(Rectangle((-0.5, -0.5), width, height, facecolor="0.93", edgecolor="0.5"))
    reach = [(-0.5, -0.5, height - 0.5, width - 0.5)]
    for i, field in enumerate(boxes):
        top, left, bottom, right = field.box(*field.centre_unit())
        reach.append((top - 0.5, left - 0.5, bottom + 0.5, right + 0.5))
        assert field.size is not None
        axis.add_patch(
            Rectangle(
                (left - 0.5, top - 0.5), right - left + 1, bottom - top + 1, fill=False, edgecolor=LINES[i % len(LINES)],
                linewidth=2.2 if field is shown else 1.0, label=f"{field.name}: {field.size[0]} x {field.size[1]} px",
            )
        )  # fmt: skip
    margin = 0.03 * max(size)
    axis.set_xlim(min(r[1] for r in reach) - margin, max(r[3] for r in reach) + margin)
    axis.set_ylim(max(r[2] for r in reach) + margin, min(r[0] for r in reach) - margin)
    axis.set_aspect("equal")
    axis.set_xlabel("x (px)", fontsize=8)
    axis.set_ylabel("y (px)", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.set_title("receptive fields of centre units on the image (grey)", fontsize=9)
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
