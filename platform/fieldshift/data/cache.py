"""Where derived data is kept between runs, and how it is written: whole or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.generic]]


def cache_folder() -> Path:
    """The folder for derived data: the environment variable FIELDSHIFT_CACHE, else the user's cache folder."""
    named = os.environ.get("FIELDSHIFT_CACHE")
    if named:
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fieldshift"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "fieldshift" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fieldshift"


def data_root(root: Path | str | None = None) -> Path:
    """Where named data sets are looked for: `root`, else FIELDSHIFT_DATA, else `datasets` in the cache folder."""
    if root is not None:
        return Path(root).expanduser()
    named = os.environ.get("FIELDSHIFT_DATA")
    return Path(named).expanduser() if named else cache_folder() / "datasets"


def cached_arrays(key: str, make: Callable[[], Arrays]) -> dict[str, NDArray[np.generic]]:
    """The arrays that `make` gives, kept under `key` in the cache folder, so that they are made once.

    The file is written under a temporary name and renamed, so several processes may ask at once. A file that cannot
    be read is made again; a folder that cannot be written to costs only the time to make the arrays each run.
    """
    path = cache_folder() / f"{key}.npz"
    try:
        with path.open("rb") as source, np.load(source, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except Exception:  # not there, or damaged: both mean that it has to be made
        arrays = dict(make())
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.writing.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
    return arrays
