"""The registry of motions, each a pure function of a magnitude and of a frame's distance from the reference frame.

Register a new `Motion` with `register_motion`; `fieldshift.motions.testing.check_motion` checks that it has the
properties that the search, the policies and the receptive fields rely on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fieldshift.errors import UserError, unknown_name
from fieldshift.motions import matrices

MatrixOf = Callable[[Tensor, Tensor, tuple[int, int]], Tensor]


@dataclass(frozen=True, kw_only=True)
class Change:
    """The common part of motions and colour changes: a named change of frames, as large as its magnitude.

    `limits` is the allowed range of magnitudes; `preset` the default range of a search (METHOD.md 2); `neutral` the
    magnitude that changes nothing; `unit` the unit of the magnitude; `measure` completes the phrase "NAME by ...", with a
    format field for the magnitude.
    """

    name: str
    limits: tuple[float, float]
    preset: tuple[float, float]
    unit: str
    measure: str
    neutral: float = 0.0

    def check(self, magnitude: float) -> None:
        """Raises UserError unless the magnitude is a finite number within the limits."""
        low, high = self.limits
        if not (math.isfinite(magnitude) and low <= magnitude <= high):
            raise UserError(
                f"The magnitude of {self.name} is {magnitude:g}, but must be from {low:g} to {high:g} ({self.unit}); "
                "choose one in this range."
            )

    def phrase(self, magnitude: float) -> str:
        """Describes the change of the outermost frame, such as "translate_x by 0.43 of the width" or "brightness by +0.4"."""
        return f"{self.name}{self.measure.format(magnitude)}"


@dataclass(frozen=True, kw_only=True)
class Motion(Change):
    """A motion maps a magnitude and a frame's distance s in [-1, 1] to an affine matrix, shape (..., 2, 3).

    `matrix(magnitude, s, (H, W))` broadcasts magnitude with s and is differentiable in the magnitude; conventions as in
    `fieldshift.motions.matrices`.
    """

    matrix: MatrixOf


MOTIONS: dict[str, Motion] = {}


def register_motion(motion: Motion) -> Motion:
    """Adds a motion to the registry and returns it; a taken name or a preset outside the limits raises UserError."""
    if motion.name in MOTIONS:
        raise UserError(f"The motion '{motion.name}' is already registered; choose another name.")
    low, high = motion.limits
    if not low <= motion.preset[0] <= motion.preset[1] <= high:
        raise UserError(
            f"The preset range {motion.preset} of '{motion.name}' must lie in order within its limits {motion.limits}."
        )
    motion.check(motion.neutral)
    MOTIONS[motion.name] = motion
    return motion


def motion(name: str) -> Motion:
    """Returns the registered motion of that name; an unknown name raises UserError, which lists the known ones."""
    if name not in MOTIONS:
        raise unknown_name("motion", name, MOTIONS)
    return MOTIONS[name]


register_motion(
    Motion(
        name="identity",
        matrix=matrices.identity_matrix,
        limits=(0.0, 0.0),
        preset=(0.0, 0.0),
        unit="nothing",
        measure="",
    )
)
register_motion(
    Motion(
        name="translate_x",
        matrix=matrices.translate_x_matrix,
        limits=(-1.0, 1.0),
        preset=(-0.48, 0.48),
        unit="fraction of the width",
        measure=" by {:.3g} of the width",
    )
)
register_motion(
    Motion(
        name="translate_y",
        matrix=matrices.translate_y_matrix,
        limits=(-1.0, 1.0),
        preset=(-0.48, 0.48),
        unit="fraction of the height",
        measure=" by {:.3g} of the height",
    )
)
register_motion(
    Motion(
        name="zoom",
        matrix=matrices.zoom_matrix,
        limits=(0.05, 20.0),
        preset=(0.35, 2.86),
        unit="factor",
        measure=" by a factor of {:.3g}",
        neutral=1.0,
    )
)
register_motion(
    Motion(
        name="rotate",
        matrix=matrices.rotate_matrix,
        limits=(-180.0, 180.0),
        preset=(-80.0, 80.0),
        unit="degrees clockwise",
        measure=" by {:.3g} degrees",
    )
)
for _name, _matrix in (("shear_x", matrices.shear_x_matrix), ("shear_y", matrices.shear_y_matrix)):
    register_motion(
        Motion(
            name=_name,
            matrix=_matrix,
            limits=(-80.0, 80.0),
            preset=(-30.0, 30.0),
            unit="degrees",
            measure=" by {:.3g} degrees",
        )
    )
