"""FieldShift turns images into short videos and searches for the motions that best reshape a receptive field.

Most users need only `from fieldshift import Policy, ImageToVideo, video_network`. Names are loaded on first use, so that
`fieldshift --help` stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldshift.deferral import load_on_use

if TYPE_CHECKING:
    from fieldshift.errors import UserError
    from fieldshift.folding import fold
    from fieldshift.motions import ImageToVideo, Policy
    from fieldshift.networks import video_network
    from fieldshift.search import find_policy

__version__ = "0.1.0"

__all__ = ["ImageToVideo", "Policy", "UserError", "__version__", "find_policy", "fold", "video_network"]

load_on_use(__name__)
