"""The database of a store of its own: MLflow makes it once for each of its versions, later ones are copies."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from importlib.metadata import version
from pathlib import Path

from fieldshift.cache_folder import cache_folder


def template_file() -> Path:
    """Where the empty database of this version of MLflow is kept, made or not."""
    return cache_folder() / f"mlflow-{version('mlflow')}.db"


def copy_template(database: Path) -> bool:
    """Puts a copy of the template where no database is yet; says whether it did. A damaged template is removed."""
    if database.exists():
        return False
    written = beside(database)
    try:
        shutil.copyfile(template_file(), written)
        if not is_whole(written):
            template_file().unlink()
            raise OSError(f"{template_file()} is damaged")
        written.replace(database)
    except OSError:
        written.unlink(missing_ok=True)
        return False
    return True


def is_whole(database: Path) -> bool:
    """Whether SQLite can read all of a database, and MLflow has migrated it."""
    try:
        with contextlib.closing(sqlite3.connect(database)) as opened:
            return opened.execute("PRAGMA quick_check").fetchall() == [("ok",)] and bool(
                opened.execute("SELECT version_num FROM alembic_version").fetchall()
            )
    except sqlite3.Error:
        return False


def keep_template(database: Path) -> None:
    """Keeps a database that MLflow has just made as the template, unless there is one or it cannot be written.

    MLflow's first experiment names a folder of this run, so it is left out: MLflow makes one in every copy.
    """
    template = template_file()
    if template.exists():
        return
    written = beside(template)
    try:
        template.parent.mkdir(parents=True, exist_ok=True)
        with (
            contextlib.closing(sqlite3.connect(database)) as made,
            contextlib.closing(sqlite3.connect(written)) as kept,
        ):
            made.backup(kept)
            kept.execute("DELETE FROM experiments")
            kept.commit()
        written.replace(template)
    except (OSError, sqlite3.Error):
        with contextlib.suppress(OSError):
            written.unlink()


def beside(file: Path) -> Path:
    """The name under which this process writes the file before it stands there whole."""
    return file.with_name(f".{file.name}.{os.getpid()}.writing")
