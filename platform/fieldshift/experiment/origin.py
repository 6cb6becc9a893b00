"""The origin of a run in MLflow: its command, configuration, versions, commit and data, on the run and on all its parts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fieldshift.run_folder import RunFolder, code_commit, config_digest, environment
from fieldshift.tracking import Run

if TYPE_CHECKING:
    from fieldshift.data import DataSet

NOTE_TAG = "mlflow.note.content"
DIRTY = "-dirty"


def origin_of(folder: RunFolder) -> dict[str, str]:
    """The tags of a run's origin: digest of the configuration, versions, and commit where the code is a checkout."""
    tags = {"fieldshift.config": config_digest(folder.config)}
    tags |= {f"version.{name}": number for name, number in environment()["versions"].items()}
    commit = code_commit()
    if commit is None:
        return tags
    dirty = {"mlflow.source.git.dirty": "true"} if commit.endswith(DIRTY) else {}
    return tags | {"mlflow.source.git.commit": commit.removesuffix(DIRTY)} | dirty


def log_data(run: Run, dataset: DataSet | None) -> None:
    """Logs the data that a run, or a part of it, reads: name, digest and number of images."""
    if dataset is not None:
        run.log_dataset(dataset.name, dataset.digest, {"train": len(dataset.train), "test": len(dataset.test)})


def command_of(folder: RunFolder) -> str:
    """The command that repeats a run in a new folder; it can be pasted into a shell."""
    return f"fieldshift {folder.command} --config {shlex.quote(str(folder.path / 'config.yaml'))}"


def note_of(folder: RunFolder, *lines: str) -> str:
    """The description of a run on MLflow's pages: the lines, and the command that repeats it."""
    return "\n\n".join([f"FieldShift `{folder.command}`", *lines, f"Run again with\n\n    {command_of(folder)}"])


def part_note(repeated: str, labels: Mapping[str, str], place: str) -> str:
    """The description of a part of a run: its stage, labels, folder, and the command that repeats the run."""
    named = ", ".join(f"{name} {labels[name]}" for name in ("arm", "form", "T", "seed", "reading") if name in labels)
    words = f"FieldShift, stage {labels['stage']}" + (f": {named}" if named else "")
    return "\n\n".join([words, f"Files: `{place}`", f"Part of the run that is repeated with\n\n    {repeated}"])
