"""FieldShift: images become short videos, and a search finds the motions that reshape a receptive field.

`from fieldshift import Policy, ImageToVideo, video_network` is the whole of what most users need; the names are loaded
when they are first used, so that `fieldshift --help` stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldshift.deferral import load_on_use

if TYPE_CHECKING:
    from fieldshift.errors import UserError
    from fieldshift.folding import fold
    from fieldshift.motions import ImageToVideo, Policy
    from fieldshift.networks import video_network

__version__ = "0.1.0"

__all__ = ["ImageToVideo", "Policy", "UserError", "__version__", "fold", "video_network"]

load_on_use(__name__)
