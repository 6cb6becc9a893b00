"""MLflow's own pages on a store, on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

from fieldshift.errors import MissingFeatureError, UserError
from fieldshift.tracking.addresses import sqlite_address
from fieldshift.tracking.store import PARENT_TAG, client_for, quiet_mlflow

START_DEADLINE_S = 300.0
STOP_DEADLINE_S = 10.0


@contextlib.contextmanager
def serving(where: str | Path, *, host: str = "127.0.0.1", port: int = 5000) -> Iterator[str]:
    """Starts MLflow's server on a store for the block and yields its URL once it answers.

    The server executes no jobs and sends no telemetry. It has no log-in: keep `host` at 127.0.0.1, or put a proxy
    with authentication before it.

    Args:
        where: Folder of a run (with mlflow.db), a folder of such folders (the newest store), or the URI of a store.
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.

    Raises:
        UserError: There is no store, the port is taken, or the server does not answer in time.
    """
    if _missing("mlflow"):
        raise MissingFeatureError("The tracking pages need MLflow, which is not installed: pip install mlflow.")
    uri, artifacts = find_store(where)
    port = port or _free_port(host)
    _refuse_taken(host, port)
    quiet_mlflow()
    command = [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", uri, "--artifacts-destination", artifacts),
        *("--host", host, "--port", str(port), "--workers", "1"),
    ]
    variables = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    url = f"http://{host}:{port}"
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
        try:
            _await_answer(process, url, log)
            yield url
        finally:
            _stop(process)


def serve(where: str | Path, *, host: str = "127.0.0.1", port: int = 5000) -> None:
    """Serves MLflow's pages on a store until Ctrl-C: prints the charts' URL once it answers. See `serving`."""
    with serving(where, host=host, port=port) as url:
        print(f"MLflow shows {where} (Ctrl-C ends it) at\n{charts_link(find_store(where)[0], url)}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


def charts_link(uri: str, url: str) -> str:
    """The page with the charts of the newest experiment's children.

    MLflow's own first page is about language models, and folds children away as long as runs are sorted by their age.
    """
    client = client_for(uri)
    newest = client.search_experiments(order_by=["last_update_time DESC"], max_results=2)
    written = [found for found in newest if client.search_runs([found.experiment_id], max_results=1)]
    if not written:
        return url
    query = {
        "workflowType": "machine_learning",
        "compareRunsMode": "CHART",
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": "true",
    }
    if client.search_runs([written[0].experiment_id], f"tags.`{PARENT_TAG}` LIKE '%'", max_results=1):
        query["searchFilter"] = f"tags.`{PARENT_TAG}` LIKE '%'"
    return f"{url}/#/experiments/{written[0].experiment_id}/runs?{urlencode(query, quote_via=quote)}"


def find_store(where: str | Path) -> tuple[str, str]:
    """The URI of a store and the folder of its artifacts.

    Raises:
        UserError: There is none at or below `where`.
    """
    text = str(where)
    if "://" in text:
        if text.startswith(("http://", "https://")):
            raise UserError(f"{text} is a server already; open it in a browser.")
        return text, str(Path("mlartifacts").resolve())
    folder = Path(where).resolve()
    found = folder / "mlflow.db" if (folder / "mlflow.db").is_file() else None
    if found is None and folder.is_dir():
        found = max(folder.glob("*/mlflow.db"), key=lambda file: file.stat().st_mtime, default=None)
    if found is None:
        raise UserError(f"There is no tracking store (mlflow.db) in {folder}; give the folder of a tracked run.")
    return sqlite_address(found), str(found.parent / "artifacts")


def _missing(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is None


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _refuse_taken(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"Port {port} of {host} cannot be used ({error.strerror}); give another --port.") from error


def _await_answer(process: subprocess.Popen[bytes], url: str, log: object) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            ended = process.poll()
            log.seek(0)  # type: ignore[attr-defined]
            last = " ".join(log.read().split())[-300:]  # type: ignore[attr-defined]
            what = f"ended with {ended}" if ended is not None else f"did not answer in {START_DEADLINE_S:g} seconds"
            raise UserError(f"MLflow's server {what}: {last}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and its workers, which are a process group of their own."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        try:
            process.wait(timeout=STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            continue
        break
