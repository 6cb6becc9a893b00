"""The template of SQLite stores: MLflow creates it once per version, and new stores are copies of it."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from importlib.metadata import version
from pathlib import Path

from fieldshift.cache_folder import cache_folder
from fieldshift.whole_file import whole_file


def template_file() -> Path:
    """The path of the empty database of this version of MLflow, which may not exist yet."""
    return cache_folder() / f"mlflow-{version('mlflow')}.db"


def copy_template(database: Path) -> bool:
    """Copies the template to `database` unless it exists, and returns whether it did. A damaged template is removed."""
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
    """Whether a database is undamaged and migrated by MLflow."""
    try:
        with contextlib.closing(sqlite3.connect(database)) as opened:
            return opened.execute("PRAGMA quick_check").fetchall() == [("ok",)] and bool(
                opened.execute("SELECT version_num FROM alembic_version").fetchall()
            )
    except sqlite3.Error:
        return False


def keep_template(database: Path) -> None:
    """Saves a database that MLflow has just created as the template, unless there is one or the folder is read-only.

    MLflow's default experiment contains a path of this run, so it is removed; MLflow creates one in every copy.
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
