"""Contents of files as hashes of their bytes; in large sets a file is read again only if its size or times changed."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fieldshift.console import progress
from fieldshift.data.cache import keep_arrays, kept_arrays

# This many files are read in less than a second, so all are read every time.
FRESH_FILES, FRESH_BYTES = 2_000, 64 * 2**20
SAID_BYTES = 2 * 2**30
SETTLED_NS = 2 * 10**9
HASH_BYTES = 16
CHUNK = 64  # files per call of a thread: handing over one small file takes longer than reading it

State = tuple[int, int, int]
Known = dict[str, tuple[State, str]]


def content_hash(path: str | Path) -> str:
    """The hash of a file's bytes, 32 hexadecimal digits; empty if the file cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=HASH_BYTES)).hexdigest()
    except OSError:
        return ""


def content_hashes(paths: Sequence[str]) -> list[str]:
    """The `content_hash` of every file at `paths`."""
    return [content_hash(path) for path in paths]


def state_of(path: str) -> State:
    """Size in bytes, and the times of the last content and status changes in ns; zeros if there is no file."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path for each of a million files takes longer than the call
    except OSError:
        return 0, 0, 0
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


class FileContents:
    """The hashes of files, each read at most once during the lifetime of this object.

    Up to 2,000 files of 64 MiB in all are read again by every run. Hashes of larger sets are cached in the cache folder and
    stay valid while path, size, modification time and status change time of the file are the same; a file changed
    less than two seconds before it was read is read again the next time.
    """

    def __init__(self, workers: int = 0) -> None:
        self.workers, self.read = workers, dict[str, str]()

    def of(self, paths: Sequence[str]) -> list[str]:
        """The hash of every file at `paths`; empty if a file cannot be read."""
        missing = [path for path in dict.fromkeys(paths) if path not in self.read]
        states = [state_of(path) for path in missing]
        if len(missing) <= FRESH_FILES and sum(size for size, _, _ in states) <= FRESH_BYTES:
            self.read.update(zip(missing, self._hashes(missing, states), strict=True))
        elif missing:
            self.read.update(self._remembered(missing, states))
        return [self.read[path] for path in paths]

    def _remembered(self, paths: list[str], states: list[State]) -> dict[str, str]:
        key = f"contents-{hashlib.sha256(os.fsencode(common_folder(paths))).hexdigest()[:16]}"
        known = unpacked(kept_arrays(key))
        unsure = [place for place, path in enumerate(paths) if known.get(path, (None, ""))[0] != states[place]]
        began = time.time_ns()
        fresh = self._hashes([paths[place] for place in unsure], [states[place] for place in unsure])
        found = {path: known[path][1] for path in paths if path in known}
        settled = False
        for place, hashed in zip(unsure, fresh, strict=True):
            path, state = paths[place], states[place]
            found[path] = hashed
            known.pop(path, None)
            if hashed and max(state[1:]) < began - SETTLED_NS:
                known[path] = state, hashed
                settled = True
        if settled:
            keep_arrays(key, packed(known))
        return found

    def _hashes(self, paths: list[str], states: list[State]) -> list[str]:
        total = sum(size for size, _, _ in states)
        with ThreadPoolExecutor(max(1, self.workers), thread_name_prefix="fieldshift-content") as pool:
            chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
            found = itertools.chain.from_iterable(pool.map(content_hashes, chunks))
            if total < SAID_BYTES:
                return list(found)
            hashes = []
            with progress(f"reading {len(paths):,} files once, to identify them later", float(total)) as bar:
                for hashed, (size, _, _) in zip(found, states, strict=True):
                    hashes.append(hashed)
                    bar.advance(float(size))
            return hashes


def common_folder(paths: Sequence[str]) -> str:
    """The folder that contains all `paths` (absolute, at least one)."""
    return os.path.commonpath(list({path.rpartition(os.sep)[0] or os.sep for path in paths}))


def packed(known: Known) -> dict[str, NDArray[np.generic]]:
    return {
        "paths": np.frombuffer(b"\0".join(os.fsencode(path) for path in known), dtype=np.uint8),
        "states": np.array([state for state, _ in known.values()], dtype=np.int64),
        "hashes": np.frombuffer(bytes.fromhex("".join(hashed for _, hashed in known.values())), dtype=np.uint8),
    }


def unpacked(arrays: dict[str, NDArray[np.generic]] | None) -> Known:
    """The inverse of `packed`; empty for other arrays."""
    try:
        assert arrays is not None
        paths = [os.fsdecode(path) for path in arrays["paths"].tobytes().split(b"\0")]
        hashes = [row.tobytes().hex() for row in arrays["hashes"].reshape(len(paths), HASH_BYTES)]
        states = [(int(size), int(changed), int(status)) for size, changed, status in arrays["states"].tolist()]
        return dict(zip(paths, zip(states, hashes, strict=True), strict=True))
    except (AssertionError, KeyError, ValueError, TypeError):
        return {}
