"""Drawings of a policy: its graph, and the frames that it makes from images."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from string import ascii_letters
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldshift.report.figures.look import INK, MUTED, NARROW, NORMAL, PAPER, RULE, SERIES, SMALL, WIDTH, new_figure
from fieldshift.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch import Tensor

    from fieldshift.motions import Policy, Step

NODE_RADIUS = 0.17  # inches
RISE = 0.50  # inches per node that an arc spans
LINE, LETTER = 0.14, 0.075  # inches, one line of a label, and about the width of a letter
KEY_LINE = 0.18  # inches, one line of the key under a graph
MOST_TALL_LABELS = 6  # labels of several lines; with more of them, arcs have letters and a key is below


def policy_graph(policy: Policy, *, narrow: bool = False) -> Figure:
    """The policy as a directed graph: images on the left, the output on the right, edges labelled with their motions.

    Nodes are on one line and edges are arcs above it, longer ones higher, so that labels do not overlap. Magnitudes are
    those of the outer frames, in the motion's own unit; edges that the output does not depend on are dashed. narrow: for a
    telephone.
    """
    count = policy.inputs + policy.nodes
    labels = [edge_label(edge.steps) for edge in policy.edges]
    keys: list[str] = []
    page = NARROW if narrow else WIDTH
    spacing = min((page - 1.7) / max(1, count - 1), 2.6) if count > 1 else 0.0
    longest = max((len(line) for label in labels for line in label.split("\n")), default=0)
    if narrow and len(labels) > 1:
        needs_keys = longest * LETTER > spacing
    else:
        needs_keys = len(labels) > MOST_TALL_LABELS and any("\n" in label for label in labels)
    if needs_keys:
        keys = [
            f"{letter}  {label.replace(chr(10), ', ')}" for letter, label in zip(ascii_letters, labels, strict=False)
        ]
        labels = list(ascii_letters[: len(labels)])
    spans = [edge.target - edge.source for edge in policy.edges]
    tallest = max((label.count("\n") + 1 for label in labels), default=1)
    step = max(RISE, LINE * tallest + 0.2)
    top = step * (max(spans) - 0.28) + LINE * tallest / 2 + 0.08 if spans else NODE_RADIUS + 0.08
    key_lines = len(keys) if narrow else math.ceil(len(keys) / 2)
    bottom = -0.68 - KEY_LINE * key_lines
    figure = new_figure(top - bottom, page)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    figure.set_layout_engine("none")
    left = (page - spacing * (count - 1)) / 2
    axes.set_xlim(-left, page - left)
    axes.set_ylim(bottom, top)
    axes.set_axis_off()
    used = _used_nodes(policy)
    for edge, label in zip(policy.edges, labels, strict=True):
        still = all(step.op == "identity" for step in edge.steps)
        ends = (edge.source * spacing, edge.target * spacing)
        height = step * (edge.target - edge.source - 1) + step * 0.72
        _arc(axes, ends, height, label, muted=still, dashed=edge.target not in used)
    for node in range(count):
        _node(axes, node * spacing, node, policy, node in used)
    for place, key in enumerate(keys):
        column, row = divmod(place, key_lines)
        at = (0.35 - left + column * page / 2, -0.75 - KEY_LINE * row)
        axes.text(*at, key, ha="left", va="center", fontsize=SMALL, color=INK)
    return figure


def frame_strip(
    policy: Policy | Sequence[Policy],
    images: Tensor,
    labels: Sequence[str] | None = None,
    *,
    notes: Sequence[str] = (),
    neighbours: bool = False,
    narrow: bool = False,
) -> Figure:
    """The policy's video of every image as a row of frames, with captions below the columns and notes below the figure.

    Several policies (with equal frames, reference and fill) move one image each. With `neighbours`, only the reference
    frame and its two neighbours are drawn, which define how the folded form moves channels.

    images (B, C, H, W), uint8 or floats in [0, 1], C = 1 (grey) or 3; labels, one per image, are left of the rows. The
    caption of a column is the frame's number, its signed distance from the reference frame (unmoved, with a frame around
    it) and, for a policy of a single motion, its magnitude there. Areas outside the moved image are hatched in the figure
    only; the network gets the policy's fill there. narrow: for a telephone.
    """
    breadth = NARROW if narrow else WIDTH
    policies = list(policy) if isinstance(policy, Sequence) else [policy]
    policies = [each.centred if neighbours else each for each in policies]
    first, drawn = policies[0], _drawn_frames(policies[0], neighbours)
    videos = [each.video(images if len(policies) == 1 else images[[row]]) for row, each in enumerate(policies)]
    video = np.concatenate([each[:, drawn].detach().cpu().clamp(0.0, 1.0).numpy() for each in videos])
    rows, frames, channels, height, width = video.shape
    assert channels in (1, 3), f"images of 1 or 3 channels can be shown, not {channels}"
    shown = np.stack([_shown_share(each, (height, width))[drawn] for each in policies])
    cell = min(1.25, (breadth - (0.9 if labels else 0.1)) / frames - 0.05)
    tall = cell * height / width
    s = [float(value) for value in first.distances][drawn]
    step = _only_step(first) if len(policies) == 1 else None
    under = _under_frames(s, step, roomy=cell >= 1.2)
    lines = _strip_notes(first, step, bool((shown < 1.0).any())) + list(notes)
    words = "\n".join(piece for line in lines for piece in textwrap.wrap(line, 50 if narrow else 108))
    foot = LINE * (words.count("\n") + 1) + 0.1
    below = LINE * (max(label.count("\n") for label in under) + 1) + 0.12 + foot
    page = rows * (tall + 0.05) + below
    figure = new_figure(page, breadth)
    figure.set_layout_engine("none")
    start = max(0.85 if labels else 0.0, (breadth - frames * (cell + 0.05) + 0.05) / 2)
    every = math.ceil(0.4 / (cell + 0.05))
    for row in range(rows):
        for frame in range(frames):
            x, y = start + frame * (cell + 0.05), below + (rows - 1 - row) * (tall + 0.05)
            axes = figure.add_axes((x / breadth, y / page, cell / breadth, tall / page))
            _frame(axes, video[row, frame], shown[row % len(shown), frame], reference=s[frame] == 0.0)
            if row == rows - 1 and (frame - s.index(0.0)) % every == 0:
                axes.set_xlabel(under[frame], fontsize=SMALL if cell > 0.5 else 7, color=INK, labelpad=4)
            if labels and frame == 0:
                named = textwrap.fill(labels[row], 12)
                axes.set_ylabel(named, fontsize=SMALL, color=INK, rotation=0, ha="right", va="center", labelpad=6)
    figure.text(0.5, foot / page, words, ha="center", va="top", fontsize=SMALL, color=MUTED)
    return figure


def frame_captions(policies: Sequence[Policy], *, neighbours: bool = False) -> list[str]:
    """The caption of each frame in `frame_strip`, in one line, such as "frame 0, -1.0: rotate -30 degrees"."""
    first = policies[0].centred if neighbours else policies[0]
    s = [float(value) for value in first.distances][_drawn_frames(first, neighbours)]
    labels = _under_frames(s, _only_step(first) if len(policies) == 1 else None, roomy=True)
    return [label.replace("\n", ": ", 1).replace("\n", " ") for label in labels]


def edge_label(steps: Sequence[Step]) -> str:
    """The motions of an edge with their magnitudes, one per line: "translate_x +0.43"."""
    return "\n".join(step_label(step) for step in steps)


def step_label(step: Step) -> str:
    """A short label of a motion with its magnitude: "rotate +30°", "zoom x1.5", "translate_x +0.43", "identity"."""
    from fieldshift.motions import operation

    unit = operation(step.op).unit
    if step.op == "identity":
        return "identity"
    if "degree" in unit:
        return f"{step.op} {step.magnitude:+.3g}°"
    if step.op == "zoom":
        return f"zoom \N{MULTIPLICATION SIGN}{step.magnitude:.3g}"
    return f"{step.op} {step.magnitude:+.2g}"


def _used_nodes(policy: Policy) -> set[int]:
    used = {policy.inputs + policy.nodes - 1}
    for edge in sorted(policy.edges, key=lambda edge: -edge.target):
        if edge.target in used:
            used.add(edge.source)
    return used


def _arc(axes: Axes, ends: tuple[float, float], height: float, label: str, *, muted: bool, dashed: bool) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    start, stop = ends
    reach = stop - start
    colour = MUTED if muted else SERIES[0]
    lean = min(0.35 * reach, 0.9)
    # A cubic with both handles at 4/3 of the height has its crown at the height.
    points = [
        (start + 0.10, 0.14),
        (start + lean * 0.5, height * 4 / 3 - 0.05),
        (stop - lean * 0.5, height * 4 / 3 - 0.05),
        (stop - 0.10, 0.14),
    ]
    path = Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
    style = (0, (4, 3)) if dashed else "solid"
    arrow = FancyArrowPatch(
        path=path, arrowstyle="-|>", mutation_scale=9, color=colour, linewidth=1.1, linestyle=style, zorder=1
    )
    arrow.set_gid("edge")
    axes.add_patch(arrow)
    axes.text(
        start + reach / 2,
        height,
        label,
        ha="center",
        va="center",
        fontsize=SMALL,
        color=MUTED if muted else INK,
        linespacing=1.15,
        zorder=3,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.6},
    )


def _node(axes: Axes, x: float, node: int, policy: Policy, used: bool) -> None:
    from matplotlib.patches import Circle

    last = policy.inputs + policy.nodes - 1
    is_input, is_output = node < policy.inputs, node == last
    face = RULE if is_input else PAPER
    style = "solid" if used else "dashed"
    width = 1.8 if is_output else 1.0
    axes.add_patch(
        Circle((x, 0), NODE_RADIUS, facecolor=face, edgecolor=INK, linewidth=width, linestyle=style, zorder=2)
    )
    axes.text(x, -0.005, str(node), ha="center", va="center", fontsize=NORMAL, color=INK, zorder=4)
    words = []
    if is_input:
        words.append("image")
    if is_output:
        words.append(f"output\n{counted(policy.frames, 'frame')}")
    if words:
        text = "\n".join(words)
        axes.text(x, -NODE_RADIUS - 0.06, text, ha="center", va="top", fontsize=SMALL, color=MUTED, linespacing=1.15)


def _frame(axes: Axes, pixels: NDArray[Any], shown: NDArray[Any], reference: bool) -> None:
    grey = pixels.shape[0] == 1
    picture = pixels[0] if grey else np.moveaxis(pixels, 0, -1)
    enlarged = max(picture.shape[:2]) <= 96
    axes.patch.set(facecolor=PAPER, edgecolor=RULE, hatch="/////")
    axes.imshow(
        picture,
        cmap="gray" if grey else None,
        vmin=0.0,
        vmax=1.0,
        alpha=shown,
        interpolation="nearest" if enlarged else "antialiased",
        aspect="auto",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(SERIES[1] if reference else RULE)
        spine.set_linewidth(1.6 if reference else 0.6)


def _shown_share(policy: Policy, size: tuple[int, int]) -> NDArray[Any]:
    """The opacity of each pixel of each frame, (T, H, W): 1 inside the moved image, less outside of it.

    A fill of one value is hidden (0); one that continues the image ("border", "reflection") is faintly visible.
    """
    import torch

    from fieldshift.motions import Step

    still = Step("identity", 0.0)
    edges = tuple(
        replace(edge, steps=tuple(still if step.is_colour else step for step in edge.steps)) for edge in policy.edges
    )
    reached = replace(policy, edges=edges, fill="zeros").video(torch.ones(1, 1, *size))[0, :, 0].numpy()
    outside = 0.35 if policy.fill in ("border", "reflection") else 0.0
    return np.where(reached > 0.01, 1.0, outside)


def _drawn_frames(policy: Policy, neighbours: bool) -> slice:
    middle = policy.frames // 2
    return slice(middle - 1, middle + 2) if neighbours else slice(None)


def _strip_notes(policy: Policy, step: Step | None, hatched: bool) -> list[str]:
    """Notes that explain the captions of the frames and the hatching."""
    from fieldshift.motions import operation

    if policy.frames == 1:
        return ["one frame: the image itself"]
    parts = ["its number", "its distance from the reference frame (framed)"]
    if step is not None:
        parts.append(f"its {step.op} ({operation(step.op).unit})")
    lines = ["under each frame: " + ", ".join(parts[:-1]) + " and " + parts[-1]]
    if hatched:
        filled = policy.fill if isinstance(policy.fill, str) else "the colour " + str(policy.fill)
        lines.append(f"hatched: outside of the moved image; the network sees the fill there ({filled})")
    return lines


def _under_frames(s: Sequence[float], step: Step | None, *, roomy: bool) -> list[str]:
    """The captions of the frames: number, distance and, for a video of one motion, its magnitude, one per line."""
    signed = min(s) < 0
    labels = []
    for frame, value in enumerate(s):
        distance = f"{value:.2f}".removesuffix("0") if value else "0"
        lines = [str(frame), f"+{distance}" if signed and value > 0 else distance]
        if roomy:
            lines = ["frame " + ", ".join(lines)]
        if step is not None:
            amount = _amount(step, value) if value else "the image itself"
            lines += textwrap.wrap(amount, 18) if roomy else [amount.split(" ")[1] if value else "0"]
        labels.append("\n".join(lines))
    return labels


def _only_step(policy: Policy) -> Step | None:
    """The only step of the policy's video; None if there are several or none, or if its scale is unknown."""
    from fieldshift.motions import operation

    used = _used_nodes(policy)
    edges = [edge for edge in policy.edges if edge.target in used]
    steps = [step for edge in edges for step in edge.steps if step.op != "identity"]
    if policy.frames == 1 or len(steps) != 1 or len(edges) != len({edge.target for edge in edges}):
        return None
    linear = operation(steps[0].op).neutral == 0.0
    return steps[0] if linear or steps[0].op == "zoom" else None


def _amount(step: Step, s: float) -> str:
    """The step's magnitude in a frame at the distance s, in words: "translate_x -0.45 of the width"."""
    from fieldshift.motions import operation

    magnitude = step.magnitude**s if step.op == "zoom" else step.magnitude * s
    words, unit = step_label(replace(step, magnitude=magnitude)), operation(step.op).unit
    return words + unit.removeprefix("fraction") if unit.startswith("fraction of") else words
