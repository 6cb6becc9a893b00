"""Addresses of stores, made from paths: what a path may hold has a meaning of its own in a URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

SQLITE_WAIT_S = 60


def sqlite_address(database: Path) -> str:
    """The address of the SQLite store in a file, as SQLAlchemy reads it back, whatever characters the path has."""
    path = str(database.absolute())
    if not set(path) & set("?#%"):
        return f"sqlite:///{path}?timeout={SQLITE_WAIT_S}"
    from sqlalchemy.engine import URL

    query = {"uri": "true", "timeout": str(SQLITE_WAIT_S)}
    return URL.create("sqlite", database=f"file:{quote(path)}", query=query).render_as_string(hide_password=False)


def quoted_condition(field: str, text: str) -> str:
    """The condition of MLflow's filters that a field is this text, or is like it where both kinds of quotes are in it.

    The filters know no way to write both; what is found has to be compared with the text once more.
    """
    if "'" in text and '"' in text:
        pattern = text.replace("'", "_")
        return f"{field} LIKE '{pattern}'"
    return f'{field} = "{text}"' if "'" in text else f"{field} = '{text}'"
