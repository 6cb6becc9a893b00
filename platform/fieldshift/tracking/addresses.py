"""Addresses of stores and conditions of filters, with the characters of paths and names quoted."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote

SQLITE_WAIT_S = 60


def sqlite_address(database: Path) -> str:
    """The address of the SQLite store in a file, in the form that SQLAlchemy parses, for any characters in the path."""
    path = str(database.absolute())
    if not set(path) & set("?#%"):
        return f"sqlite:///{path}?timeout={SQLITE_WAIT_S}"
    from sqlalchemy.engine import URL

    query = {"uri": "true", "timeout": str(SQLITE_WAIT_S)}
    # With the driver's name, because MLflow takes what follows sqlite:/// for the path of a folder to create.
    return URL.create("sqlite+pysqlite", database=f"file:{quote(path)}", query=query).render_as_string(
        hide_password=False
    )


def is_sqlite(address: str) -> bool:
    """Whether an address is that of a SQLite store."""
    return address.startswith(("sqlite:", "sqlite+"))


def sqlite_file(address: str) -> Path:
    """The file of a SQLite store, as `sqlite_address` named it or a user did."""
    from sqlalchemy.engine import make_url

    url = make_url(address)
    path = url.database or ""
    return Path(unquote(path.removeprefix("file:")) if "uri" in url.query else path)


def store_lock(address: str, folder: Path) -> Path:
    """The file that processes lock while they open a store: beside a SQLite database, which runs share, else in `folder`."""
    if not is_sqlite(address):
        return folder / ".mlflow.lock"
    database = sqlite_file(address).resolve()
    return database.with_name(f"{database.name}.lock")


def quoted_condition(field: str, text: str) -> str:
    """An MLflow filter condition that a field equals `text`; a LIKE pattern if `text` contains both kinds of quotes.

    MLflow's filters cannot quote both kinds, so compare the runs found with the text again.
    """
    if "'" in text and '"' in text:
        pattern = text.replace("'", "_")
        return f"{field} LIKE '{pattern}'"
    return f'{field} = "{text}"' if "'" in text else f"{field} = '{text}'"
