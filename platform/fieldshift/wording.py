"""Numbers with their nouns and verbs, as messages and pages show them."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun: "1 image", "2,400 images"; `plural` for nouns that take more than an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def is_or_are(count: int) -> str:
    """The verb after a number: "is" for 1, else "are"."""
    return "is" if count == 1 else "are"
