"""Where derived data is kept between runs, and how it is written: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fieldshift.cache_folder import cache_folder
from fieldshift.paths import given_path

Arrays = Mapping[str, NDArray[np.generic]]


def data_root(root: Path | str | None = None) -> Path:
    """Where named data sets are looked for: `root`, else FIELDSHIFT_DATA, else `datasets` in the cache folder."""
    if root is not None:
        return given_path(root)
    named = os.environ.get("FIELDSHIFT_DATA")
    return given_path(named) if named else cache_folder() / "datasets"


def cached_arrays(key: str, make: Callable[[], Arrays]) -> dict[str, NDArray[np.generic]]:
    """The arrays that `make` gives, kept under `key` in the cache folder, so that they are made once.

    A file that cannot be read is made again; a folder that cannot be written to costs only the time to make the arrays
    each run. `key` has to change with everything that the arrays are made of.
    """
    kept = kept_arrays(key)
    if kept is not None:
        return kept
    arrays = dict(make())
    keep_arrays(key, arrays)
    return arrays


def kept_arrays(key: str) -> dict[str, NDArray[np.generic]] | None:
    """The arrays that are kept under `key`; None where there are none, or they are damaged."""
    try:
        with (cache_folder() / f"{key}.npz").open("rb") as source, np.load(source, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except Exception:  # not there, or damaged: both mean that it has to be made
        return None


def keep_arrays(key: str, arrays: Arrays) -> None:
    """Keeps `arrays` under `key`: written under a temporary name and renamed, so several processes may do it at once."""
    path = cache_folder() / f"{key}.npz"
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.writing.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
