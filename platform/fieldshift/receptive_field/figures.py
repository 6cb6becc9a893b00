"""Printable figures of receptive fields: axes in pixels of the original image, conditions on every figure.

Every function returns a matplotlib Figure without window or global state; `figure_frame.save_figure` writes it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from fieldshift.errors import UserError
from fieldshift.receptive_field.effective_map import EffectiveField, check_comparable
from fieldshift.receptive_field.figure_frame import COLUMN, LINES, PAGE, framed_figure
from fieldshift.receptive_field.measures import Measures, measures
from fieldshift.receptive_field.reshaped import Region, Reshaped
from fieldshift.receptive_field.spans import Numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any  # matplotlib is loaded on first use, and shapes are checked in tests without it

MAP_COLOURS, DIFFERENCE_COLOURS = "magma", "RdBu_r"
_STYLES = ("-", "--", "-.", ":")
_DECADES = 4
_BOTH_LEVELS = 3  # maximum number of maps drawn with two contours each; more would hide each other
_TITLE_LINE, _LETTERS = 0.15, 14  # inches, and letters of a title in an inch


def effective_figure(
    field: EffectiveField,
    *,
    example: Shaped[Tensor, "channels height width"] | None = None,
    region: Region | None = None,
    narrow: bool = False,
) -> Figure:
    """Draws one effective field: its map on a log scale, its radial profile and, on an example image, its contours.

    example: an image (C, H, W) of the field's size, uint8 or floats in [0, 1]. region: a theoretical field to outline.
    narrow: panels below each other, for a telephone.
    """
    panels = 2 if example is None else 3
    lines = [*field.conditions.lines(), *field.notes, *_border_note(field)]
    figure, (top,) = framed_figure(COLUMN if narrow else PAGE, [3.4 * panels if narrow else 3.4], lines)
    axes = (top.subplots(panels, 1) if narrow else top.subplots(1, panels)).reshape(-1)
    shares = _shares(field)
    found = measures(field)
    image = _draw_map(axes[0], shares, _log_norm([shares]))
    _outline(axes[0], region, "white")
    axes[0].set_title(_summary(found, field), fontsize=8)
    _colour_bar(top, image, axes[0], extend="min")
    _draw_profiles(axes[1], [found], known=field.position is not None)
    if example is not None:
        _draw_contours(axes[2], [field], example)
    return figure


def comparison_figure(
    fields: Mapping[str, EffectiveField],
    *,
    example: Shaped[Tensor, "channels height width"] | None = None,
    compared: Collection[str] = (),
    narrow: bool = False,
) -> Figure:
    """Draws several effective fields on one scale: maps, radial profiles, contours, and the last map minus the first.

    fields: name in the figure -> field, at least two, all of the same conditions, else UserError. Every map is divided
    by its mass, so the scale is the share of the mass per pixel. Letters, colours and dashes follow the
    order of the fields. compared: conditions that may differ, as in `check_comparable`. Radial profiles are measured from
    the unit's position on the image, or from each map's centre of mass if the position of any field is unknown.
    narrow: two maps side by side and the other panels below each other, for a telephone.
    """
    if len(fields) < 2:
        raise UserError(f"A comparison needs at least 2 receptive fields, but got {len(fields)}.")
    maps = list(fields.values())
    check_comparable(maps, compared)
    known = all(field.position is not None for field in maps)
    shares = [_shares(field) for field in maps]
    found = [measures(field if known else replace(field, position=None)) for field in maps]
    wide = 2 if narrow else _columns(len(maps))
    deep = -(-len(maps) // wide)
    names = [f"{_letter(i)}: {name}" for i, name in enumerate(fields)]
    width = COLUMN if narrow else max(PAGE, 1.8 * wide)
    panel = width / wide
    titles = [
        f"{textwrap.fill(name, int(_LETTERS * (panel - 0.4)))}\n{_summary(measured, field)}"
        for name, measured, field in zip(names, found, maps, strict=True)
    ]
    tallest = max(title.count("\n") for title in titles) + 1
    keys = [textwrap.fill(name, int(width * _LETTERS - 10)) for name in names]
    key_columns = max(1, min(len(names), int(width * _LETTERS / (max(map(len, names)) + 10))))
    key_lines = max(key.count("\n") + 1 for key in keys) * -(-len(keys) // key_columns)
    others = 3.0 if narrow else 2.95
    heights = [
        (panel + _TITLE_LINE * tallest + 0.3) * deep + 0.65,
        others * (3 if narrow else 1),
        0.2 * key_lines + 0.1,
    ]
    figure, (top, middle, key) = framed_figure(width, heights, _comparison_lines(fields))
    axes = top.subplots(deep, wide, squeeze=False).reshape(-1)
    norm = _log_norm(shares)
    for i, title in enumerate(titles):
        image = _draw_map(axes[i], shares[i], norm)
        axes[i].set_title(title, fontsize=8)
        if i % wide:
            axes[i].set_ylabel("")
    for axis in axes[len(maps) :]:
        axis.set_axis_off()
    _colour_bar(top, image, list(axes), extend="min", location="bottom", aspect=40)
    panels = middle.subplots(3, 1) if narrow else middle.subplots(1, 3)
    _draw_profiles(panels[0], found, known=known)
    _draw_contours(panels[1], maps, example)
    _draw_difference(middle, panels[2], shares[-1] - shares[0], f"{_letter(len(maps) - 1)} minus {_letter(0)}")
    _draw_key(key, keys, key_columns)
    return figure


def reshaped_figure(regions: Reshaped, *, example: Shaped[Tensor, "channels height width"] | None = None) -> Figure:
    """Draws the theoretical region of every frame and of the fused output on the image, and the plain network's box.

    For a folded network: the region of its single frame.
    """
    folded = regions.form == "folded"
    own = regions.reference_frame
    shown = [(f"frame {t}{' (reference)' * (t == own)}", region) for t, region in enumerate(regions.frames)]
    if len(shown) > 7:
        step = (len(shown) - 1) / 6
        shown = [shown[round(i * step)] for i in range(7)]
    shown.append(("folded" if folded else "fused", regions.fused))
    wide = _columns(len(shown))
    deep = -(-len(shown) // wide)
    rows, columns = regions.plain.mask.shape
    height, width = regions.size
    cut = "; cut at the image's border" if regions.clipped else ""
    lines = [
        f"theoretical field of unit {regions.unit} of layer {regions.layer}, image {height} x {width} px{cut}",
        f"policy {regions.policy}: {'; '.join(regions.motions) or ('no motion' if folded else 'replicate')}",
        f"green: what the unit depends on; outlined: the plain network's {regions.plain.area:.0f} px\N{SUPERSCRIPT TWO}; "
        "above each: its area, long : short axis, angle",
    ]
    figure, (top,) = framed_figure(2.9 * wide, [(2.5 * min(rows / columns, 2.0) + 0.95) * deep], lines)
    axes = top.subplots(deep, wide, squeeze=False).reshape(-1)
    for axis, (title, region) in zip(axes, shown, strict=False):
        _backdrop(axis, region, example)
        filled = np.where(region.mask.numpy(), 1.0, np.nan)
        axis.imshow(
            filled, extent=_extent(region), cmap="viridis", vmin=0, vmax=1.6, alpha=0.55, interpolation="nearest"
        )
        _outline(axis, regions.plain, LINES[1])
        turn = f", {_degrees(region.angle)}" if region.anisotropy > 1.01 else ""
        area = f"{region.area:.0f} px\N{SUPERSCRIPT TWO}"
        axis.set_title(f"{title}: {area}\n{region.anisotropy:.2f} : 1{turn}", fontsize=9)
        _pixels(axis)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    return figure


def map_picture(field: EffectiveField, highest: float | None = None, side: int = 320) -> np.ndarray:
    """The map alone as an RGB picture, uint8 (H', W', 3), for image grids: log scale, pixels as squares.

    highest: the share of the mass per pixel that is brightest, by default the map's own; use the same for maps that
    are compared. side: approximate length of the picture's longer side in pixels.
    """
    from matplotlib import colormaps

    shares = _shares(field)
    levels = np.log10(np.maximum(shares, 1e-300) / (highest or float(shares.max()))) / _DECADES + 1
    picture = (colormaps[MAP_COLOURS](np.clip(levels, 0.0, 1.0))[..., :3] * 255).round().astype(np.uint8)
    times = max(1, side // max(picture.shape[:2]))
    enlarged: np.ndarray = picture.repeat(times, axis=0).repeat(times, axis=1)
    return enlarged


def brightest(fields: Collection[EffectiveField]) -> float:
    """The largest share of the mass in one pixel of any of the maps."""
    return max(float(_shares(field).max()) for field in fields)


def _columns(count: int) -> int:
    """The number of columns that leaves no single panel in the last row if possible, and few cells empty: 5 panels as 3 + 2."""
    if count <= 4:
        return count
    return min((4, 3, 5), key=lambda columns: (-count % columns == columns - 1, columns == 5, -count % columns))


def _comparison_lines(fields: Mapping[str, EffectiveField]) -> list[str]:
    lines = [next(iter(fields.values())).conditions.lines()[1]]
    for i, (name, field) in enumerate(fields.items()):
        own = field.conditions.lines()
        lines.append("; ".join([f"{_letter(i)}: {name}: {own[0]}", *own[2:], *field.notes, *_border_note(field)]))
    return lines


def _border_note(field: EffectiveField) -> list[str]:
    """A note for fields of moved frames that reach the image's border, where they are cut off."""
    mass = field.values > 0
    at_border = bool(mass[[0, -1]].any()) or bool(mass[:, [0, -1]].any())
    moved = "maps" if field.conditions.form == "folded" else "frames"
    reaches = f"fields of moved {moved} are cut off at the image's border"
    return [reaches] if field.conditions.policy and at_border else []


def _shares(field: EffectiveField) -> Numbers:
    values: Numbers = field.values.numpy()
    shares: Numbers = values / values.sum()
    return shares


def _summary(found: Measures, field: EffectiveField) -> str:
    spread = found.moments
    turn = f" at {_degrees(spread.angle)}" if spread.anisotropy > 1.1 else ""
    half = f"50 % in {found.area[0.5]:.0f} px\N{SUPERSCRIPT TWO}\n" if 0.5 in found.area else ""
    share = "" if field.other_frames is None else f"\n{field.other_frames:.0%}".replace("%", " % through other frames")
    return f"{half}\N{GREEK SMALL LETTER SIGMA} {spread.along:.1f} x {spread.across:.1f} px{turn}{share}"


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


def _draw_profiles(axis: Any, found: Sequence[Measures], *, known: bool) -> None:
    """Draws radial profiles with bands; known: whether they are measured from the units' positions or the centres of mass."""
    highest = max(max(one.profile) for one in found)
    for i, one in enumerate(found):
        axis.plot(one.radii, one.profile, **_line(i))
        if one.profile_error is not None:
            middle, error = np.array(one.profile), np.array(one.profile_error)
            low = np.maximum(middle - error, highest * 10.0 ** -(_DECADES + 2))
            axis.fill_between(one.radii, low, middle + error, color=_line(i)["color"], alpha=0.2, linewidth=0)
    axis.set_yscale("log")
    axis.set_ylim(highest * 10.0 ** -(_DECADES + 1), highest * 2)
    axis.set_xlim(left=0)
    axis.set_xlabel(f"distance from {'the unit' if known else 'the centre of mass'} (px)", fontsize=8)
    axis.set_ylabel("mean share of the mass per pixel", fontsize=8)
    axis.tick_params(labelsize=7)
    centres = {one.profile_centre for one in found}
    position = f",\n{_position_text(found[0].profile_centre)}" if len(centres) == 1 else ""
    about = f"the unit{position}" if known else "the centre of mass"
    band = "\nband: upper bound of the standard error" if any(one.profile_error for one in found) else ""
    axis.set_title(f"radial profile about {about}{band}", fontsize=8)
    axis.grid(alpha=0.25)


def _draw_contours(axis: Any, fields: Sequence[EffectiveField], example: Tensor | None) -> None:
    """Draws the smallest region with half of each map's mass and, for few maps, 99 % (thin), on the example image."""
    shape = fields[0].values.shape
    axis.imshow(np.ones((*shape, 3)) if example is None else _picture(example, shape), alpha=0.75)
    few = len(fields) <= _BOTH_LEVELS
    for i, field in enumerate(fields):
        shares = _shares(field)
        line = _line(i)
        for fraction, width in ((0.99, 0.5), (0.5, 1.0)) if few else ((0.5, 0.8),):
            level = _level(shares, fraction)
            if float(shares.min()) < level < float(shares.max()):
                style = {"colors": [line["color"]], "linestyles": [line["linestyle"]]}
                axis.contour(shares, levels=[level], linewidths=width, **style)
    levels = "50 % (thick), 99 % (thin)" if few else "50 %"
    axis.set_title(f"regions that hold\n{levels}\nof the mass", fontsize=8)
    _pixels(axis)


def _draw_key(figure: Any, names: Sequence[str], columns: int) -> None:
    """Draws the lines of all maps with their names, in a separate row."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=name, **_line(i)) for i, name in enumerate(names)]
    figure.legend(handles=handles, loc="center", ncols=columns, fontsize=8, frameon=False, handlelength=3)


def _level(shares: Numbers, fraction: float) -> float:
    """The smallest value among the strongest pixels that contain `fraction` of the mass."""
    ordered = np.sort(shares.reshape(-1))[::-1]
    return float(ordered[min(int(np.searchsorted(np.cumsum(ordered), fraction)), ordered.size - 1)])


def _draw_difference(figure: Any, axis: Any, difference: Numbers, title: str) -> None:
    from matplotlib.colors import SymLogNorm

    largest = float(np.abs(difference).max()) or 1.0
    norm = SymLogNorm(linthresh=largest * 0.02, linscale=0.5, vmin=-largest, vmax=largest)
    image = axis.imshow(difference, cmap=DIFFERENCE_COLOURS, norm=norm, interpolation="nearest")
    axis.set_title(f"difference: {title}\nred: {title[0]} has the larger share", fontsize=8)
    decade = 10.0 ** math.floor(math.log10(largest))
    _colour_bar(figure, image, axis).set_ticks([-decade, -decade / 10, 0.0, decade / 10, decade])
    _pixels(axis)


def _colour_bar(figure: Any, image: Any, axes: Any, **settings: Any) -> Any:
    shrink = 0.5 if settings.get("location") == "bottom" else 0.85
    bar = figure.colorbar(image, ax=axes, shrink=shrink, **settings)
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


def _line(index: int) -> dict[str, Any]:
    """Colour and dash of the map at that position: the same in every panel, unique among the first 28."""
    return {"color": LINES[index % len(LINES)], "linestyle": _STYLES[index % len(_STYLES)]}


def _letter(index: int) -> str:
    return ascii_uppercase[index] if index < len(ascii_uppercase) else str(index + 1)


def _position_text(position: tuple[float, float]) -> str:
    return f"x {position[1]:.4g}, y {position[0]:.4g} px"
