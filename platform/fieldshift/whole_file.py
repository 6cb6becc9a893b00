"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from fieldshift.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to `path`, which replaces `path` when the block ends and is removed after an error.

    The folder is created. Several processes may write the same file; the last one to finish is kept. Raises UserError where
    the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno in FULL:
            raise UserError(
                f"{path} cannot be written: {os.strerror(error.errno)}. Free some space there; what was written before is"
                " kept, and --resume continues a run."
            ) from error
        raise


def write_whole(path: Path, text: str) -> Path:
    """Writes a text file (UTF-8) whole or not at all, and returns its path."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
