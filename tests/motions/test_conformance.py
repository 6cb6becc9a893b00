"""Every registered motion keeps the promises of the suite that ships with the package, and broken ones are caught."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fieldshift.motions import MOTIONS, Motion, register_motion
from fieldshift.motions.testing import CHECKS, check_motion


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", MOTIONS)
def test_motion_conforms(name: str, check) -> None:
    check(MOTIONS[name])


def test_an_own_motion_is_checked_without_being_registered() -> None:
    def squeeze(magnitude, s, size):
        factor = magnitude**s
        zero, one = torch.zeros_like(factor), torch.ones_like(factor)
        return torch.stack([factor, zero, zero, zero, one, zero], -1).reshape(*factor.shape, 2, 3)

    own = Motion(
        name="squeeze", matrix=squeeze, limits=(0.1, 10.0), preset=(0.5, 2.0), unit="factor", measure=" by {:.3g}",
        neutral=1.0,
    )  # fmt: skip
    check_motion(own)
    assert "squeeze" not in MOTIONS


def _broken(**changes: object) -> Motion:
    return dataclasses.replace(MOTIONS["rotate"], **changes)


@pytest.mark.parametrize(
    ("motion", "promise"),
    [
        (_broken(neutral=3.0), "identity"),
        (_broken(measure="\n{}"), "limits"),
        (_broken(matrix=lambda m, s, size: MOTIONS["rotate"].matrix(m, s.abs(), size)), "both signs"),
        (_broken(matrix=lambda m, s, size: MOTIONS["rotate"].matrix(m, s, size).float()), "shapes"),
        (_broken(matrix=lambda m, s, size: MOTIONS["rotate"].matrix(m.detach(), s, size)), "gradient of the matrix"),
        (_broken(matrix=lambda m, s, size: MOTIONS["rotate"].matrix(m, s, size)[..., :2]), "shapes"),
    ],
)
def test_a_broken_promise_is_named(motion: Motion, promise: str) -> None:
    with pytest.raises(AssertionError, match=f"rotate: {promise}"):
        check_motion(motion)


def test_a_taken_name_and_a_preset_outside_the_limits_are_refused() -> None:
    from fieldshift.errors import UserError

    with pytest.raises(UserError, match="'rotate' is already registered"):
        register_motion(MOTIONS["rotate"])
    with pytest.raises(UserError, match="within its limits"):
        register_motion(_broken(name="wide", preset=(-200.0, 80.0)))
    assert "wide" not in MOTIONS
