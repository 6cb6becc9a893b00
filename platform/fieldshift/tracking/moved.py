"""Stores that were moved or copied: MLflow records absolute paths of artifacts, which then no longer exist."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fieldshift.tracking.addresses import sqlite_address

ARTIFACTS, DATABASE = "artifacts", "mlflow.db"
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def point_here(database: Path, folder: Path) -> int:
    """Updates the artifact locations of a run folder's store to `folder`, and returns the number of updated entries.

    Only locations on disk that end with "artifacts" belong to a run folder; others stay unchanged.
    """
    here = (folder.resolve() / ARTIFACTS).as_uri()
    changed = 0
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as opened, opened:
        found = opened.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for (location,) in found:
            if location == here or not _is_of_a_run_folder(location or ""):
                continue
            for table, column in _LOCATIONS:
                changed += opened.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (here, len(location) + 1, location, len(location) + 1, f"{location}/"),
                ).rowcount
    return changed


def _is_of_a_run_folder(location: str) -> bool:
    parts = urlsplit(location)
    return parts.scheme in {"", "file"} and Path(unquote(parts.path)).name == ARTIFACTS


def is_writable(folder: Path) -> bool:
    """Whether a run folder's store is writable; SQLite also needs to create files next to it."""
    if not os.access(folder, os.W_OK) or not os.access(folder / DATABASE, os.W_OK):
        return False
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def readable(folder: Path) -> Iterator[str]:
    """Yields the address of a run folder's store with artifact locations updated to the current folder.

    The store of a read-only folder is read from a copy that exists within the block.
    """
    database = folder / DATABASE
    if is_writable(folder):
        point_here(database, folder)
        yield sqlite_address(database)
        return
    with tempfile.TemporaryDirectory(prefix="fieldshift-store-") as place:
        copy = Path(place) / DATABASE
        with (
            contextlib.closing(
                sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
            ) as held,
            contextlib.closing(sqlite3.connect(copy)) as made,
        ):
            held.backup(made)
        point_here(copy, folder)
        yield sqlite_address(copy)
