"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

from fieldshift.errors import UserError


def given_path(text: str | Path) -> Path:
    """The path with ~ and ~USER expanded to home folders. Raises UserError for an unknown user and for a zero byte."""
    if "\0" in str(text):
        raise UserError(f"{str(text)!r} contains a zero byte, which paths must not; give another path.")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"'{text}' begins with a user whose home folder is unknown; give the full path.") from None


def obstacle(path: Path) -> str:
    """The nearest existing part of `path` and why nothing can be written below it, such as "/a is a file"; "" if it can."""
    above = next(part for part in (path, *path.absolute().parents) if part.exists())
    if not above.is_dir():
        return f"{above} is a file"
    return "" if os.access(above, os.W_OK) else f"{above} is not writable"
