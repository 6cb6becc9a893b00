"""Motions, the sampling pass that applies them, and the policies that combine them.

A motion is a pure function (magnitude, distance of the frame) -> matrix; a policy composes matrices and samples the
image once. Names are loaded on first use; only `ImageToVideo` needs torchvision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldshift.deferral import load_on_use

if TYPE_CHECKING:
    from fieldshift.motions.colour import COLOURS, Colour, colour, register_colour
    from fieldshift.motions.graph import Edge, Graph, Step, operation
    from fieldshift.motions.matrices import compose, distances, invert
    from fieldshift.motions.policy import Policy
    from fieldshift.motions.registry import MOTIONS, Motion, motion, register_motion
    from fieldshift.motions.video import ImageToVideo
    from fieldshift.motions.warp import (
        FILLS,
        MODES,
        Fill,
        sampling_grid,
        warp,
        warp_frames,
        warp_masks,
        warp_mixture,
    )

__all__ = [
    "COLOURS",
    "FILLS",
    "MODES",
    "MOTIONS",
    "Colour",
    "Edge",
    "Fill",
    "Graph",
    "ImageToVideo",
    "Motion",
    "Policy",
    "Step",
    "colour",
    "compose",
    "distances",
    "invert",
    "motion",
    "operation",
    "register_colour",
    "register_motion",
    "sampling_grid",
    "warp",
    "warp_frames",
    "warp_masks",
    "warp_mixture",
]

load_on_use(__name__)
