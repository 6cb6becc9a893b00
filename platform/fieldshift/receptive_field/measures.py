"""Measures of a map of non-negative mass: size, elongation, direction, and ratio to the theoretical field.

Convention: positions are (row, column) in pixels, pixel centres at whole numbers; angles are degrees of the long axis
from the x axis, clockwise on the screen (y down), in (-90, 90].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fieldshift.errors import UserError
from fieldshift.receptive_field.effective_map import EffectiveField
from fieldshift.receptive_field.spans import Numbers

FRACTIONS = (0.2, 0.3, 0.5, 0.99)


@dataclass(frozen=True, kw_only=True)
class Ellipse:
    """The centre and spread of a map: sigma along its long axis and across it, in pixels, and the axis' angle."""

    centre: tuple[float, float]
    """Row and column, in pixels."""
    along: float
    """Standard deviation along the long axis, in pixels."""
    across: float
    """Standard deviation across it, in pixels."""
    angle: float
    """Degrees of the long axis from the x axis, clockwise on the screen, in (-90, 90]; 0 if both are equal."""

    @property
    def anisotropy(self) -> float:
        """along / across: 1 for a round or square map, infinite for a line."""
        return self.along / self.across if self.across > 0 else math.inf if self.along > 0 else 1.0


@dataclass(frozen=True, kw_only=True)
class Measures:
    """All measures of one map; `to_json` gives them as plain values."""

    side: dict[float, float]
    """Fraction of the mass -> side in pixels of the smallest square about the centre of mass that contains it."""
    area: dict[float, float]
    """Fraction of the mass -> the smallest number of pixels (the strongest ones) that contain it."""
    moments: Ellipse
    """Centre of mass and spread by weighted second moments."""
    gaussian: Ellipse | None
    """Centre and spread by a least-squares fit of a 2D Gaussian; None where it cannot be fitted."""
    gaussian_note: str
    """The reason why there is no fit; empty if there is one."""
    profile_centre: tuple[float, float]
    """Row and column from which the radial profile is measured: the unit's position if known, else the centre of mass."""
    radii: tuple[float, ...]
    """Distances from `profile_centre` in pixels: the middles of rings one pixel wide."""
    profile: tuple[float, ...]
    """Mean mass per pixel in each ring, as a share of the whole."""
    profile_error: tuple[float, ...] | None
    """Upper bound of the standard error over images of `profile`: the mean of the pixels' errors; None for a single image."""
    ratio_to_theory: float | None
    """Area with 99 % of the mass / area of the theoretical field inside the image; None if that is unbounded."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; the fractions become text such as "0.5"."""
        plain = asdict(self)
        for key in ("side", "area"):
            plain[key] = {str(fraction): value for fraction, value in plain[key].items()}
        for key in ("moments", "gaussian"):
            if plain[key] is not None:
                plain[key]["centre"] = list(plain[key]["centre"])
        listed = {key: list(getattr(self, key)) for key in ("profile_centre", "radii", "profile")}
        return {**plain, **listed, "profile_error": self.profile_error and list(self.profile_error)}


def measures(
    field: EffectiveField | Float[Tensor, "height width"],
    *,
    fractions: Sequence[float] = FRACTIONS,
    theoretical_area: float | None = None,
    position: tuple[float, float] | None = None,
) -> Measures:
    """Computes all measures of an effective field, or of a map (H, W) of non-negative mass.

    fractions: shares of the mass in (0, 1]. theoretical_area: pixels of the theoretical field inside the image; by default
    that of an effective field. position: row and column from which the radial profile is measured; by default the
    position of an effective field's unit, else the centre of mass, which may lie between the boxes of a video.
    Raises UserError for a map with no mass or with negative or infinite values.
    """
    errors = None
    if isinstance(field, Tensor):
        values = _mass(field)
    else:
        values = _mass(field.values)
        errors = None if field.standard_error is None else field.standard_error.numpy()
        theoretical_area = field.theoretical_area if theoretical_area is None else theoretical_area
        position = field.position if position is None else position
    ellipse = ellipse_of(values)
    gaussian, note = fit_gaussian(values)
    about = ellipse.centre if position is None else position
    radii, profile = _rings(values, about)
    reached = area_holding(values, 0.99)
    return Measures(
        side={fraction: side_holding(values, fraction, ellipse.centre) for fraction in fractions},
        area={fraction: area_holding(values, fraction) for fraction in fractions},
        moments=ellipse,
        gaussian=gaussian,
        gaussian_note=note,
        profile_centre=about,
        radii=tuple(radii.tolist()),
        profile=tuple((profile / values.sum()).tolist()),
        profile_error=None if errors is None else tuple((_rings(errors, about)[1] / values.sum()).tolist()),
        ratio_to_theory=None if theoretical_area is None else reached / theoretical_area,
    )


def side_holding(values: Tensor | Numbers, fraction: float, centre: tuple[float, float] | None = None) -> float:
    """The side in pixels of the smallest axis-aligned square about `centre` that contains `fraction` of the mass.

    Every pixel is a unit square of even mass, so the side need not be a whole number. centre: by default the centre of mass.
    """
    mass, target = _mass(values), _share(fraction)
    row, column = ellipse_of(mass).centre if centre is None else centre
    wanted = target * mass.sum()

    def held(half: float) -> float:
        return float(_overlap(mass.shape[0], row, half) @ mass @ _overlap(mass.shape[1], column, half))

    low, high = 0.0, float(max(row, column, mass.shape[0] - row, mass.shape[1] - column)) + 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if held(middle) >= wanted * (1 - 1e-12) else (middle, high)
    return 2 * high


def area_holding(values: Tensor | Numbers, fraction: float) -> float:
    """The smallest number of pixels, the strongest ones, that contain `fraction` of the mass; the last counts partially."""
    mass, target = _mass(values), _share(fraction)
    ordered = np.sort(mass.reshape(-1))[::-1]
    reached = np.cumsum(ordered)
    wanted = target * reached[-1]
    count = int(np.searchsorted(reached, wanted * (1 - 1e-12)))
    before = reached[count - 1] if count else 0.0
    return count + float((wanted - before) / ordered[count])


def ellipse_of(values: Tensor | Numbers) -> Ellipse:
    """Centre of mass and standard deviations along and across by the weighted second moments of the map."""
    mass = _mass(values)
    total = mass.sum()
    rows, columns = np.arange(mass.shape[0]), np.arange(mass.shape[1])
    by_row, by_column = mass.sum(axis=1) / total, mass.sum(axis=0) / total
    row, column = float(by_row @ rows), float(by_column @ columns)
    yy, xx = float(by_row @ (rows - row) ** 2), float(by_column @ (columns - column) ** 2)
    xy = float((rows - row) @ mass @ (columns - column) / total)
    return _ellipse((row, column), xx, yy, xy)


def _ellipse(centre: tuple[float, float], xx: float, yy: float, xy: float) -> Ellipse:
    mean, half = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
    round_map = half <= 1e-9 * max(mean, 1e-300)
    angle = 0.0 if round_map else math.degrees(math.atan2(2 * xy, xx - yy) / 2)
    across = math.sqrt(max(mean - half, 0.0))
    return Ellipse(centre=centre, along=math.sqrt(mean + half), across=across, angle=90.0 if angle == -90.0 else angle)


def fit_gaussian(values: Tensor | Numbers) -> tuple[Ellipse | None, str]:
    """Fits a Gaussian with free height, centre, sigmas and angle by least squares; None and the reason if that fails.

    No background is fitted. Rejected if the map is narrower than a third of a pixel or the fit leaves the image.
    """
    from scipy.optimize import least_squares

    mass = _mass(values)
    start = ellipse_of(mass)
    if start.across < 1 / 3:
        return None, f"the map is only {start.across:.2g} px wide (sigma), too narrow for a fit"
    scaled = mass / mass.max()
    rows, columns = np.mgrid[0 : mass.shape[0], 0 : mass.shape[1]].astype(np.float64)

    def residuals(p: Numbers) -> Numbers:
        y, x = rows - p[1], columns - p[2]
        cos, sin = math.cos(p[5]), math.sin(p[5])
        u, v = (x * cos + y * sin) * math.exp(-p[3]), (y * cos - x * sin) * math.exp(-p[4])
        difference: Numbers = (p[0] * np.exp(-(u**2 + v**2) / 2) - scaled).reshape(-1)
        return difference

    widths = [math.log(start.along), math.log(start.across)]
    first = np.array([1.0, *start.centre, *widths, math.radians(start.angle)])
    fit = least_squares(residuals, first, x_scale=[1.0, 1.0, 1.0, 0.1, 0.1, 0.1], max_nfev=200)
    height, row, column, log_u, log_v, angle = fit.x.tolist()
    limit = math.log(2.0 * max(mass.shape))
    inside = -0.5 <= row <= mass.shape[0] - 0.5 and -0.5 <= column <= mass.shape[1] - 0.5
    if not fit.success or height <= 0 or not inside or max(log_u, log_v) > limit:
        return None, "the map has no single peak that a Gaussian could follow"
    u, v = math.exp(2 * log_u), math.exp(2 * log_v)
    cos, sin = math.cos(angle), math.sin(angle)
    return _ellipse((row, column), u * cos**2 + v * sin**2, u * sin**2 + v * cos**2, (u - v) * sin * cos), ""


def _rings(values: Numbers, centre: tuple[float, float]) -> tuple[Numbers, Numbers]:
    rows, columns = np.ogrid[0 : values.shape[0], 0 : values.shape[1]]
    ring = np.floor(np.hypot(rows - centre[0], columns - centre[1])).astype(np.int64).reshape(-1)
    pixels = np.bincount(ring)
    sums = np.bincount(ring, weights=values.reshape(-1))
    filled = np.flatnonzero(pixels)
    means: Numbers = sums[filled] / pixels[filled]
    return filled.astype(np.float64) + 0.5, means


def _overlap(length: int, centre: float, half: float) -> Numbers:
    edges = np.arange(length)
    covered = np.minimum(edges + 0.5, centre + half) - np.maximum(edges - 0.5, centre - half)
    shares: Numbers = np.clip(covered, 0.0, 1.0)
    return shares


def _mass(values: Tensor | Numbers) -> Numbers:
    array = values.detach().numpy(force=True) if isinstance(values, torch.Tensor) else values
    mass: Numbers = np.asarray(array, dtype=np.float64)
    if mass.ndim != 2:
        raise UserError(f"A map has shape (H, W), but got shape {mass.shape}; average the other dimensions.")
    if not np.isfinite(mass).all() or bool((mass < 0).any()):
        raise UserError("The map has negative or infinite values, but measures need mass of at least 0; take |map|.")
    if not bool((mass > 0).any()):
        raise UserError("The map is zero at every pixel, so it has no size; choose another layer or other images.")
    return mass


def _share(fraction: float) -> float:
    if not 0.0 < fraction <= 1.0:
        raise UserError(f"The fraction of the mass is {fraction}, but must be above 0 and at most 1.")
    return fraction
