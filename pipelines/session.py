"""One run from the first check to the last line: its folder, its MLflow run, and closing both whatever happens."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.console import say
from fieldshift.run_folder import RunFolder, open_run_folder
from fieldshift.tracking import Run, Store, TrackingConfig, open_store
from pipelines.data_record import FILE, keep_record

if TYPE_CHECKING:
    from fieldshift.data import DataSet


@dataclass(frozen=True)
class Session:
    """A run that is going on: where it writes, where it logs, and whether it continues an earlier one."""

    folder: RunFolder
    store: Store
    run: Run
    experiment: str
    failed: dict[str, str] = field(default_factory=dict)  # trials that failed, and why

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def resume(self) -> bool:
        return self.folder.resumed

    def child(self, key: str, tags: dict[str, str]) -> Run:
        """The MLflow run of one trial or stage, found again when the run is resumed."""
        return self.store.run(self.experiment, key, parent_id=self.run.id, key=f"{self.path}:{key}", tags=tags)

    def stage(self, name: str, config: dict[str, Any]) -> Session:
        """A part of this run with its own folder inside this one; it goes on when the whole goes on."""
        folder = self.path / name
        resumed = self.resume and (folder / "config.yaml").exists()
        opened = open_run_folder(folder, name, config, resumed)
        if (self.path / FILE).exists():
            shutil.copyfile(self.path / FILE, folder / FILE)  # for its trials, and for who takes the stage for a run
        return Session(opened, self.store, self.run, self.experiment)


@contextmanager
def open_session(
    command: str,
    *,
    out: str | Path | None,
    resume: bool,
    config: dict[str, Any],
    tracking: TrackingConfig,
    tags: dict[str, str],
    dataset: DataSet,
) -> Iterator[Session]:
    """Opens the run's folder and MLflow run; closes the latter FINISHED, FAILED, or KILLED on Ctrl-C.

    Raises UserError where the run goes on but its data have changed.
    """
    folder = open_run_folder(out, command, config, resume)
    keep_record(folder, dataset)
    if out is None and folder.path.name != command and not resume:
        say(f"runs/{command} is taken: this run writes to runs/{folder.path.name}")
    store = open_store(tracking, folder.path)
    name = folder.path.name
    run = store.run(tracking.experiment, name, key=str(folder.path), tags={"command": command, **tags})
    session = Session(folder, store, run, tracking.experiment)
    try:
        run.log_params(flat(folder.config))
        yield session
    except KeyboardInterrupt:
        run.close("KILLED")
        say(f"Interrupted. Add --resume --out {folder.path} to the same command to go on.")
        raise
    except BaseException:
        run.close("FAILED")
        raise
    run.log_artifact(folder.path / "config.yaml")
    if folder.result_path.exists():
        run.log_artifact(folder.result_path)
    run.close("FINISHED")


def say_failed(failed: dict[str, str]) -> None:
    """Names the trials that are missing from a result, and what to do about them."""
    if failed:
        say(f"Failed and not in the tables: {', '.join(failed)}; the same command with --resume runs them again.")


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested configuration as dotted names, for MLflow's parameters."""
    values: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            values.update(flat(value, f"{prefix}{name}."))
        else:
            values[f"{prefix}{name}"] = str(value)
    return values
