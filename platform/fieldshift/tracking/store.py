"""The MLflow store of a run: opened once, then used by any number of processes."""

from __future__ import annotations

import contextlib
import functools
import http.client
import importlib.util
import logging
import os
import socket
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from fieldshift.errors import UserError
from fieldshift.tracking.addresses import quoted_condition, sqlite_address
from fieldshift.tracking.config import TrackingConfig
from fieldshift.tracking.moved import point_here
from fieldshift.tracking.refusals import lasting_reason
from fieldshift.tracking.run import Run, TrackedRun
from fieldshift.tracking.sending import perform
from fieldshift.tracking.spool import LOCK_WAIT_S, Spool
from fieldshift.tracking.template import copy_template, keep_template

KEY_TAG, PROCESS_TAG, PARENT_TAG, NAME_TAG = (
    "fieldshift.key",
    "fieldshift.process",
    "mlflow.parentRunId",
    "mlflow.runName",
)
RUN_TAG, FOLDER_TAG = "fieldshift.run", "fieldshift.folder"
KNOCK_S = 3.0

_log = logging.getLogger("fieldshift.tracking")


@dataclass(frozen=True)
class Store:
    """A place that runs are written to; plain values, so it travels to other processes and opens itself there.

    Attributes:
        uri: MLflow's tracking address, or "" when nothing is tracked.
        folder: The run's folder: artifacts of a store of its own lie here, and what a server that is down missed.
    """

    uri: str
    folder: Path

    def run(
        self,
        experiment: str,
        name: str | None,
        *,
        parent_id: str | None = None,
        key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Run:
        """Finds the run with `key` in the experiment, or creates it; so a retried trial goes on writing to its run.

        Args:
            experiment: Name of the experiment, created when it is new.
            name: What the run is called in the tables; None leaves its name to a run that there is.
            parent_id: Id of the parent run; one level of nesting.
            key: What tells this run from all others of the experiment; None always makes a new run.
            tags: Put what children are filtered and grouped by on every child: MLflow's pages know no tags of parents.
        """
        if not self.uri:
            return Run()
        key = key or uuid.uuid4().hex
        wanted = {KEY_TAG: key, PROCESS_TAG: this_process(), "mlflow.source.name": "fieldshift"}
        wanted |= {tag: str(value) for tag, value in (tags or {}).items()}
        if parent_id:
            wanted[PARENT_TAG] = parent_id
        spool = Spool(self.folder, self.uri)
        birth: dict[str, Any] = {
            "experiment": experiment,
            "name": name,
            "key": key,
            "tags": wanted,
            "start": int(time.time() * 1000),
        }
        if spool.is_down or (parent_id and parent_id.startswith(spool.PREFIX)):
            return TrackedRun(spool.open_run(birth), None, spool)
        try:
            run_id, is_new = self.find_or_create(**birth)
            return TrackedRun(run_id, client_for(self.uri), spool, is_new=is_new)
        except Exception as error:
            spool.server_is_down(error)
            return TrackedRun(spool.open_run(birth), None, spool)

    def find_or_create(
        self, *, experiment: str, name: str | None, key: str, tags: dict[str, str], start: int
    ) -> tuple[str, bool]:
        """Id of the run with `key`, which is RUNNING afterwards, and whether it is new."""
        client = client_for(self.uri)
        with self._locked():
            where = self.experiment_id(experiment)
            alike = client.search_runs([where], quoted_condition(f"tags.`{KEY_TAG}`", key), max_results=1000)
            found = [run for run in alike if run.data.tags[KEY_TAG] == key]
            if not found:
                made = client.create_run(where, start_time=start, tags=tags, run_name=name)
                return str(made.info.run_id), True
        run_id = str(found[0].info.run_id)
        held = found[0].data.tags  # its process first: a run that is open and whose process is gone counts as abandoned
        perform(client, run_id, "tags", {"tags": {tag: value for tag, value in tags.items() if held.get(tag) != value}})
        client.update_run(run_id, status="RUNNING", name=name)
        return run_id, False

    def experiment_id(self, experiment: str) -> str:
        """Id of the experiment, made when it is new; a store in a run's folder keeps artifacts in that folder."""
        client = client_for(self.uri)
        known = client.get_experiment_by_name(experiment)
        if known is None:
            where = (self.folder / "artifacts").as_uri() if self.is_local else None
            kind = {"mlflow.experimentKind": "custom_model_development"}
            return str(client.create_experiment(experiment, artifact_location=where, tags=kind))
        if known.lifecycle_stage == "deleted":
            client.restore_experiment(known.experiment_id)
        return str(known.experiment_id)

    @property
    def is_local(self) -> bool:
        return self.uri.startswith("sqlite:")

    def place(self, folder: Path) -> str:
        """A folder as a tag keeps it: as seen from the store's own folder where it lies there, so that both may move."""
        folder = folder.resolve()
        is_inside = self.uri == sqlite_address(self.folder / "mlflow.db") and folder.is_relative_to(self.folder)
        return str(folder.relative_to(self.folder) if is_inside else folder)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if not self.is_local:
            yield
            return
        with FileLock(self.folder / ".mlflow.lock", timeout=LOCK_WAIT_S):
            yield


def open_store(config: TrackingConfig, folder: Path) -> Store:
    """Opens the store and makes it ready for several processes: call it before work fans out, and again anywhere.

    A SQLite store is created under a lock, so exactly once: MLflow migrates the first of a machine, which takes seconds,
    and later ones are copies of it. A server that does not answer is no error: one
    warning, and what would have gone there is kept under `folder` for `replay`.

    Args:
        config: Where runs are kept; off, or without MLflow installed, the store gives runs that do nothing.
        folder: The run's folder.
    """
    folder = folder.resolve()
    if not config.enabled:
        return Store(uri="", folder=folder)
    if importlib.util.find_spec("mlflow") is None:
        _log.warning(
            "MLflow is not installed, so this run is not tracked: pip install mlflow, or tracking.enabled=false."
        )
        return Store(uri="", folder=folder)
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "mlflow.db"
    store = Store(uri=config.uri or sqlite_address(database), folder=folder)
    spool = Spool(folder, store.uri)
    try:
        _knock(store.uri)
        with FileLock(folder / ".mlflow.lock", timeout=LOCK_WAIT_S):
            if config.uri:
                answer_from(store.uri)
            else:
                make_database(store.uri, database)
                point_here(database, folder)
        close_abandoned(store.uri)
    except Exception as error:
        refuse_lasting(error, store.uri)
        spool.server_is_down(error)
    return store


def refuse_lasting(error: Exception, uri: str) -> None:
    """Raises UserError for an error that waiting does not mend, such as a refused log-in."""
    reason = lasting_reason(error, uri)
    if reason is not None:
        raise UserError(
            f"The tracking store {uri.partition('?')[0]} {reason}; or leave it out with --tracking.enabled false."
        )


def check_store(config: TrackingConfig) -> None:
    """Raises UserError where a store that was given cannot be used; one that does not answer yet is no error."""
    if not config.enabled or config.uri is None or importlib.util.find_spec("mlflow") is None:
        return
    try:
        _knock(config.uri)
        answer_from(config.uri)
    except Exception as error:
        refuse_lasting(error, config.uri)


def close_abandoned(uri: str) -> list[str]:
    """Closes as KILLED the runs that killed processes of this machine left RUNNING, and returns their ids.

    A run belongs to the process that opened it last: those of processes that live on, or that ran on another machine, are
    left alone.
    """
    client = client_for(uri)
    condition = f"attributes.status = 'RUNNING' and tags.`{PROCESS_TAG}` LIKE '{socket.gethostname()}:%'"
    closed = []
    places = [each.experiment_id for each in client.search_experiments()]
    for run in client.search_runs(places, condition, max_results=1000) if places else ():
        if process_is_gone(run.data.tags[PROCESS_TAG]):
            client.set_terminated(run.info.run_id, "KILLED")
            closed.append(str(run.info.run_id))
    return closed


def make_database(uri: str, database: Path) -> None:
    """Opens the store in a run's folder: on the database that is there, on a copy of the template, or on MLflow's own."""
    is_new = not database.exists() and not copy_template(database)
    answer_from(uri)
    if is_new:
        keep_template(database)


def answer_from(uri: str) -> None:
    """Asks the store for something, which makes and migrates it where that is to be done."""
    client_for(uri).search_experiments(max_results=1)


def quiet_mlflow() -> None:
    """No telemetry, no INFO lines of migrations, and failing fast where a server is down; before MLflow is imported."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }.items():
        os.environ.setdefault(name, value)
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Its own use of what SQLAlchemy deprecates is nothing a person here can mend.
    warnings.filterwarnings("ignore", module=r"(mlflow|sqlalchemy|alembic|google)(\.|$)")


def client_for(uri: str) -> Any:
    """This process's MLflow client for a store."""
    quiet_mlflow()
    return _client(uri)


@functools.lru_cache(maxsize=8)
def _client(uri: str) -> Any:
    from mlflow import MlflowClient

    quiet_mlflow()
    return MlflowClient(tracking_uri=uri)


def this_process() -> str:
    """HOST:PID:START, which no other process ever has."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start_of(os.getpid())}"


def process_is_gone(process: str) -> bool:
    """Whether a process of this machine has ended; unknown and other machines' processes count as alive."""
    host, _, rest = process.rpartition(":")[0].rpartition(":")
    started = process.rpartition(":")[2]
    if host != socket.gethostname() or not rest.isdigit():
        return False
    return _start_of(int(rest)) != started


def _start_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return "gone"


def _knock(uri: str) -> None:
    """Raises OSError where a server does not answer within seconds; what it answers is not looked at."""
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"}:
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", port, timeout=KNOCK_S)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/version")
        connection.getresponse()
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
