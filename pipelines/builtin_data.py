"""The notes that accompany every table of the built-in data."""

from __future__ import annotations

from fieldshift.data.names import is_digit_pairs


def notes_on(data: str) -> list[str]:
    """Notes for the tables of a data set; empty for all but the built-in ones."""
    if not is_digit_pairs(data):
        return []
    from fieldshift.data.published.digit_pairs import CANVAS, FARTHEST, NEAREST

    mean = (NEAREST + FARTHEST) / 2
    return [
        f"Built-in data: the digits of a pair are {NEAREST} to {FARTHEST} px apart, {mean:g} px or {mean / CANVAS:g} of the "
        f"side on average, and {mean / CANVAS:g} is the largest translation in the grids of the packaged search spaces: the "
        "grid holds the right answer."
    ]
