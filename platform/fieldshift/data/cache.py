"""The cache of derived data, written atomically."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fieldshift.cache_folder import cache_folder
from fieldshift.paths import given_path
from fieldshift.whole_file import whole_file

Arrays = Mapping[str, NDArray[np.generic]]


def data_root(root: Path | str | None = None) -> Path:
    """The folder of named data sets: `root`, else FIELDSHIFT_DATA, else `datasets` in the cache folder."""
    if root is not None:
        return given_path(root)
    named = os.environ.get("FIELDSHIFT_DATA")
    return given_path(named) if named else cache_folder() / "datasets"


def cached_arrays(key: str, make: Callable[[], Arrays]) -> dict[str, NDArray[np.generic]]:
    """Returns the arrays of `make`, cached under `key` in the cache folder so that they are computed once.

    An unreadable file is computed again; an unwritable folder only costs the time to compute the arrays in
    each run. `key` must depend on everything that the arrays are computed from.
    """
    kept = kept_arrays(key)
    if kept is not None:
        return kept
    arrays = dict(make())
    keep_arrays(key, arrays)
    return arrays


def kept_arrays(key: str) -> dict[str, NDArray[np.generic]] | None:
    """The arrays cached under `key`; None where they are missing or damaged."""
    try:
        with (cache_folder() / f"{key}.npz").open("rb") as source, np.load(source, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except Exception:  # missing or damaged: both mean that it must be computed
        return None


def keep_arrays(key: str, arrays: Arrays) -> None:
    """Caches `arrays` under `key`, unless the cache folder cannot be written; several processes may do it at once."""
    path = cache_folder() / f"{key}.npz"
    with suppress(OSError), whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
