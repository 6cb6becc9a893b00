"""The motion spaces that come with the platform: one TOML file each, its name is the file's."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable


def names() -> tuple[str, ...]:
    """The names of all packaged motion spaces, sorted."""
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in _entries()))


def read(name: str) -> str:
    """The TOML text of the packaged space `name`. Raises KeyError for a name that is not in `names()`."""
    for entry in _entries():
        if entry.name == f"{name}.toml":
            return entry.read_text(encoding="utf-8")
    raise KeyError(name)


def _entries() -> list[Traversable]:
    return [entry for entry in files("search_spaces").iterdir() if entry.name.endswith(".toml")]
