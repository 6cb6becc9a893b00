"""What counts as a number in a policy: finite, no boolean, and small enough for a float."""

from __future__ import annotations

import math


def is_number(value: object) -> bool:
    """Whether the value is a finite real number that a float can hold; booleans are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
