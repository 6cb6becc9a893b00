"""The motion spaces that come with the platform: one TOML file each, its name is the file's."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from fieldshift.errors import UserError, unknown_name


def names() -> tuple[str, ...]:
    """The names of all packaged motion spaces, sorted."""
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in _entries()))


def read(name: str) -> str:
    """The TOML text of the packaged space `name`. Raises KeyError for a name that is not in `names()`."""
    for entry in _entries():
        if entry.name == f"{name}.toml":
            return entry.read_text(encoding="utf-8")
    raise KeyError(name)


def found(name_or_path: str | Path) -> tuple[str, str]:
    """The TOML text of a packaged space or of a file, and what errors call it. Raises UserError where there is none."""
    text = str(name_or_path)
    if not text.endswith(".toml"):
        if text not in names():
            raise unknown_name("search space", text, names())
        return read(text), f"{text}.toml"
    path = Path(text)
    if not path.is_file():
        raise UserError(f"No search space file at {path}; give a name ({', '.join(names())}) or a file.")
    try:
        return path.read_text(encoding="utf-8-sig"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(f"{path} cannot be read ({reason}); give a TOML file.") from None


def _entries() -> list[Traversable]:
    return [entry for entry in files("search_spaces").iterdir() if entry.name.endswith(".toml")]
