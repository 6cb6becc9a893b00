"""The cache folder for derived data, which can be recomputed at any time."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Returns the folder for derived data: the environment variable FIELDSHIFT_CACHE, else the user's cache folder."""
    named = os.environ.get("FIELDSHIFT_CACHE")
    if named:
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fieldshift"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "fieldshift" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fieldshift"
