"""Runs of killed processes: their duration, sessions without an end, and stores that refuse to close them."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from fieldshift.tracking import Store, TrackingConfig, open_store
from fieldshift.tracking.abandoned import PROCESS_TAG, close_abandoned, process_is_gone, this_process
from fieldshift.tracking.store import client_for

pytestmark = pytest.mark.filterwarnings("ignore")

DAY, HOUR = 86_400_000, 3_600_000
START = 1_700_000_000_000
ENDED = f"{socket.gethostname()}:1:1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(TrackingConfig(), tmp_path)


def session(store: Store, name: str, start: int, *, process: str = ENDED, parent: str | None = None) -> str:
    """Opens a run at a time, as a process that has ended meanwhile."""
    tags = {"fieldshift.key": name, PROCESS_TAG: process} | ({"mlflow.parentRunId": parent} if parent else {})
    return store.find_or_create(experiment="e", name=name, key=name, tags=tags, start=start)[0]


def log(store: Store, run_id: str, when: int, step: int = 1) -> None:
    client_for(store.uri).log_metric(run_id, "x", 1.0, when, step)


def duration(store: Store, run_id: str) -> int:
    info = client_for(store.uri).get_run(run_id).info
    assert info.status == "KILLED"
    return int(info.end_time - info.start_time)


def test_a_run_that_is_killed_before_its_first_new_metric_keeps_its_duration(store: Store) -> None:
    run_id = session(store, "a", START)
    log(store, run_id, START + 9 * HOUR)
    client_for(store.uri).set_terminated(run_id, "FINISHED", START + 10 * HOUR)
    assert session(store, "a", START + DAY) == run_id
    assert close_abandoned(client_for(store.uri)) == [run_id]
    assert duration(store, run_id) == 10 * HOUR


def test_a_parent_ends_with_its_reopened_child(store: Store) -> None:
    client = client_for(store.uri)
    parent = session(store, "parent", START)
    child = session(store, "child", START, parent=parent)
    for run_id in (child, parent):
        client.set_terminated(run_id, "KILLED", START + 10 * HOUR)
    session(store, "parent", START + DAY)
    session(store, "child", START + DAY, parent=parent)
    client.set_terminated(child, "FINISHED", START + 11 * HOUR)  # after one more hour
    assert close_abandoned(client) == [parent]
    assert duration(store, parent) == 11 * HOUR


def test_a_session_without_an_end_counts_until_its_last_metric(store: Store) -> None:
    run_id = session(store, "a", START, process="elsewhere:1:1")
    log(store, run_id, START + 2 * HOUR)
    for _ in range(2):  # a replay may open a run twice
        session(store, "a", START + DAY)
    log(store, run_id, START + DAY + HOUR, step=2)
    close_abandoned(client_for(store.uri))
    assert duration(store, run_id) == 3 * HOUR


def test_a_replay_of_the_same_session_counts_it_once(store: Store) -> None:
    run_id = session(store, "a", START)
    log(store, run_id, START + 2 * HOUR)
    session(store, "a", START)
    close_abandoned(client_for(store.uri))
    assert duration(store, run_id) == 2 * HOUR


class RefusingError(Exception):
    error_code = "PERMISSION_DENIED"


@pytest.mark.parametrize(("error", "closed"), [(RefusingError("403"), 2), (ConnectionError("no answer"), 0)])
def test_a_store_that_refuses_to_close_a_run_ends_nothing(
    store: Store,
    error: Exception,
    closed: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs = [session(store, name, int(time.time() * 1000)) for name in ("a", "b", "c")]
    client = client_for(store.uri)
    refused = client.search_runs([store.experiment_id("e")])[0].info.run_id
    whole = client.set_terminated

    def close(run_id: str, *rest: Any) -> None:
        if run_id == refused:
            raise error
        whole(run_id, *rest)

    monkeypatch.setattr(client, "set_terminated", close)
    run = open_store(TrackingConfig(), tmp_path).run("e", "mine", key="mine")
    assert run.id in {each.info.run_id for each in client.search_runs([store.experiment_id("e")])}
    run.close()
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == (
        f"{3 - closed} MLflow runs that killed processes left open could not be closed, first {refused} ({error})."
    )
    states = [client.get_run(run_id).info.status for run_id in runs]
    assert states.count("KILLED") == closed


def test_the_history_of_no_metric_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = session(store, "a", START)
    log(store, run_id, START + HOUR)
    monkeypatch.delattr("mlflow.MlflowClient.get_metric_history")
    assert close_abandoned(client_for(store.uri)) == [run_id]
    assert duration(store, run_id) == HOUR


def test_a_process_is_gone_only_when_it_is_known_to_be() -> None:
    mine = this_process()
    host, number, start, *where = mine.split(":")
    assert not process_is_gone(mine)
    assert not process_is_gone(f"{host}:{number}:{start}")  # as earlier versions named it
    assert process_is_gone(":".join((host, number, "1", *where)))
    assert process_is_gone(f"{host}:{number}:1")
    assert not process_is_gone("elsewhere:1:1")
    assert not process_is_gone("")


@pytest.mark.parametrize("part", [0, 1])
def test_a_process_of_another_start_of_the_system_or_of_another_container_counts_as_running(part: int) -> None:
    *_, boot, space = this_process().split(":")
    where = [boot, space]
    gone = f"{socket.gethostname()}:{2**22 + 1}:1"  # above Linux's largest identifier
    assert process_is_gone(":".join((gone, *where)))
    where[part] = "other"
    assert not process_is_gone(":".join((gone, *where)))


def test_a_process_of_another_user_that_is_hidden_counts_as_running(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(path: Path) -> str:
        if path.name == "stat":
            raise FileNotFoundError(path)
        return whole(path)

    def forbidden(pid: int, signal: int) -> None:
        raise PermissionError(pid)

    def unseen(pid: int) -> None:
        raise psutil.NoSuchProcess(pid)

    mine, whole = this_process(), Path.read_text
    monkeypatch.setattr("fieldshift.tracking.abandoned.Path.read_text", hidden)
    monkeypatch.setattr("os.kill", forbidden)
    monkeypatch.setattr("psutil.Process", unseen)
    assert not process_is_gone(mine)


def test_without_proc_a_process_is_known_by_when_it_was_created(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr("fieldshift.tracking.abandoned.Path.read_text", none)
    mine = this_process()
    assert float(mine.rpartition(":")[2]) == pytest.approx(psutil.Process().create_time())
    assert not process_is_gone(mine)
    before = mine.rpartition(":")[0]
    assert process_is_gone(f"{before}:1.0")
    assert not process_is_gone(f"{before}:gone")  # a tag of a version that knew no time
    assert process_is_gone(f"{mine.partition(':')[0]}:{2**22 + 1}:gone")  # above Linux's largest identifier
    monkeypatch.setattr("psutil.Process", denied)
    assert not process_is_gone(f"{before}:1.0")


def denied(pid: int) -> None:
    raise psutil.AccessDenied(pid)
