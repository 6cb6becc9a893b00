"""The MLflow store of a run: opened once, then used by any number of processes."""

from __future__ import annotations

import contextlib
import functools
import http.client
import importlib.util
import logging
import os
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from fieldshift.errors import UserError, one_line
from fieldshift.paths import obstacle
from fieldshift.ports import refusal
from fieldshift.termination import signals_deferred
from fieldshift.tracking.abandoned import PARENT_TAG, PROCESS_TAG, close_abandoned, last_sign, this_process
from fieldshift.tracking.addresses import is_sqlite, quoted_condition, sqlite_address, sqlite_file, store_lock
from fieldshift.tracking.config import TrackingConfig
from fieldshift.tracking.moved import point_here
from fieldshift.tracking.refusals import lasting_reason
from fieldshift.tracking.run import Run, TrackedRun
from fieldshift.tracking.sending import OPENED_TAG, SHORT_S, TIMEOUT, perform, sendable_tags
from fieldshift.tracking.spool import LOCK_WAIT_S, Spool
from fieldshift.tracking.template import copy_template, keep_template
from fieldshift.wording import printable

KEY_TAG, RUN_TAG, FOLDER_TAG = "fieldshift.key", "fieldshift.run", "fieldshift.folder"
KNOCK_S = 3.0

_log = logging.getLogger("fieldshift.tracking")


@dataclass(frozen=True)
class Store:
    """A store of runs, as plain values that can be sent to other processes.

    Attributes:
        uri: MLflow's tracking URI; "" if tracking is disabled.
        folder: The run's folder, with the artifacts of a store in it and the messages that a store missed.
        artifacts: As in TrackingConfig.
    """

    uri: str
    folder: Path
    artifacts: str | None = None

    def run(
        self,
        experiment: str,
        name: str | None,
        *,
        parent_id: str | None = None,
        key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Run:
        """Finds the run with `key` in the experiment, or creates it, so that a retried trial continues its run.

        Raises UserError where the store will never take a run without a parent, the first of a command.

        Args:
            experiment: Name of the experiment; created if needed.
            name: Name of the run in MLflow's tables; None keeps the name of an existing run.
            parent_id: Id of the parent run; nesting has one level.
            key: Unique key of the run within the experiment; None always creates a new run.
            tags: Tags of the run; set those for filtering and grouping on every child, since MLflow does not inherit tags.
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
            "artifacts": self.artifacts,
        }
        if spool.is_down or (parent_id and parent_id.startswith(spool.PREFIX)):
            return TrackedRun(spool.open_run(birth), None, spool)
        try:
            run_id, is_new = self.find_or_create(**birth)
            return TrackedRun(run_id, client_for(self.uri), spool, is_new=is_new)
        except Exception as error:
            if parent_id is None:
                refuse_lasting(error, self.uri)
            spool.server_is_down(error)
            return TrackedRun(spool.open_run(birth), None, spool)

    def find_or_create(
        self,
        *,
        experiment: str,
        name: str | None,
        key: str,
        tags: dict[str, str],
        start: int,
        artifacts: str | None = None,
    ) -> tuple[str, bool]:
        """Returns the id of the run with `key`, set to RUNNING, and whether it is new.

        start: when it is opened, in milliseconds since 1970. A server that was silent for a while may have created a run
        several times, as requests are repeated; empty ones are deleted.
        """
        name, key, tags = None if name is None else printable(name), printable(key), sendable_tags(tags)
        with self._locked():
            client = client_for(self.uri)  # which migrates a new database
            where = self.experiment_id(experiment, artifacts)
            alike = client.search_runs([where], quoted_condition(f"tags.`{KEY_TAG}`", key), max_results=1000)
            found = [run for run in alike if run.data.tags[KEY_TAG] == key]
            if not found:
                made = client.create_run(where, start_time=start, tags={**tags, OPENED_TAG: str(start)}, run_name=name)
                return str(made.info.run_id), True
        found.sort(key=lambda run: (-len(run.data.metrics), -len(run.data.params), run.info.run_id))
        for extra in found[1:]:
            if not extra.data.metrics and not extra.data.params:
                client.delete_run(extra.info.run_id)
        run_id, info, held = str(found[0].info.run_id), found[0].info, found[0].data.tags
        if info.status == "RUNNING":
            # Its last session was not closed; the end that it gets now stays while it runs again.
            last = min(last_sign(client, found[0]), start)
            perform(client, run_id, "close", {"status": "KILLED", "time": last})
            info = client.get_run(run_id).info
        before = info.end_time - info.start_time if info.end_time else 0
        wanted = {**tags, OPENED_TAG: str(start - before)}
        # The process first: an open run whose process has ended counts as abandoned.
        perform(client, run_id, "tags", {"tags": {tag: text for tag, text in wanted.items() if held.get(tag) != text}})
        client.update_run(run_id, status="RUNNING", name=name)
        return run_id, False

    def experiment_id(self, experiment: str, artifacts: str | None = None) -> str:
        """The id of the experiment, created if needed; a store in a run's folder puts artifacts into that folder."""
        client = client_for(self.uri)
        known = client.get_experiment_by_name(experiment)
        if known is None:
            where = artifacts or self.own_artifacts
            kind = {"mlflow.experimentKind": "custom_model_development"}
            try:
                return str(client.create_experiment(experiment, artifact_location=where, tags=kind))
            except Exception as error:
                if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
                    raise
                known = client.get_experiment_by_name(experiment)  # another process was faster
        if known.lifecycle_stage == "deleted":
            client.restore_experiment(known.experiment_id)
            _log.warning("The MLflow experiment %s was deleted, and is restored.", experiment)
        return str(known.experiment_id)

    @property
    def own_artifacts(self) -> str | None:
        """The default place of artifacts: the run's folder, or one beside it; None for a server, which has its own."""
        if self.is_own:
            return (self.folder / "artifacts").as_uri()
        served = self.uri.startswith(("http", "databricks"))
        return None if served else (self.folder.parent / "mlflow-artifacts").as_uri()

    @property
    def is_own(self) -> bool:
        """Whether this is the store in the run's folder."""
        return self.uri == sqlite_address(self.folder / "mlflow.db")

    @property
    def is_local(self) -> bool:
        return is_sqlite(self.uri)

    def place(self, folder: Path) -> str:
        """A folder as the value of a tag: relative to the store's folder if it lies inside, so that both can be moved."""
        folder = folder.resolve()
        is_inside = self.is_own and folder.is_relative_to(self.folder)
        return str(folder.relative_to(self.folder) if is_inside else folder)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if not self.is_local:
            yield
            return
        with FileLock(store_lock(self.uri, self.folder), timeout=LOCK_WAIT_S):
            yield


def location(artifacts: str | None) -> str | None:
    """A folder or URI as MLflow reads it."""
    return artifacts if artifacts is None or "://" in artifacts else Path(artifacts).absolute().as_uri()


def open_store(config: TrackingConfig, folder: Path) -> Store:
    """Opens the store and prepares it for several processes; call it before other processes start, and in each of them.

    A SQLite store is created once, under a lock beside the database: MLflow migrates the first one on a machine, which takes
    seconds, and later ones in run folders are copies of it. A server that does not answer is no error: there is one warning,
    and messages are saved in `folder` for `replay`.

    Args:
        config: The store to use; if tracking is disabled or MLflow is not installed, runs do nothing.
        folder: The run's folder.
    """
    folder = folder.resolve()
    if not config.enabled:
        return Store(uri="", folder=folder)
    if importlib.util.find_spec("mlflow") is None:
        _log.warning(
            "MLflow is not installed, so this run is not tracked: pip install mlflow, or set --tracking.enabled false."
        )
        return Store(uri="", folder=folder)
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "mlflow.db"
    given = config.address
    store = Store(uri=given or sqlite_address(database), folder=folder, artifacts=location(config.artifacts))
    spool = Spool(folder, store.uri)
    try:
        knock(store.uri)
        with FileLock(store_lock(store.uri, folder), timeout=LOCK_WAIT_S):
            if given:
                answer_from(store.uri)
            else:
                make_database(store.uri, database)
                point_here(database, folder)
        close_abandoned(client_for(store.uri))
    except Exception as error:
        refuse_lasting(error, store.uri)
        spool.server_is_down(error)
    return store


def refuse_lasting(error: Exception, uri: str) -> None:
    """Raises UserError for a permanent error, such as rejected credentials."""
    reason = lasting_reason(error, uri)
    if reason is not None:
        raise UserError(
            f"The tracking store {uri.partition('?')[0]} {reason}; or disable tracking with --tracking.enabled false."
        )


def reach(uri: str) -> None:
    """Raises UserError if a store that is to be read does not exist, or does not answer within seconds."""
    try:
        knock(uri)
        is_there = not is_sqlite(uri) or sqlite_file(uri).is_file()
        if is_there:
            answer_from(uri)
    except Exception as error:
        reason = lasting_reason(error, uri) or f"does not answer ({one_line(error, 160)}): try again when it does"
        raise UserError(f"The tracking store {uri.partition('?')[0]} {reason}.") from error
    if not is_there:
        raise UserError(
            f"The tracking store {uri.partition('?')[0]} does not exist: there is no file {sqlite_file(uri)};"
            " give the address of an existing store."
        )


def check_store(config: TrackingConfig) -> None:
    """Raises UserError if the configured store or the folder of its artifacts cannot be used.

    A store that does not answer yet is no error.
    """
    if config.enabled and config.artifacts is not None and "://" not in config.artifacts:
        check_folder_of(Path(config.artifacts))
    if not config.enabled or (uri := config.address) is None or importlib.util.find_spec("mlflow") is None:
        return
    if is_sqlite(uri) and (found := database_obstacle(sqlite_file(uri))):  # which MLflow tries again for minutes
        raise UserError(
            f"The tracking store {uri.partition('?')[0]} cannot be written ({found}); give a file that can, or disable"
            " tracking with --tracking.enabled false."
        )
    try:
        knock(uri)
        with Store(uri=uri, folder=Path())._locked():
            answer_from(uri)
    except Exception as error:
        refuse_lasting(error, uri)


def database_obstacle(file: Path) -> str:
    """The reason that a SQLite store cannot be written, such as "/a is not writable"; "" if it can, with files beside it."""
    if file.is_dir():
        return f"{file} is a folder"
    if file.exists() and not os.access(file, os.W_OK):
        return f"{file} is not writable"
    return obstacle(file.absolute().parent)


def check_folder_of(artifacts: Path) -> None:
    """Raises UserError where the nearest existing part of a folder for artifacts is a file, or is not writable."""
    if found := obstacle(artifacts.absolute()):
        raise UserError(f"tracking.artifacts is '{artifacts}', but {found}; give a folder that can be written.")


def make_database(uri: str, database: Path) -> None:
    """Opens the store in a run's folder: an existing database, a copy of the template, or a new database."""
    is_new = not database.exists() and not copy_template(database)
    answer_from(uri)
    if is_new:
        keep_template(database)


def answer_from(uri: str) -> None:
    """Sends a small query to the store, which creates and migrates its database if needed."""
    client_for(uri).search_experiments(max_results=1)


def quiet_mlflow() -> None:
    """Disables MLflow's telemetry and INFO messages and shortens its retries; call it before importing MLflow."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        TIMEOUT: SHORT_S,
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }.items():
        os.environ.setdefault(name, value)
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It prints every error of a database with its traceback, before it raises it.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # Users cannot fix MLflow's own use of deprecated SQLAlchemy functions.
    warnings.filterwarnings("ignore", module=r"(mlflow|sqlalchemy|alembic|google)(\.|$)")


class WholeCalls:
    """A client whose calls signals do not interrupt: a transaction left open would lock the database for this process, too."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        if not callable(value):
            return value

        @functools.wraps(value)
        def whole(*arguments: Any, **named: Any) -> Any:
            with signals_deferred():
                return value(*arguments, **named)

        return whole


def client_for(uri: str) -> Any:
    """The MLflow client of this process for a store; a signal waits for the end of a call to a database."""
    quiet_mlflow()
    return _client(uri)


@functools.lru_cache(maxsize=8)
def _client(uri: str) -> Any:
    from mlflow import MlflowClient

    quiet_mlflow()
    client = MlflowClient(tracking_uri=uri)
    return client if urlsplit(uri).scheme in {"http", "https", "databricks"} else WholeCalls(client)


def knock(uri: str) -> None:
    """Raises an error if a server or database does not answer within seconds; any answer of a server is accepted.

    MLflow itself tries a database that refuses ten times, over 100 seconds.
    """
    parts = urlsplit(uri)
    if is_sqlite(uri) or parts.scheme == "databricks":
        return
    if parts.scheme not in {"http", "https"}:
        from sqlalchemy import create_engine

        if parts.hostname and parts.port and (reason := refusal(parts.hostname, parts.port)):
            raise OSError(f"{parts.hostname}:{parts.port}: {reason}")
        engine = create_engine(uri)
        try:
            engine.connect().close()
        finally:
            engine.dispose()
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
