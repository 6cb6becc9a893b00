"""Runs in a store of their own: found again, nested once, closed; several processes on a fresh store; off; down."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock, Timeout

from fieldshift.termination import terminate_like_interrupt
from fieldshift.tracking import Store, TrackingConfig, open_store
from fieldshift.tracking.abandoned import close_abandoned
from fieldshift.tracking.spool import Spool
from fieldshift.tracking.store import WholeCalls, check_store, client_for

pytestmark = pytest.mark.filterwarnings("ignore")


def client(store: Store):  # type: ignore[no-untyped-def]
    from mlflow import MlflowClient

    return MlflowClient(store.uri)


def test_a_run_is_found_again_by_its_key_and_keeps_its_parent(tmp_path: Path) -> None:
    store = open_store(TrackingConfig(), tmp_path)
    parent = store.run("e", "study", key="study")
    child = store.run("e", "das", parent_id=parent.id, key="das", tags={"arm": "das", "seed": "0"})
    child.log_params({"recipe": {"epochs": 3}})
    for step in range(3):
        child.log_metrics({"train/loss": 1.0 / (step + 1)}, step=step)
    again = open_store(TrackingConfig(), tmp_path).run("e", "das", parent_id=parent.id, key="das")
    assert again.id == child.id
    again.log_table(pd.DataFrame({"a": [1]}), "table")
    again.log_image("map", np.zeros((4, 4, 3), np.uint8), 0)
    again.close("FINISHED")
    parent.close("KILLED")
    found = client(store).get_run(child.id)
    assert found.info.status == "FINISHED"
    assert found.data.tags["mlflow.parentRunId"] == parent.id
    assert found.data.params == {"recipe.epochs": "3"}
    history = client(store).get_metric_history(child.id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))]
    assert client(store).get_run(parent.id).info.status == "KILLED"
    assert any(file.path.startswith("images") for file in client(store).list_artifacts(child.id))


def open_and_log(folder: str, number: int) -> None:
    run = open_store(TrackingConfig(), Path(folder)).run("e", f"run{number}", key=f"run{number}")
    run.log_metrics({"x": float(number)})
    run.close("FINISHED")


def test_processes_that_open_a_fresh_store_at_once_all_write(tmp_path: Path) -> None:
    start = multiprocessing.get_context("spawn")
    processes = [start.Process(target=open_and_log, args=(str(tmp_path), number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    store = open_store(TrackingConfig(), tmp_path)
    runs = client(store).search_runs([store.experiment_id("e")])
    assert sorted(run.data.metrics["x"] for run in runs) == [0.0, 1.0, 2.0]


def test_runs_in_different_folders_open_a_common_database_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/new/all.db"
    monkeypatch.setattr("fieldshift.tracking.store.LOCK_WAIT_S", 0.01)
    with monkeypatch.context() as patched, FileLock(tmp_path / "new" / "all.db.lock"):
        patched.setattr("fieldshift.tracking.store.client_for", lambda _uri: pytest.fail("the database was opened"))
        check_store(TrackingConfig(uri=uri))
        store = open_store(TrackingConfig(uri=uri), tmp_path / "run")
        assert Spool(store.folder, uri).is_down
        with pytest.raises(Timeout):
            store.find_or_create(experiment="e", name="r", key="r", tags={}, start=0)
    assert not (tmp_path / "new" / "all.db").exists()


def test_tracking_that_is_off_leaves_nothing(tmp_path: Path) -> None:
    store = open_store(TrackingConfig(enabled=False), tmp_path)
    run = store.run("e", "r")
    run.log_metrics({"x": 1.0})
    run.close("FINISHED")
    assert run.id == ""
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_down_ends_nothing_and_what_it_missed_is_kept(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = open_store(TrackingConfig(uri=f"http://127.0.0.1:{port}"), tmp_path)
    run = store.run("e", "r", key="r")
    run.log_metrics({"x": 1.0}, step=2)
    run.close("FINISHED")
    kept = "".join(path.read_text() for path in tmp_path.rglob("*.jsonl"))
    assert '"x"' in kept


def test_runs_of_a_process_that_died_are_closed_as_killed(tmp_path: Path) -> None:
    start = multiprocessing.get_context("spawn")
    process = start.Process(target=open_without_closing, args=(str(tmp_path),))
    process.start()
    process.join(120)
    store = open_store(TrackingConfig(), tmp_path)
    (lost,) = client(store).search_runs([store.experiment_id("e")])
    assert lost.info.status == "KILLED"
    (point,) = client(store).get_metric_history(lost.info.run_id, "x")
    assert lost.info.end_time == point.timestamp
    mine = store.run("e", "mine", key="mine")
    assert close_abandoned(client(store)) == []
    assert client(store).get_run(mine.id).info.status == "RUNNING"
    mine.close("FINISHED")


def open_without_closing(folder: str) -> None:
    open_store(TrackingConfig(), Path(folder)).run("e", "lost", key="lost").log_metrics({"x": 1.0}, step=1)


def test_a_signal_does_not_interrupt_a_call_to_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted transaction would keep the database locked for the calls that close the run."""
    store = open_store(TrackingConfig(), tmp_path)
    run = store.run("signals", "run")
    database = client_for(store.uri)._client
    log_batch = database.log_batch

    def interrupted(*arguments: object, **named: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        log_batch(*arguments, **named)

    monkeypatch.setattr(database, "log_batch", interrupted)
    with pytest.raises(KeyboardInterrupt), terminate_like_interrupt():
        run.log_metrics({"loss": 1.0}, step=1)
    monkeypatch.undo()
    run.close("KILLED")
    found = client_for(store.uri).get_run(run.id)
    assert found.data.metrics == {"loss": 1.0}
    assert found.info.status == "KILLED"
    assert not isinstance(
        client_for("http://127.0.0.1:9"), WholeCalls
    )  # of a server, an interrupted call leaves nothing
