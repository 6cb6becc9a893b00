"""FieldShift: images become short videos, and a search finds the motions that reshape a receptive field.

`from fieldshift import Policy, ImageToVideo, video_network` is the whole of what most users need; the names are loaded
when they are first used, so that `fieldshift --help` stays quick.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Policy": "fieldshift.motions",
    "ImageToVideo": "fieldshift.motions",
    "video_network": "fieldshift.networks",
    "UserError": "fieldshift.errors",
}

__all__ = ["ImageToVideo", "Policy", "UserError", "__version__", "video_network"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fieldshift' has no attribute '{name}'")
