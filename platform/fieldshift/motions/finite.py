"""Validates numbers of a policy: finite, not boolean, and within the range of a float."""

from __future__ import annotations

import math


def is_number(value: object) -> bool:
    """Whether the value is a finite real number that a float can represent; booleans are not numbers."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
