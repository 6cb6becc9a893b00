"""The lengths of video that a frame sweep compares (METHOD.md 7)."""

from __future__ import annotations

FRAME_COUNTS = (1, 2, 3, 5, 8, 16)
