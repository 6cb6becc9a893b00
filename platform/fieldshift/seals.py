"""SHA-256 digests by which damaged and exchanged files are recognised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MARK = b"\nfieldshift-sha256:"
LENGTH = len(MARK) + 64


class SealError(ValueError):
    """A file's content is not what was written."""


def seal(path: Path) -> None:
    """Appends the digest of a file's content to it."""
    found = file_digest(path)
    with path.open("ab") as file:
        file.write(MARK + found.encode())


def check_seal(path: Path) -> None:
    """Raises SealError where a sealed file has changed. A file without a seal, as earlier versions wrote them, passes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - LENGTH))
        end = file.read()
    if MARK in end and not (end.startswith(MARK) and len(end) == LENGTH):
        raise SealError("its end is missing")
    if end.startswith(MARK) and file_digest(path, size - LENGTH) != end[len(MARK) :].decode("ascii", "replace"):
        raise SealError("its content differs from what was written")


def file_digest(path: Path, size: int | None = None) -> str:
    """The SHA-256 of a file, or of its first `size` bytes, in hexadecimal digits."""
    left, found = path.stat().st_size if size is None else size, hashlib.sha256()
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            found.update(block)
            left -= len(block)
    return found.hexdigest()


def values_digest(values: Mapping[str, Any]) -> str:
    """The SHA-256 of plain values as JSON, whatever the order of the names."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
