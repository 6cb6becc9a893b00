"""One run from its first to its last line: opens its folder and MLflow run, and closes both in every case."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import run_trials
from fieldshift.cluster.storage import Storage, given_storage, joined
from fieldshift.console import lasting_output, say
from fieldshift.errors import UserError
from fieldshift.experiment.data_record import FILE, keep_record
from fieldshift.experiment.labels import colour
from fieldshift.experiment.origin import NOTE_TAG, command_of, log_data, note_of, origin_of, part_note
from fieldshift.run_folder import CONFIG, NOT_HASHED, RunFolder, check_semantics, held_run_folder, open_run_folder
from fieldshift.tracking import Run, Store, TrackingConfig, open_store, replay
from fieldshift.tracking.run import Status
from fieldshift.tracking.spool import Spool
from fieldshift.tracking.store import FOLDER_TAG, RUN_TAG
from fieldshift.tracking.system import measured
from fieldshift.tracking.views import View
from fieldshift.whole_file import write_whole
from fieldshift.wording import counted

IDENTITY = "run-id"
ASKED = ("data", "network", "temporal", "space")
"""Options of a run that are labels of all its parts."""

if TYPE_CHECKING:
    from fieldshift.cluster import ClusterConfig, TrialResult
    from fieldshift.cluster.train import WorkerFunction
    from fieldshift.cluster.trials import OnDone, OnTrialReport
    from fieldshift.data import DataSet
    from fieldshift.experiment.options import Experiment


@dataclass(frozen=True)
class Session:
    """A run in progress: its folder, its MLflow run, and whether it resumes an earlier one."""

    folder: RunFolder
    store: Store
    run: Run
    experiment: str
    identity: str
    name: str
    labels: Mapping[str, str]
    origin: Mapping[str, str] = field(default_factory=dict)  # tags of the run and of all its parts
    repeated: str = ""  # the command that repeats the whole run
    data: DataSet | None = None
    parts: str = ""
    failed: dict[str, str] = field(default_factory=dict)  # trials that failed, and why
    opened: list[Run] = field(default_factory=list)  # MLflow runs of parts, shared by all stages

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def resume(self) -> bool:
        return self.folder.resumed

    @property
    def mark(self) -> str:
        """The tag of the run and all its parts, by which MLflow's pages show this run alone."""
        return hashlib.sha256(self.identity.encode()).hexdigest()[:8]

    def child(
        self,
        key: str,
        labels: Mapping[str, str],
        *,
        stage: str | None = None,
        name: str = "",
        folder: Path | None = None,
    ) -> Run:
        """Returns the MLflow run of one trial or part, the same one when the run is resumed; labels are parameters and tags.

        name: its name in tables, by default the key. folder: the folder of its files, by default this one.
        """
        labels = {"stage": stage or self.name, **self.labels, **labels}
        place = self.store.place(folder or self.path)
        tags = {
            **self.origin,
            **labels,
            **(colour(labels) if name.startswith(labels.get("arm", " ")) else {}),
            RUN_TAG: self.mark,
            FOLDER_TAG: place,
            NOTE_TAG: part_note(self.repeated, labels, place),
        }
        run = self.store.run(
            self.experiment, name or key, parent_id=self.run.id, key=f"{self.identity}{self.parts}:{key}", tags=tags
        )
        self.opened.append(run)
        run.log_params(labels)
        log_data(run, self.data)
        return run

    def part(self, name: str) -> Session:
        """A part of this run, to find its children without opening its folder."""
        return replace(self, name=name, parts=f"{self.parts}/{name}", failed={})

    def known(self, key: str) -> Run:
        """The existing MLflow run of one trial or part, to add to."""
        run = self.store.run(self.experiment, None, parent_id=self.run.id, key=f"{self.identity}{self.parts}:{key}")
        self.opened.append(run)
        return run

    def close(self, status: Status) -> None:
        """Closes the run, and all parts of it that are still open, with that status."""
        for part in self.opened:
            part.close(status)
        self.run.close(status)

    def keep(self, view: View) -> None:
        """Writes a saved view of MLflow's pages into the experiment, in place of an earlier one.

        One that is too long for a store is left out with a line.
        """
        if not self.store.uri:
            return
        if not view.fits:
            say(f"  note: MLflow has no room for the saved view '{view.name}', which is left out")
            return
        self.run.tag_experiment(dict([view.tag(int(time.time() * 1000))]))

    def storage(self, cluster: ClusterConfig) -> Storage | None:
        """The place of this run, or part, in the storage of the cluster, where that has one; wherever the folder is."""
        if cluster.storage is None:
            return None
        parts = [part for part in self.parts.split("/") if part]
        return Storage(joined(given_storage(cluster.storage), f"fieldshift-{self.mark}", *parts), str(self.path))

    def run_trials(
        self,
        function: WorkerFunction,
        trials: Sequence[dict[str, Any]],
        cluster: ClusterConfig,
        *,
        on_report: OnTrialReport,
        on_done: OnDone,
    ) -> list[TrialResult]:
        """Runs trials in this folder, as `fieldshift.cluster.run_trials`; a resumed run keeps those that are finished."""
        return run_trials(
            function, trials, cluster=cluster, name=self.path.name, storage=self.path / "ray", shared=self.storage(cluster),
            on_report=on_report, on_done=on_done, resume=self.resume,
        )  # fmt: skip

    def stage(self, name: str, config: dict[str, Any]) -> Session:
        """Opens a part of this run with its own folder inside this one; it is resumed with the whole.

        Raises UserError where another version began the run and this part is not finished.
        """
        folder = self.path / name
        check_semantics(self.path, folder)
        resumed = self.resume and (folder / CONFIG).exists()
        opened = open_run_folder(folder, name, config, resumed)
        if (self.path / FILE).exists():
            shutil.copyfile(self.path / FILE, folder / FILE)  # for its trials, and for who takes the stage for a run
        return replace(self.part(name), folder=opened)


def identity_of(folder: RunFolder) -> str:
    """The identity of a run in stores, independent of its folder's place; runs of earlier versions have their first path."""
    file = folder.path / IDENTITY
    if not file.exists():
        write_whole(file, f"{folder.path if folder.resumed else uuid.uuid4().hex}\n")
    return file.read_text().strip()


@dataclass(frozen=True, kw_only=True)
class Destination:
    """The folder and the tracking of a run without an `Experiment`."""

    out: str | None
    resume: bool
    tracking: TrackingConfig


@contextmanager
def open_session(
    command: str,
    destination: Experiment | Destination,
    *,
    config: dict[str, Any],
    tags: dict[str, str],
    dataset: DataSet,
) -> Iterator[Session]:
    """Opens the run's folder and MLflow run; closes the latter FINISHED, FAILED, or KILLED on Ctrl-C.

    Raises UserError where the run is resumed but its data have changed, and where another process has the folder in use.
    """
    with held_run_folder(destination.out, command, config, destination.resume) as folder:
        keep_record(folder, dataset)
        if destination.resume and not folder.resumed:
            say(f"There is nothing to resume in {folder.path}: the run starts anew.")
        if destination.out is None and folder.path.name != command and not destination.resume:
            say(f"runs/{command} is taken: this run writes to runs/{folder.path.name}")
        with recorded(command, folder, destination.tracking, config=config, tags=tags, dataset=dataset) as session:
            yield session


@contextmanager
def recorded(
    command: str,
    folder: RunFolder,
    tracking: TrackingConfig,
    *,
    config: dict[str, Any],
    tags: dict[str, str],
    dataset: DataSet,
) -> Iterator[Session]:
    """The session of a run in its folder, which this process holds, with its MLflow run."""
    store = open_store(tracking, folder.path)
    if folder.resumed:
        send_waiting(folder.path)
    identity = identity_of(folder)
    asked = {name: str(config[name]) for name in ASKED if config.get(name) is not None}
    session = Session(
        folder, store, Run(), tracking.experiment, identity, command, {**asked, "task": str(dataset.task)},
        origin=origin_of(folder) if store.uri else {}, repeated=command_of(folder), data=dataset,
    )  # fmt: skip
    marks = {"command": command, RUN_TAG: session.mark, FOLDER_TAG: store.place(folder.path), NOTE_TAG: note_of(folder)}
    run = store.run(tracking.experiment, folder.path.name, key=identity, tags={**session.origin, **marks, **tags})
    session = replace(session, run=run)
    began = (folder.path / IDENTITY).stat().st_mtime
    watched = measured(run, began=began) if tracking.wants_system_metrics else contextlib.nullcontext()
    try:
        with lasting_output(), watched:
            run.log_params(fixed_options(folder))
            log_data(run, dataset)
            yield session
    except KeyboardInterrupt:
        session.close("KILLED")
        say(f"Interrupted. Add --resume --out {shlex.quote(str(folder.path))} to the same command to continue.")
        raise
    except BaseException:
        session.close("FAILED")
        raise
    else:
        run.log_artifact(folder.path / CONFIG)
        if folder.result_path.exists():
            run.log_artifact(folder.result_path)
        run.close("FINISHED")
    finally:
        say_waiting(folder.path)


def fixed_options(folder: RunFolder) -> dict[str, Any]:
    """The configuration; of a resumed run without the options that may have changed, since MLflow's parameters never do."""
    return {name: value for name, value in folder.config.items() if not (folder.resumed and name in NOT_HASHED)}


def send_waiting(folder: Path) -> None:
    """Sends the messages of an earlier session; where their store is still unavailable, prints a line and continues."""
    spool = Spool(folder)
    if spool.is_down or not spool.waiting():  # that the store is down was said
        return
    try:
        say(f"{counted(replay(folder), 'message')} sent that the tracking store had missed.")
    except UserError as error:
        say(str(error))


def say_waiting(folder: Path) -> None:
    """Prints how many messages wait for the tracking store, and the command that sends them."""
    waiting = Spool(folder).waiting()
    if waiting:
        say(
            f"{waiting} messages wait for the tracking store; send them with: fieldshift sync {shlex.quote(str(folder))}"
        )


class FailsWithTrials:
    """A result with its failed trials and their errors; the command exits with status 1 if there are any."""

    failed: dict[str, str]

    @property
    def exit_status(self) -> int:
        return int(bool(self.failed))


def say_failed(failed: dict[str, str]) -> None:
    """Prints the trials that failed, and how to run them again."""
    if failed:
        say(f"Failed and not in the tables: {', '.join(failed)}; the same command with --resume runs them again.")
