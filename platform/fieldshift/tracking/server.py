"""MLflow's web pages for a store, served on this machine."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psutil

from fieldshift.console import on_terminal
from fieldshift.errors import MissingFeatureError, UserError
from fieldshift.ports import free_port
from fieldshift.run_folder import CONFIG, is_finished, read_config
from fieldshift.tracking.abandoned import PARENT_TAG, close_abandoned
from fieldshift.tracking.config import check_address
from fieldshift.tracking.moved import ARTIFACTS, DATABASE, is_writable, readable
from fieldshift.tracking.store import RUN_TAG, client_for, quiet_mlflow, reach
from fieldshift.tracking.views import TAG, are_known, links

START_DEADLINE_S = 300.0
STOP_DEADLINE_S = 10.0


@contextlib.contextmanager
def serving(where: str | Path, *, host: str = "127.0.0.1", port: int = 5000) -> Iterator[Pages]:
    """Runs MLflow's server on a store within the block and yields its address.

    Runs that killed processes of this machine left open are closed first. The server executes no jobs and sends no
    telemetry. It has no authentication: keep `host` at 127.0.0.1, or put an authenticating proxy in front of it.

    Args:
        where: Folder of a run (with mlflow.db), a folder of such folders (the newest store), or the URI of a store.
        host: Address to listen on.
        port: Port to listen on; 0 chooses a free one.

    Raises:
        UserError: There is no store, the port is in use, or the server does not answer in time.
    """
    if _missing("mlflow"):
        raise MissingFeatureError("The tracking pages need MLflow, which is not installed: pip install mlflow.")
    port = port or free_port(host)
    _refuse_taken(host, port)
    quiet_mlflow()
    variables = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    url = f"http://{host}:{port}"
    with opened(where) as (uri, artifacts), tempfile.TemporaryFile("w+") as log:
        close_abandoned(client_for(uri))
        command = [
            *(sys.executable, "-m", "mlflow", "server"),
            *("--backend-store-uri", uri, "--artifacts-destination", artifacts),
            *("--host", host, "--port", str(port), "--workers", "1"),
        ]
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
        try:
            _await_answer(process, host, port, log)
            yield Pages(url, uri)
        finally:
            _stop(process)


@dataclass(frozen=True)
class Pages:
    """A running server: its URL and the URI of its store."""

    url: str
    uri: str


def serve(where: str | Path, *, host: str = "127.0.0.1", port: int = 5000, browser: bool = True) -> None:
    """Serves MLflow's pages for a store until Ctrl-C and prints their addresses once the server answers; see `serving`.

    For the address of a server, which has its pages already, only prints them. browser: open the first address where a person
    sits at a terminal with a display.
    """
    if "://" in str(where):
        check_address(str(where), "run", "give a run folder or the address of a store")
    if is_served(where):
        reach(str(where))
        first = f"The pages of {where}:"
        show(welcome(where, Pages(str(where).rstrip("/"), str(where)), first), browser=browser)
        return
    _refuse_taken(host, port)
    if "://" not in str(where):
        find_store(where)
    print(f"Starting MLflow's pages on {where}, which takes some seconds ...", flush=True)
    with serving(where, host=host, port=port) as pages:
        show(welcome(where, pages), browser=browser)
        while True:
            signal.pause()


def show(lines: Sequence[str], *, browser: bool) -> None:
    """Prints the lines of `welcome`, and opens the first address in a browser if one is asked for and can be seen."""
    for line in lines:
        print(line, flush=True)
    if browser and on_terminal() and _has_display():
        first = next(line for line in lines[1:] if "://" in line)
        webbrowser.open(first.strip().partition(" ")[0])


def _has_display() -> bool:
    """Whether a browser has a display to open on, or the user has named one in BROWSER."""
    return sys.platform in {"darwin", "win32"} or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))


def is_served(where: str | Path) -> bool:
    """Whether this is the address of a server."""
    return str(where).startswith(("http://", "https://"))


def welcome(where: str | Path, pages: Pages, first: str = "") -> list[str]:
    """The lines printed once the server answers: links to the saved views of the newest run, and to all runs.

    first: the first line; by default that the pages are served until Ctrl-C.
    """
    client = client_for(pages.uri)
    newest = client.search_experiments(order_by=["last_update_time DESC"], max_results=10)
    written = next((each for each in newest if client.search_runs([each.experiment_id], max_results=1)), None)
    lines = [first or f"MLflow shows {where} at (press Ctrl-C to stop)"]
    if written is None:
        return [*lines, pages.url]
    found = links(pages.url, written.experiment_id, latest_views(client, written)) if are_known() else {}
    lines += [f"  {address}   {name}" for name, address in found.items()]
    if not found:
        why = "this version of MLflow cannot open saved views" if not are_known() else "this store has no saved views"
        lines.append(f"  ({why}; showing the charts of all runs)")
    return [*lines, f"  {charts_link(client, written, pages.url)}   all runs"]


def latest_views(client: Any, experiment: Any) -> dict[str, str]:
    """The tags with the saved views of the most recent run; every run has its own views."""
    tags = {key: value for key, value in experiment.tags.items() if key.startswith(TAG)}
    runs = client.search_runs([experiment.experiment_id], f"tags.`{RUN_TAG}` LIKE '%'", max_results=200)
    for mark in dict.fromkeys(run.data.tags[RUN_TAG] for run in runs):
        own = {key: value for key, value in tags.items() if f"-{mark}-" in key}
        if own:
            return own
    return {}


def charts_link(client: Any, experiment: Any, url: str) -> str:
    """The address of the page with the charts of an experiment's child runs.

    MLflow's default page is about language models, and hides child runs while runs are sorted by age.
    """
    query = {
        "workflowType": "machine_learning",
        "compareRunsMode": "CHART",
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": "true",
    }
    if client.search_runs([experiment.experiment_id], f"tags.`{PARENT_TAG}` LIKE '%'", max_results=1):
        query["searchFilter"] = f"tags.`{PARENT_TAG}` LIKE '%'"
    return f"{url}/#/experiments/{experiment.experiment_id}/runs?{urlencode(query, quote_via=quote)}"


@contextlib.contextmanager
def opened(where: str | Path) -> Iterator[tuple[str, str]]:
    """Yields the URI of a store and the folder of its artifacts. Raises UserError if there is no store."""
    text = str(where)
    if "://" in text:
        if is_served(where):
            raise UserError(f"{text} is already a server; open it in a browser.")
        check_address(text, "run", "give a run folder or the address of a store")
        reach(text)
        yield text, str(Path("mlartifacts").resolve())
        return
    folder = find_store(where)
    with readable(folder) as uri:
        if not is_writable(folder):
            print(f"{folder} is read-only: changes made in the pages are not saved.", flush=True)
        yield uri, str(folder / ARTIFACTS)


def find_store(where: str | Path) -> Path:
    """The run folder with the store at `where`, or the most recent one below it. Raises UserError if there is none."""
    return max(find_stores(where), key=lambda run: (run / DATABASE).stat().st_mtime)


def find_stores(where: str | Path) -> list[Path]:
    """The run folder with the store at `where`, or all those directly below it. Raises UserError if there is none."""
    folder = Path(where).resolve()
    if (folder / DATABASE).is_file():
        return [folder]
    if found := sorted(folder.glob(f"*/{DATABASE}")):
        return [file.parent for file in found]
    if elsewhere := recorded_at(folder):
        uri, experiment = elsewhere
        raise UserError(
            f"The run in {folder} was recorded at {uri}, in the experiment {experiment}; read it with "
            f"`fieldshift results --run {shlex.quote(experiment)} --tracking.uri {shlex.quote(uri)}`."
        )
    begun = (folder / CONFIG).is_file() and not is_finished(folder)
    wait = " A run has its store from its first report on; wait for that." if begun else ""
    raise UserError(f"There is no tracking store ({DATABASE}) in {folder}; give the folder of a tracked run.{wait}")


def recorded_at(folder: Path) -> tuple[str, str] | None:
    """The address of the store, and the experiment in it, that a run folder's configuration names; None where it names none."""
    with contextlib.suppress(UserError, OSError):
        tracking = read_config(folder / CONFIG)[1].get("tracking")
        if isinstance(tracking, dict) and tracking.get("uri") and tracking.get("enabled", True):
            return str(tracking["uri"]), str(tracking.get("experiment"))
    return None


def _missing(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is None


def _refuse_taken(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", "it must be from 0 to 65535")
            raise UserError(
                f"Port {port} of {host} cannot be used ({reason}); give another --port or --host."
            ) from error


def _await_answer(process: subprocess.Popen[bytes], host: str, port: int, log: object) -> None:
    """Waits until this server answers: another one may have taken the port since it was free, and answers for it."""
    deadline = time.monotonic() + START_DEADLINE_S
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            ended = process.poll()
            if ended is not None:
                _refuse_taken(host, port)
            log.seek(0)  # type: ignore[attr-defined]
            last = " ".join(log.read().split())[-300:]  # type: ignore[attr-defined]
            what = f"ended with {ended}" if ended is not None else f"did not answer in {START_DEADLINE_S:g} seconds"
            raise UserError(f"MLflow's server {what}: {last}")
        try:
            with urllib.request.urlopen(f"http://{host}:{port}/health", timeout=2) as answer:
                if answer.status == 200 and _listens(process, port):
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.2)


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether the process or one of its children listens on the port; taken for true where the system does not tell."""
    try:
        whole = psutil.Process(process.pid)
        found = [each.net_connections("tcp") for each in (whole, *whole.children(recursive=True))]
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for own in found for each in own)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stops the server and its workers, which form their own process group."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        try:
            process.wait(timeout=STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            continue
        break
