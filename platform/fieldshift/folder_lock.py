"""The lock of a run folder: one process at a time writes to it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from fieldshift.errors import UserError

LOCK = "in-use"
TRIES, PAUSE_S = 10, 0.02
"""Attempts to take the lock, and the seconds between them: `check_free` of another process holds it for a moment."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds an existing run folder for the block. Raises UserError, naming process and host, where another one holds it.

    The system releases the lock when the process ends, however it ends. On a file system without locks nothing is held.
    """
    held = _taken(folder)
    try:
        yield
    finally:
        if held is not None:
            with contextlib.suppress(OSError):  # the folder is read-only by now, or gone
                (folder / LOCK).unlink()
            held.close()


def check_free(folder: Path) -> None:
    """Raises UserError where a process holds the run folder; writes nothing."""
    with contextlib.suppress(FileNotFoundError, PermissionError), (folder / LOCK).open() as file:
        _lock(file, folder, fcntl.LOCK_SH)


def _taken(folder: Path) -> TextIO | None:
    """The open lock file with this process's name in it; None on a file system without locks."""
    path = folder / LOCK
    while True:
        try:
            file = path.open("a+")
        except OSError:
            return None
        try:
            if not _lock(file, folder, fcntl.LOCK_EX):
                file.close()
                with contextlib.suppress(OSError):
                    path.unlink()
                return None
        except UserError:
            file.close()
            raise
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        except FileNotFoundError:
            pass
        except OSError:
            file.close()
            return None
        file.close()  # removed by its last holder meanwhile
    with contextlib.suppress(OSError):  # a full disk
        file.truncate(0)
        file.write(f"{os.getpid()} {socket.gethostname()}")
        file.flush()
    return file


def _lock(file: TextIO, folder: Path, kind: int) -> bool:
    """Locks an open file; False where the file system has no locks. Raises UserError where another process has it."""
    try:
        for _ in range(TRIES - 1 if kind == fcntl.LOCK_EX else 0):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                return True
            time.sleep(PAUSE_S)
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        process, _, host = file.read().partition(" ")
        holder = f"process {process} on {host}" if host else "another process"
        raise UserError(
            f"--out {folder} is in use by {holder}; wait until it has ended, or give another --out."
        ) from None
    except OSError:
        return False
    return True
