"""The record of a run's data: `data.json` in its folder, compared whenever the run is resumed or used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.console import say
from fieldshift.errors import UserError
from fieldshift.run_folder import CONFIG, RunFolder, read_result
from fieldshift.whole_file import write_whole

if TYPE_CHECKING:
    from fieldshift.data import DataSet, Identity

FILE = "data.json"
SCHEMA, VERSION = "fieldshift.data", 1


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """The data of a run: name, digest, and the samples of own data. `identity` is None for built-in and published sets."""

    name: str
    digest: str
    identity: Identity | None


def run_folder_of(folder: Path) -> Path:
    """The folder with a run's configuration: `folder`, or for one of the run's trials the folder that it is in."""
    if (folder / CONFIG).is_file() or folder.absolute().parent.name != "trials":
        return folder
    return folder.absolute().parent.parent


def write_record(folder: Path, dataset: DataSet) -> None:
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "version": VERSION,
        "name": dataset.name,
        "digest": dataset.digest,
        "protocol": dataset.protocol,
        "samples": None if dataset.identity is None else dataset.identity.to_plain(),
    }
    write_whole(folder / FILE, json.dumps(values, separators=(",", ":")) + "\n")


def read_record(folder: Path) -> DataRecord | None:
    """Reads the record of the run in `folder`; None where the run has none."""
    from fieldshift.data import Identity

    path = run_folder_of(folder) / FILE
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        raise UserError(
            f"{path} cannot be read; restore it, or delete it to continue without a record of the data."
        ) from None
    unfit = UserError(f"{path} does not describe the data of a run; restore it, or delete it.")
    if not isinstance(values, dict) or values.get("schema") != SCHEMA or not isinstance(values.get("version"), int):
        raise unfit
    if values["version"] > VERSION:
        raise UserError(f"{path} has version {values['version']}, this FieldShift reads up to {VERSION}: update it.")
    try:
        samples = values["samples"]
        identity = None if samples is None else Identity.from_plain(samples)
        return DataRecord(name=values["name"], digest=values["digest"], identity=identity)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise unfit from None


def keep_record(folder: RunFolder, dataset: DataSet) -> None:
    """Writes the record of a new run; for a resumed one, checks that the data are the same.

    Raises UserError where they changed. Prints a line where an earlier version of FieldShift left no record.
    """
    from fieldshift.data import changes

    if not folder.resumed:
        write_record(folder.path, dataset)
        return
    held = read_record(folder.path)
    digest = digest_without_record(folder.path, dataset) if held is None else held.digest
    if digest is None:
        say(
            f"{folder.path} has no {FILE} (an earlier version of FieldShift made it): whether {dataset.name} has changed "
            "since is unknown."
        )
    elif digest != dataset.digest:
        what = (
            None
            if held is None or held.identity is None or dataset.identity is None
            else changes(held.identity, dataset.identity)
        )
        raise UserError(
            f"{dataset.name} has changed since {folder.path} was made ({what or 'its digest differs'}); restore the data, "
            "or give another --out to start again."
        )


def digest_without_record(folder: Path, dataset: DataSet) -> str | None:
    """The digest in an earlier run's result; None without one, and for files, whose digests were computed differently."""
    if dataset.from_files or not (folder / "result.json").exists():
        return None
    digest = (read_result(folder).get("data") or {}).get("digest")
    return None if digest is None else str(digest)
