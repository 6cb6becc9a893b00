"""Figures of receptive fields that can be printed: axes in pixels of the original image, conditions on every one.

Every function returns a matplotlib Figure that belongs to no window and no global state; `save_figure` writes it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from fieldshift.errors import MissingFeatureError, UserError
from fieldshift.receptive_field.effective_map import EffectiveField, check_comparable
from fieldshift.receptive_field.measures import Measures, measures
from fieldshift.receptive_field.reshaped import Region, Reshaped
from fieldshift.receptive_field.spans import Numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any  # matplotlib is loaded by the first figure, and shapes are checked in tests without it

MAP_COLOURS, DIFFERENCE_COLOURS = "magma", "RdBu_r"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", "-.", ":")
_DECADES = 4
_FORMATS = ("png", "svg", "pdf")


def effective_figure(
    field: EffectiveField,
    *,
    example: Shaped[Tensor, "channels height width"] | None = None,
    region: Region | None = None,
) -> Figure:
    """One effective field: its map on a log scale, its radial profile and, on an example image, its contours.

    example: an image (C, H, W) of the field's size, uint8 or floats in [0, 1]. region: a theoretical field to outline.
    """
    columns = 2 if example is None else 3
    figure = _figure(4.1 * columns, 4.3)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    shares = _shares(field)
    found = measures(field)
    image = _draw_map(axes[0], shares, _log_norm([shares]))
    _outline(axes[0], region, "white")
    axes[0].set_title(_summary(found), fontsize=9)
    _colour_bar(figure, image, axes[0], extend="min")
    _draw_profiles(axes[1], {field.conditions.network: found})
    if example is not None:
        _draw_contours(axes[2], {field.conditions.network: field}, example)
    _footer(figure, [*field.conditions.lines(), *field.notes])
    return figure


def comparison_figure(
    fields: Mapping[str, EffectiveField], *, example: Shaped[Tensor, "channels height width"] | None = None
) -> Figure:
    """Several effective fields on one scale: maps, radial profiles, contours, and the last map minus the first.

    fields: name in the figure -> field, at least two, all of the same conditions, else UserError. Every map is divided
    by its mass, so the scale is the share of the mass per pixel.
    """
    if len(fields) < 2:
        raise UserError(f"A comparison needs at least 2 receptive fields, but {len(fields)} was given.")
    check_comparable(list(fields.values()))
    shares = {name: _shares(field) for name, field in fields.items()}
    found = {name: measures(field) for name, field in fields.items()}
    wide = min(len(fields), 4)
    deep = -(-len(fields) // wide)
    figure = _figure(max(3.1 * wide, 10.5), 3.2 * deep + 4.3)
    halves: Any = figure.subfigures(2, 1, height_ratios=[3.2 * deep, 3.6])
    top, bottom = halves
    axes = top.subplots(deep, wide, squeeze=False).reshape(-1)
    norm = _log_norm(list(shares.values()))
    for axis, name in zip(axes, fields, strict=False):
        image = _draw_map(axis, shares[name], norm)
        axis.set_title(f"{name}\n{_summary(found[name])}", fontsize=9)
    for axis in axes[len(fields) :]:
        axis.set_axis_off()
    _colour_bar(top, image, list(axes), extend="min")
    panels = bottom.subplots(1, 3)
    _draw_profiles(panels[0], found)
    _draw_contours(panels[1], fields, example)
    names = list(fields)
    _draw_difference(bottom, panels[2], shares[names[-1]] - shares[names[0]], f"{names[-1]} - {names[0]}")
    first = next(iter(fields.values()))
    lines = [first.conditions.lines()[1]]
    for name, field in fields.items():
        own = field.conditions.lines()
        lines.append("; ".join([f"{name}: {own[0]}", *own[2:], *field.notes]))
    _footer(figure, lines)
    return figure


def reshaped_figure(regions: Reshaped, *, example: Shaped[Tensor, "channels height width"] | None = None) -> Figure:
    """The theoretical region of every frame and of the fused output on the image, beside the plain network's box."""
    shown = [(f"frame {t}", region) for t, region in enumerate(regions.frames)]
    if len(shown) > 7:
        step = (len(shown) - 1) / 6
        shown = [shown[round(i * step)] for i in range(7)]
    shown.append(("fused", regions.fused))
    wide = min(len(shown), 4)
    deep = -(-len(shown) // wide)
    rows, columns = regions.plain.mask.shape
    figure = _figure(2.9 * wide, (2.5 * min(rows / columns, 2.0) + 0.95) * deep + 0.5)
    axes = figure.subplots(deep, wide, squeeze=False).reshape(-1)
    for axis, (title, region) in zip(axes, shown, strict=False):
        _backdrop(axis, region, example)
        filled = np.where(region.mask.numpy(), 1.0, np.nan)
        axis.imshow(
            filled, extent=_extent(region), cmap="viridis", vmin=0, vmax=1.6, alpha=0.55, interpolation="nearest"
        )
        _outline(axis, regions.plain, LINES[1])
        turn = f", {_degrees(region.angle)}" if region.anisotropy > 1.01 else ""
        axis.set_title(f"{title}: {region.area:.0f} px\n{region.anisotropy:.2f} : 1{turn}", fontsize=9)
        _pixels(axis)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    height, width = regions.size
    cut = "; cut at the image's border" if regions.clipped else ""
    lines = [
        f"theoretical field of unit {regions.unit} of layer {regions.layer}, image {height} x {width} px{cut}",
        f"policy {regions.policy}; outlined: the plain network's {regions.plain.area:.0f} px; "
        "above each: its area, long : short axis, angle",
    ]
    _footer(figure, lines)
    return figure


def save_figure(figure: Figure, stem: str | Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Writes the figure as `stem`.png and so on, 200 dots per inch, and returns the paths. formats: png, svg, pdf."""
    paths = []
    for kind in formats:
        if kind not in _FORMATS:
            raise UserError(f"Unknown figure format '{kind}'. Known: {', '.join(_FORMATS)}.")
        path = Path(stem)
        path = path.with_name(f"{path.name}.{kind}")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200, facecolor="white")
        paths.append(path)
    return paths


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingFeatureError("Figures need the package matplotlib, which is not installed; install it.") from error
    return Figure(figsize=(width, height), layout="constrained")


def _shares(field: EffectiveField) -> Numbers:
    values: Numbers = field.values.numpy()
    shares: Numbers = values / values.sum()
    return shares


def _summary(found: Measures) -> str:
    spread = found.moments
    turn = f" at {_degrees(spread.angle)}" if spread.anisotropy > 1.1 else ""
    half = f"50 % in {found.area[0.5]:.0f} px, " if 0.5 in found.area else ""
    return f"{half}\N{GREEK SMALL LETTER SIGMA} {spread.along:.1f} x {spread.across:.1f} px{turn}"


def _degrees(angle: float) -> str:
    return f"{round(angle)}\N{DEGREE SIGN}"


def _log_norm(maps: Sequence[Numbers]) -> Any:
    from matplotlib.colors import LogNorm

    highest = max(float(shares.max()) for shares in maps)
    return LogNorm(highest * 10.0**-_DECADES, highest)


def _draw_map(axis: Any, shares: Numbers, norm: Any) -> Any:
    from matplotlib import colormaps

    colours = colormaps[MAP_COLOURS]
    colours = colours.with_extremes(under=colours(0.0), bad=colours(0.0))
    image = axis.imshow(np.maximum(shares, 1e-300), cmap=colours, norm=norm, interpolation="nearest")
    _pixels(axis)
    return image


def _draw_profiles(axis: Any, found: Mapping[str, Measures]) -> None:
    highest = max(max(one.profile) for one in found.values())
    for i, (name, one) in enumerate(found.items()):
        axis.plot(one.radii, one.profile, color=_colour(i), linestyle=_STYLES[i % 4], label=name)
    axis.set_yscale("log")
    axis.set_ylim(highest * 10.0 ** -(_DECADES + 1), highest * 2)
    axis.set_xlim(left=0)
    axis.set_xlabel("distance from the centre of mass (px)", fontsize=8)
    axis.set_ylabel("mean share of the mass per pixel", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.set_title("radial profile", fontsize=9)
    axis.grid(alpha=0.25)
    if len(found) > 1:
        axis.legend(fontsize=7, frameon=False)


def _draw_contours(axis: Any, fields: Mapping[str, EffectiveField], example: Tensor | None) -> None:
    """The smallest regions that hold half (thick) and 99 % (thin) of each map's mass, on the example image."""
    shape = next(iter(fields.values())).values.shape
    axis.imshow(np.ones((*shape, 3)) if example is None else _picture(example, shape), alpha=0.75)
    for i, (name, field) in enumerate(fields.items()):
        shares = _shares(field)
        for fraction, width in ((0.99, 0.8), (0.5, 2.0)):
            level = _level(shares, fraction)
            if float(shares.min()) < level < float(shares.max()):
                axis.contour(shares, levels=[level], colors=[_colour(i)], linewidths=width, linestyles=[_STYLES[i % 4]])
        axis.plot([], [], color=_colour(i), linestyle=_STYLES[i % 4], label=name)
    axis.set_title("50 % (thick) and 99 % (thin) of the mass", fontsize=9)
    if len(fields) > 1:
        axis.legend(fontsize=7, loc="upper right", framealpha=0.85)
    _pixels(axis)


def _level(shares: Numbers, fraction: float) -> float:
    """The value that the pixels holding `fraction` of the mass, strongest first, all reach."""
    ordered = np.sort(shares.reshape(-1))[::-1]
    return float(ordered[min(int(np.searchsorted(np.cumsum(ordered), fraction)), ordered.size - 1)])


def _draw_difference(figure: Any, axis: Any, difference: Numbers, title: str) -> None:
    from matplotlib.colors import SymLogNorm

    largest = float(np.abs(difference).max()) or 1.0
    norm = SymLogNorm(linthresh=largest * 0.02, linscale=0.5, vmin=-largest, vmax=largest)
    image = axis.imshow(difference, cmap=DIFFERENCE_COLOURS, norm=norm, interpolation="nearest")
    axis.set_title(f"difference: {title}", fontsize=9)
    decade = 10.0 ** math.floor(math.log10(largest))
    _colour_bar(figure, image, axis).set_ticks([-decade, -decade / 10, 0.0, decade / 10, decade])
    _pixels(axis)


def _colour_bar(figure: Any, image: Any, axes: Any, **settings: Any) -> Any:
    bar = figure.colorbar(image, ax=axes, shrink=0.85, **settings)
    bar.set_label("share of the mass per pixel", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return bar


def _backdrop(axis: Any, region: Region, example: Tensor | None) -> None:
    height, width = region.mask.shape
    if example is not None and region.origin == (0, 0):
        axis.imshow(_picture(example, (height, width)), interpolation="nearest", alpha=0.8)
    else:
        axis.imshow(np.full((height, width, 3), 0.93), extent=_extent(region))


def _extent(region: Region) -> tuple[float, float, float, float]:
    (top, left), (height, width) = region.origin, region.mask.shape
    return left - 0.5, left + width - 0.5, top + height - 0.5, top - 0.5


def _outline(axis: Any, region: Region | None, colour: str) -> None:
    if region is None or not bool(region.mask.any()):
        return
    (top, left), mask = region.origin, region.mask
    padded = torch.nn.functional.pad(mask.double()[None, None], (1, 1, 1, 1))[0, 0].numpy()
    columns, rows = np.arange(padded.shape[1]) + left - 1, np.arange(padded.shape[0]) + top - 1
    limits = axis.get_xlim(), axis.get_ylim()
    axis.contour(columns, rows, padded, levels=[0.5], colors=[colour], linewidths=1.4, linestyles=["--"])
    axis.set(xlim=limits[0], ylim=limits[1])


def _picture(example: Tensor, shape: Sequence[int]) -> Numbers:
    if example.dim() != 3 or tuple(example.shape[-2:]) != tuple(shape):
        wanted = f"(C, {shape[0]}, {shape[1]}), the field's size"
        raise UserError(f"The example image has shape {tuple(example.shape)}; expected {wanted}.")
    floats = example.detach().cpu().double() / (255 if example.dtype == torch.uint8 else 1)
    channels = floats[:3] if len(floats) >= 3 else floats[:1].expand(3, -1, -1)
    picture: Numbers = channels.permute(1, 2, 0).clamp(0, 1).numpy()
    return picture


def _pixels(axis: Any) -> None:
    axis.set_xlabel("x (px)", fontsize=8)
    axis.set_ylabel("y (px)", fontsize=8)
    axis.tick_params(labelsize=7)


def _colour(index: int) -> str:
    return LINES[index % len(LINES)]


def _footer(figure: Any, lines: Sequence[str]) -> None:
    width = int(figure.get_figwidth() * 15)
    text = "\n".join(piece for line in lines for piece in textwrap.wrap(line, width))
    figure.supxlabel(text, fontsize=7, x=0.01, ha="left", color="0.25")
