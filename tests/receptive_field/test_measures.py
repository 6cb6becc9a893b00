"""Measures of maps whose answers are known."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fieldshift.errors import UserError
from fieldshift.receptive_field import Conditions, EffectiveField, measures
from fieldshift.receptive_field.measures import (
    area_holding,
    ellipse_of,
    fit_gaussian,
    side_holding,
)


def gaussian(
    along: float, across: float, angle: float, size: int = 81, centre: tuple[float, float] = (40, 40)
) -> Tensor:
    """A Gaussian whose long axis lies `angle` degrees clockwise from x on the screen."""
    y, x = torch.meshgrid(*[torch.arange(size, dtype=torch.float64)] * 2, indexing="ij")
    y, x = y - centre[0], x - centre[1]
    a = math.radians(angle)
    u, v = x * math.cos(a) + y * math.sin(a), y * math.cos(a) - x * math.sin(a)
    return torch.exp(-((u / along) ** 2 + (v / across) ** 2) / 2)


def box(size: int, rows: slice, columns: slice) -> Tensor:
    values = torch.zeros(size, size, dtype=torch.float64)
    values[rows, columns] = 0.25
    return values


@settings(deadline=None, max_examples=15)
@given(st.floats(4.0, 9.0), st.floats(1.5, 3.5), st.floats(-89.0, 89.0), st.floats(35, 45), st.floats(35, 45))
def test_a_rotated_gaussian_by_moments_and_by_fit(
    along: float, across: float, angle: float, row: float, column: float
) -> None:
    values = gaussian(along, across, angle, centre=(row, column))
    fitted, note = fit_gaussian(values)
    assert note == ""
    assert fitted is not None
    for ellipse, tolerance in ((ellipse_of(values), 0.05), (fitted, 1e-4)):
        assert ellipse.centre == pytest.approx((row, column), abs=tolerance)
        assert ellipse.along == pytest.approx(along, rel=tolerance)
        assert ellipse.across == pytest.approx(across, rel=tolerance)
        turned = (ellipse.angle - angle + 90) % 180 - 90
        assert abs(turned) < 100 * tolerance


def test_the_fit_of_a_peak_on_tails_is_narrower_than_its_moments() -> None:
    values = gaussian(3, 3, 0) + 0.02 * gaussian(15, 15, 0)
    fitted, _ = fit_gaussian(values)
    assert fitted is not None
    assert fitted.along == pytest.approx(3, rel=0.1)
    assert ellipse_of(values).along > 5


def test_mass_within_a_gaussian() -> None:
    values = gaussian(6, 6, 0)
    inside = 2 * math.pi * 36 * -math.log(0.5)  # half of the mass lies within sigma * sqrt(2 ln 2)
    assert area_holding(values, 0.5) == pytest.approx(inside, rel=0.02)
    share = math.erf(5.0 / (6 * math.sqrt(2))) ** 2  # of a square of side 10
    assert side_holding(values, share) == pytest.approx(10.0, rel=0.01)


def test_a_uniform_box() -> None:
    found = measures(box(50, slice(10, 30), slice(5, 45)), theoretical_area=1600.0)
    assert found.moments.centre == pytest.approx((19.5, 24.5))
    assert found.moments.along == pytest.approx(math.sqrt((40**2 - 1) / 12))
    assert found.moments.across == pytest.approx(math.sqrt((20**2 - 1) / 12))
    assert found.moments.angle == pytest.approx(0.0)
    assert found.area[0.5] == pytest.approx(400.0)
    assert found.area[0.99] == pytest.approx(792.0)
    assert found.side[0.5] == pytest.approx(20.0)  # until a square fills the height, then it grows along x only
    assert found.side[0.99] == pytest.approx(39.6)
    assert found.ratio_to_theory == pytest.approx(792 / 1600)
    assert found.gaussian is None or found.gaussian.along > found.gaussian.across


def test_a_box_standing_upright_has_an_angle_of_90_degrees() -> None:
    assert ellipse_of(box(50, slice(5, 45), slice(10, 30))).angle == 90.0


def test_a_square_has_no_angle() -> None:
    found = ellipse_of(box(50, slice(10, 31), slice(10, 31)))
    assert (found.angle, found.anisotropy) == (0.0, pytest.approx(1.0))


def test_a_single_pixel() -> None:
    values = torch.zeros(9, 9)
    values[2, 6] = 3.0
    found = measures(values)
    assert found.moments.centre == pytest.approx((2.0, 6.0))
    assert found.moments.along == pytest.approx(0.0, abs=1e-6)
    assert found.area[0.5] == pytest.approx(0.5)
    assert found.side[0.5] == pytest.approx(math.sqrt(0.5))
    assert found.gaussian is None
    assert "too narrow" in found.gaussian_note
    assert found.profile[0] == pytest.approx(1.0)
    assert sum(found.profile[1:]) == 0.0


def test_the_side_holds_the_fraction_it_says() -> None:
    torch.manual_seed(1)
    values = torch.rand(31, 31, dtype=torch.float64)
    side = side_holding(values, 0.3, centre=(15, 15))
    fine = values.repeat_interleave(40, 0).repeat_interleave(40, 1)
    half = round(side * 20)
    middle = 15 * 40 + 20
    held = fine[middle - half : middle + half, middle - half : middle + half].sum() / fine.sum()
    assert float(held) == pytest.approx(0.3, abs=0.01)


def test_all_of_the_mass() -> None:
    values = box(50, slice(10, 30), slice(5, 45))
    assert area_holding(values, 1.0) == pytest.approx(800.0)
    assert side_holding(values, 1.0) == pytest.approx(40.0)


def test_the_radial_profile_of_a_ring() -> None:
    y, x = torch.meshgrid(*[torch.arange(-20, 21)] * 2, indexing="ij")
    values = ((x**2 + y**2).double().sqrt().floor() == 12).double()
    found = measures(values, position=(20.0, 20.0))
    rings = {radius: mean for radius, mean in zip(found.radii, found.profile, strict=True) if mean > 0}
    assert rings == {12.5: pytest.approx(1 / float(values.sum()))}


def test_the_profile_of_two_boxes_is_taken_from_the_position_given() -> None:
    values = box(40, slice(18, 21), slice(8, 11)) + box(40, slice(18, 21), slice(28, 31))
    by_mass, by_unit = measures(values), measures(values, position=(19.0, 9.0))
    assert by_mass.profile_centre == pytest.approx((19.0, 19.0))
    assert by_mass.profile[0] == 0.0
    assert by_unit.profile_centre == (19.0, 9.0)
    assert by_unit.profile[0] == pytest.approx(1 / 18)
    assert by_unit.moments == by_mass.moments
    assert json.loads(json.dumps(by_unit.to_json()))["profile_centre"] == [19.0, 9.0]


def field(values: Tensor, position: tuple[float, float] | None, error: Tensor | None = None) -> EffectiveField:
    return EffectiveField(
        values=values,
        standard_error=error,
        mass=float(values.sum()),
        mass_standard_error=None,
        conditions=Conditions(
            network="made up",
            layer="last",
            unit=(4, 5),
            input_size=(40, 40),
            trained=True,
            images=1,
            images_kind="none",
        ),
        theoretical_size=None,
        theoretical_area=None,
        position=position,
    )


def test_a_profile_is_measured_from_the_unit_where_the_field_knows_it() -> None:
    values = box(40, slice(18, 21), slice(8, 11)) + box(40, slice(18, 21), slice(28, 31))
    assert measures(field(values, (19.0, 9.0))).profile_centre == (19.0, 9.0)
    assert measures(field(values, (19.0, 9.0)), position=(1.0, 2.0)).profile_centre == (1.0, 2.0)
    assert measures(field(values, None)).profile_centre == pytest.approx((19.0, 19.0))


def test_the_band_of_a_profile_is_never_narrower_than_its_standard_error() -> None:
    """The spread of a ring's mean over many made-up measurements is at most the mean of its pixels' spreads."""
    generator = torch.Generator().manual_seed(0)
    common, own = torch.rand(400, 1, 1, generator=generator), torch.rand(400, 21, 21, generator=generator)
    maps = gaussian(4, 4, 0, 21, (10, 10)) * (common + own).double()
    whole = field(maps.mean(dim=0), (10.0, 10.0), maps.std(dim=0))  # the spread of single maps, as if one were measured
    found = measures(whole)
    assert found.profile_error is not None
    total = float(whole.values.sum())
    rings = torch.stack(
        [torch.as_tensor(measures(one, position=(10.0, 10.0)).profile) * one.sum() for one in maps[:100]]
    )
    spread = rings.std(dim=0) / total
    band = torch.tensor(found.profile_error, dtype=torch.float64)
    assert (band >= spread * 0.85).all()
    assert measures(field(whole.values, None)).profile_error is None


def test_plain_values() -> None:
    plain = json.loads(json.dumps(measures(gaussian(5, 2, 30)).to_json()))
    assert set(plain["side"]) == {"0.2", "0.3", "0.5", "0.99"}
    assert plain["moments"]["angle"] == pytest.approx(30, abs=0.1)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (torch.zeros(4, 4), "zero at every pixel"),
        (-torch.ones(4, 4), "negative or infinite"),
        (torch.full((4, 4), math.nan), "negative or infinite"),
    ],
)
def test_maps_without_mass(values: Tensor, text: str) -> None:
    with pytest.raises(UserError, match=text):
        measures(values)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_impossible_fractions(fraction: float) -> None:
    with pytest.raises(UserError, match="must be above 0 and at most 1"):
        measures(torch.ones(4, 4), fractions=[fraction])
