"""Paths as people write them."""

from __future__ import annotations

from pathlib import Path

from fieldshift.errors import UserError


def given_path(text: str | Path) -> Path:
    """The path with ~ and ~USER as home folders. Raises UserError for a user that there is not, and for a zero byte."""
    if "\0" in str(text):
        raise UserError(f"{str(text)!r} holds a zero byte, which no path has; give another path.")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"'{text}' begins with a user whose home folder is not known; write the whole path.") from None
