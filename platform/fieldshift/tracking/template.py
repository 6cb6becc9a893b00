"""The database of a store of its own: MLflow makes it once for each of its versions, later ones are copies."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from importlib.metadata import version
from pathlib import Path

from fieldshift.cache_folder import cache_folder
from fieldshift.whole_file import whole_file


def template_file() -> Path:
    """Where the empty database of this version of MLflow is kept, made or not."""
    return cache_folder() / f"mlflow-{version('mlflow')}.db"


def copy_template(database: Path) -> bool:
    """Puts a copy of the template where no database is yet; says whether it did. A damaged template is removed."""
    if database.exists():
        return False
    try:
        with whole_file(database) as temporary:
            shutil.copyfile(template_file(), temporary)
            if not is_whole(temporary):
                template_file().unlink()
                raise OSError(f"{template_file()} is damaged")
    except OSError:
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
    with (
        contextlib.suppress(OSError, sqlite3.Error),
        whole_file(template) as temporary,
        contextlib.closing(sqlite3.connect(database)) as made,
        contextlib.closing(sqlite3.connect(temporary)) as kept,
    ):
        made.backup(kept)
        kept.execute("DELETE FROM experiments")
        kept.commit()
