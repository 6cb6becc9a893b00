"""MLflow's pages on a run's store."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from fieldshift.cli import main
from fieldshift.errors import UserError
from fieldshift.ports import free_port
from fieldshift.tracking import TrackingConfig, open_store, serving
from fieldshift.tracking.addresses import sqlite_address
from fieldshift.tracking.server import Pages, _await_answer, _listens, find_store, opened, welcome
from fieldshift.tracking.store import RUN_TAG, client_for
from fieldshift.tracking.views import View

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_folder_without_a_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tracking store"):
        find_store(tmp_path)
    with pytest.raises(UserError, match="is already a server"), opened("http://127.0.0.1:5000"):
        pass


def test_a_run_that_a_server_has_is_said_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "# fieldshift train\ntracking:\n  uri: http://host:5000\n  experiment: my own\n"
    )
    words = "--run 'my own' --tracking.uri http://host:5000"
    with pytest.raises(UserError, match=f"was recorded at http://host:5000, in the experiment my own; .*{words}"):
        find_store(tmp_path)
    (tmp_path / "config.yaml").write_text("# fieldshift train\ntracking:\n  uri: http://host:5000\n  enabled: false\n")
    with pytest.raises(UserError, match="There is no tracking store"):
        find_store(tmp_path)


def test_a_mistyped_address_is_named_and_makes_no_database(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    wrong = sqlite_address(tmp_path / "run/mlfow.db")
    with pytest.raises(UserError, match=f"{wrong.partition('?')[0]} does not exist: there is no file"), opened(wrong):
        pass
    assert list((tmp_path / "run").iterdir()) == []
    store = open_store(TrackingConfig(), tmp_path / "run")
    with opened(store.uri) as (uri, _):
        assert uri == store.uri


def test_the_newest_store_of_a_folder_of_runs_is_found(tmp_path: Path) -> None:
    for name, age in (("old", 1), ("new", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mlflow.db").touch()
        os.utime(tmp_path / name / "mlflow.db", (age, age))
    assert find_store(tmp_path) == tmp_path / "new"
    assert find_store(tmp_path / "old") == tmp_path / "old"


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    open_store(TrackingConfig(), tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for wrong in (port, 70000):
            with (
                pytest.raises(UserError, match=f"Port {wrong} of 127.0.0.1 cannot be used"),
                serving(tmp_path, port=wrong),
            ):
                pass


def test_what_is_printed_leads_to_the_charts_of_the_children(tmp_path: Path) -> None:
    store = open_store(TrackingConfig(), tmp_path)
    pages = Pages("http://here", store.uri)
    assert welcome(tmp_path, pages)[1:] == ["http://here"]
    parent = store.run("mine", "study")
    assert "searchFilter" not in welcome(tmp_path, pages)[-1]
    store.run("mine", "das", parent_id=parent.id)
    why, last = welcome(tmp_path, pages)[1:]
    assert why == "  (this store has no saved views; showing the charts of all runs)"
    page, _, query = last.strip().partition("   ")[0].partition("?")
    assert page == f"http://here/#/experiments/{store.experiment_id('mine')}/runs"
    assert dict(urllib.parse.parse_qsl(query))["searchFilter"] == "tags.`mlflow.parentRunId` LIKE '%'"


def test_an_mlflow_that_opens_no_saved_views_gets_the_plain_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(TrackingConfig(), tmp_path)
    run = store.run("mine", "study", tags={RUN_TAG: "abcd"})
    view = View(key="fieldshift-abcd-1-arms", name="arms", runs="", order="metrics.`x`")
    run.tag_experiment(dict([view.tag(1)]))
    pages = Pages("http://here", store.uri)
    assert [line.split("   ")[-1] for line in welcome(tmp_path, pages)[1:]] == ["arms", "all runs"]
    monkeypatch.setattr("fieldshift.tracking.server.are_known", lambda: False)
    lines = welcome(tmp_path, pages)[1:]
    assert lines[0].startswith("  (this version of MLflow cannot open saved views")
    assert "viewStateShareKey" not in "".join(lines)


def test_the_views_of_the_run_that_was_written_last_are_shown(tmp_path: Path) -> None:
    store = open_store(TrackingConfig(), tmp_path)
    for mark in ("aaaa", "bbbb"):
        view = View(key=f"fieldshift-{mark}-1-arms", name=f"arms of {mark}", runs="", order="metrics.`x`")
        store.run("mine", mark, tags={RUN_TAG: mark}).tag_experiment(dict([view.tag(1)]))
    lines = welcome(tmp_path, Pages("http://here", store.uri))
    assert [line.split("   ")[-1] for line in lines[1:]] == ["arms of bbbb", "all runs"]


@pytest.mark.timeout(400)
def test_the_server_answers_and_sigterm_ends_it_with_its_workers(tmp_path: Path) -> None:
    open_store(TrackingConfig(), tmp_path).run("mine", "study").close()
    port, found = free_port(), []
    others = set(psutil.Process().children(recursive=True))  # of tests before, in the same process

    def end_once_it_answers() -> None:
        deadline = time.monotonic() + 300
        while not found and time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/version", timeout=5):
                found.extend(set(psutil.Process().children(recursive=True)) - others)
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=end_once_it_answers)
    thread.start()
    assert main(["ui", "--run", str(tmp_path), "--port", str(port)]) == 143
    thread.join()
    assert len(found) >= 2
    assert psutil.wait_procs(found, timeout=15)[1] == []
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5)


def test_a_server_that_another_one_forestalls_is_not_taken_for_ones_own() -> None:
    """Of two that start at once, both find the port free."""

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    ends = "import sys; sys.stdin.read(); print('[Errno 98] address already in use')"  # MLflow ends with 0
    with HTTPServer(("127.0.0.1", 0), Healthy) as other, tempfile.TemporaryFile("w+") as log:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        process = subprocess.Popen([sys.executable, "-c", ends], stdin=subprocess.PIPE, stdout=log)
        try:
            assert not _listens(process, other.server_port)
            assert process.stdin is not None
            process.stdin.close()
            with pytest.raises(
                UserError, match=f"Port {other.server_port} of 127.0.0.1 cannot be used .*give another --port"
            ):
                _await_answer(process, "127.0.0.1", other.server_port, log)
        finally:
            process.wait()
            other.shutdown()
            thread.join()


def test_ctrl_c_ends_the_pages_with_its_own_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(TrackingConfig(), tmp_path)

    @contextlib.contextmanager
    def served(*_: object, **__: object) -> Iterator[Pages]:
        yield Pages("http://here", store.uri)

    monkeypatch.setattr("fieldshift.tracking.server.serving", served)
    monkeypatch.setattr("signal.pause", lambda: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    try:
        assert main(["ui", "--run", str(tmp_path)]) == 130
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("terminal", "display", "words", "opened"),
    [(True, True, (), 1), (True, False, (), 0), (False, True, (), 0), (True, True, ("--browser", "false"), 0)],
)
def test_the_first_page_opens_for_a_person_with_a_display_and_a_line_is_said_before_the_server_starts(
    terminal: bool, display: bool, words: tuple[str, ...], opened: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    store = open_store(TrackingConfig(), tmp_path)
    run = store.run("mine", "study", tags={RUN_TAG: "abcd"})
    run.tag_experiment(
        dict(View(key=f"fieldshift-abcd-{n}-v", name=f"v{n}", runs="", order="a").tag(1) for n in (1, 2))
    )
    said, pages = [], []

    @contextlib.contextmanager
    def served(*_: object, **__: object) -> Iterator[Pages]:
        said.extend(capsys.readouterr().out.splitlines())
        yield Pages("http://here", store.uri)

    monkeypatch.setattr("fieldshift.tracking.server.serving", served)
    monkeypatch.setattr("webbrowser.open", pages.append)
    monkeypatch.setattr("signal.pause", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    for name in ("WAYLAND_DISPLAY", "BROWSER", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", ":0")
    assert main(["ui", "--run", str(tmp_path), "--port", "0", *words]) == 130
    assert said == [f"Starting MLflow's pages on {tmp_path}, which takes some seconds ..."]
    links = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "viewStateShareKey" in line]
    assert len(links) == 2
    assert pages == links[:opened]


def test_a_server_has_its_pages_already_and_only_their_links_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(TrackingConfig(), tmp_path)
    store.run("mine", "study").close()
    monkeypatch.setattr("fieldshift.tracking.server.reach", lambda _uri: None)
    monkeypatch.setattr("fieldshift.tracking.server.client_for", lambda _uri: client_for(store.uri))
    assert main(["ui", "--run", "http://127.0.0.1:5000/"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "The pages of http://127.0.0.1:5000/:"
    assert lines[-1].startswith("  http://127.0.0.1:5000/#/experiments/")
