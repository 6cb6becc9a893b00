"""One process at a time: a lock on a file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

LOCK_DEADLINE_S = 60.0


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Holds a lock on a file for the block; waits for other processes, up to a deadline."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_DEADLINE_S
    with path.open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"Another process held {path} for {LOCK_DEADLINE_S:g} seconds.") from None
                time.sleep(0.05)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
