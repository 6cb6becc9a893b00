"""Measurement of one network's effective field: the map, its measures and its regions by theory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fieldshift.errors import UserError
from fieldshift.folding import AnyPolicy
from fieldshift.receptive_field.effective import effective, region_of
from fieldshift.receptive_field.effective_map import EffectiveField
from fieldshift.receptive_field.measures import Measures, measures
from fieldshift.receptive_field.reshaped import Reshaped
from fieldshift.receptive_field.theory import LayerField, theory

if TYPE_CHECKING:
    from torch import Tensor

    from fieldshift.networks import VideoNetwork


@dataclass(frozen=True, kw_only=True)
class MeasuredField:
    """An effective field with its measures, the numbers of its column in a table, and its regions by theory.

    Attributes:
        averaged: measures of the mean over all frames; equal to `measures` if there is one frame.
        numbers: values by name and unit, such as "mass of the map"; None where a measure does not exist.
        regions: the field by theory under the motions; None if it is unbounded or the motions cannot be undone.
    """

    field: EffectiveField
    measures: Measures
    averaged: Measures
    numbers: dict[str, Any]
    regions: Reshaped | None


def measured_field(
    network: VideoNetwork, pictures: Tensor, *, size: tuple[int, int], policy: AnyPolicy | None, **settings: Any
) -> MeasuredField:
    """Measures the effective field of one network on pictures (B, C, H, W).

    size: (H, W) of the images that the theoretical field is computed for. policy and settings: arguments of `effective`.
    """
    field = effective(network, pictures, policy=policy, **settings)
    found = measures(field)
    averaged = found if field.all_frames is None else measures(field.all_frames)
    (seen,) = theory(network, size, layers=[field.conditions.layer])
    regions = regions_of(seen, policy, size, field.conditions.unit)
    fit = found.gaussian
    numbers = {
        **theoretical(seen, regions),
        "effective, reference frame: share through other frames": field.other_frames,
        "effective, reference frame: standard error of the share": field.other_frames_error,
        "effective, reference frame: side at 50 %, px": found.side[0.5],
        **{
            f"effective, reference frame: area at {fraction:.0%}, px²".replace("%", " %"): area
            for fraction, area in found.area.items()
        },
        "effective, reference frame: 99 % area / theory": found.ratio_to_theory,
        **spread("effective, reference frame", found),
        "Gaussian fit: sigma along, px": None if fit is None else fit.along,
        "Gaussian fit: sigma across, px": None if fit is None else fit.across,
        "Gaussian fit: angle, degrees": None if fit is None else fit.angle,
        "centre of mass: row, px": found.moments.centre[0],
        "centre of mass: column, px": found.moments.centre[1],
        "mass of the map": field.mass,
        "mass: standard error": field.mass_standard_error,
        "effective, all frames: area at 50 %, px²": averaged.area[0.5],
        **spread("effective, all frames", averaged),
    }
    return MeasuredField(field=field, measures=found, averaged=averaged, numbers=numbers, regions=regions)


def spread(whose: str, found: Measures) -> dict[str, Any]:
    """Spread and direction of a map by its second moments; the names begin with `whose`."""
    return {
        f"{whose}: sigma along, px": found.moments.along,
        f"{whose}: sigma across, px": found.moments.across,
        f"{whose}: anisotropy": found.moments.anisotropy,
        f"{whose}: angle, degrees": found.moments.angle,
    }


def regions_of(
    layer: LayerField, policy: AnyPolicy | None, size: tuple[int, int], unit: tuple[int, int]
) -> Reshaped | None:
    """The unit's field under the motions; None if it is unbounded or the motions cannot be undone."""
    if layer.size is None or layer.map_size is None:
        return None
    try:
        return region_of(layer, policy, size, unit)
    except UserError:  # the field's notes give the reason
        return None


def theoretical(layer: LayerField, regions: Reshaped | None) -> dict[str, Any]:
    """The theoretical field of a layer: that of the plain network, and as the motions reshape it."""
    numbers: dict[str, Any] = {"theory: side, px": None if layer.size is None else layer.size[0]}
    for whose, region in (
        {} if regions is None else {"reference frame": regions.reference, "all frames": regions.fused}
    ).items():
        numbers |= {
            f"reshaped, {whose}: area, px²": region.area,
            f"reshaped, {whose}: height, px": region.extent[0],
            f"reshaped, {whose}: width, px": region.extent[1],
            f"reshaped, {whose}: anisotropy": region.anisotropy,
            f"reshaped, {whose}: angle, degrees": region.angle,
        }
    return numbers
