"""What can move: motions, one sampling pass, and the policies that join them.

A motion is a pure function (magnitude, distance of the frame) -> matrix; a policy composes matrices and samples the
image once. The package imports torch only; `ImageToVideo`, a torchvision transform, and `VideoLayer` are loaded when used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fieldshift.motions.colour import COLOURS, Colour, colour, register_colour
from fieldshift.motions.graph import Edge, Graph, Step, operation
from fieldshift.motions.matrices import compose, distances, invert
from fieldshift.motions.policy import Policy
from fieldshift.motions.registry import MOTIONS, Motion, motion, register_motion
from fieldshift.motions.warp import (
    FILLS,
    MODES,
    Fill,
    sampling_grid,
    validity,
    warp,
    warp_frames,
    warp_masks,
    warp_mixture,
)

if TYPE_CHECKING:
    from fieldshift.motions.layer import VideoLayer
    from fieldshift.motions.video import ImageToVideo

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
    "VideoLayer",
    "colour",
    "compose",
    "distances",
    "invert",
    "motion",
    "operation",
    "register_colour",
    "register_motion",
    "sampling_grid",
    "validity",
    "warp",
    "warp_frames",
    "warp_masks",
    "warp_mixture",
]

_LATER = {"ImageToVideo": "fieldshift.motions.video", "VideoLayer": "fieldshift.motions.layer"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'fieldshift.motions' has no attribute '{name}'")
