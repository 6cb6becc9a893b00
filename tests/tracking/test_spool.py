"""A store that is down: the run goes on, and a replay brings everything to where it belongs."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from fieldshift.errors import UserError
from fieldshift.tracking import TrackingConfig, open_store, replay, sending
from fieldshift.tracking.spool import LOCK, SENDING, Spool
from fieldshift.tracking.store import client_for

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder whose store was down while a parent and a child were logged."""
    config = TrackingConfig(uri="http://127.0.0.1:9")
    store = open_store(config, tmp_path / "run")
    (tmp_path / "report.txt").write_text("report")
    parent = store.run("e", "study", key="study")
    child = store.run("e", "das", parent_id=parent.id, key="das", tags={"arm": "das"})
    child.log_params({"epochs": 2})
    for step in (1, 2):
        child.log_metrics({"train/loss": 1 / step}, step=step)
    child.log_image("policy/frames", np.full((4, 6, 3), 9, np.uint8), 1)
    child.log_table(pd.DataFrame({"a": [1]}), "table")
    child.log_artifact(tmp_path / "report.txt")
    child.close("FINISHED")
    parent.close("KILLED")
    return tmp_path / "run"


def assert_only_ids_are_left(folder: Path) -> None:
    assert {file.name for file in (folder / "tracking-spool").iterdir()} - {SENDING} == {"sent-runs.json"}


def test_it_is_said_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not caplog.records
    open_store(TrackingConfig(uri="http://127.0.0.1:9"), folder).run("e", "x").log_metrics({"a": 1.0})
    assert sum("does not answer" in record.getMessage() for record in caplog.records) == 0


def test_a_replay_brings_everything_where_it_belongs(folder: Path, tmp_path: Path) -> None:
    other = open_store(TrackingConfig(), tmp_path / "other")
    assert replay(folder, other.uri) == 10
    client = client_for(other.uri)
    runs = {run.info.run_name: run for run in client.search_runs([other.experiment_id("e")])}
    assert set(runs) == {"study", "das"}
    child = runs["das"]
    assert child.data.tags["mlflow.parentRunId"] == runs["study"].info.run_id
    assert (child.info.status, runs["study"].info.status) == ("FINISHED", "KILLED")
    assert child.data.params == {"epochs": "2"}
    history = client.get_metric_history(child.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5)]
    files = {file.path for file in client.list_artifacts(child.info.run_id)}
    assert files == {"images", "table.json", "report.txt"}
    assert_only_ids_are_left(folder)


def test_a_replay_of_what_was_in_part_sent_makes_no_run_twice(folder: Path, tmp_path: Path) -> None:
    other = open_store(TrackingConfig(), tmp_path / "other")
    (file,) = (folder / "tracking-spool").glob("*.jsonl")
    lines = file.read_text().splitlines()
    created = [json.loads(line)["what"] for line in lines].count("create")
    whole = file.read_text()
    file.write_text("\n".join(lines[:4]) + "\n")
    replay(folder, other.uri)
    file.write_text(whole)
    for line in lines:
        if "picture" in (message := json.loads(line)):
            from PIL import Image

            Image.new("RGB", (6, 4)).save(file.parent / message["picture"])
    replay(folder, other.uri)
    assert len(client_for(other.uri).search_runs([other.experiment_id("e")])) == created == 2


def test_a_replay_that_was_killed_goes_on_after_the_last_message(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_store(TrackingConfig(), tmp_path / "other")
    (file,) = (folder / "tracking-spool").glob("*.jsonl")
    lines = file.read_text().splitlines()
    sent, whole = [], sending._carry_out

    def killed(client: object, run_id: str, what: str, *rest: object) -> None:
        if len(sent) == 3:  # after the two that create runs
            raise KeyboardInterrupt
        sent.append(what)
        whole(client, run_id, what, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("fieldshift.tracking.sending._carry_out", killed)
        replay(folder, other.uri)
    assert Spool(folder).waiting() == len(lines) - 5
    assert replay(folder, other.uri) == len(lines) - 5
    client = client_for(other.uri)
    (child,) = [run for run in client.search_runs([other.experiment_id("e")]) if run.info.run_name == "das"]
    assert [point.step for point in client.get_metric_history(child.info.run_id, "train/loss")] == [1, 2]


def test_a_line_that_was_not_written_to_its_end_is_no_message(folder: Path, tmp_path: Path) -> None:
    other = open_store(TrackingConfig(), tmp_path / "other")
    (file,) = (folder / "tracking-spool").glob("*.jsonl")
    with file.open("a") as killed:
        killed.write('{"uri": "http')
    assert replay(folder, other.uri) == 10
    assert_only_ids_are_left(folder)


def test_what_a_writer_adds_after_a_replay_reaches_its_run(tmp_path: Path) -> None:
    run = open_store(TrackingConfig(uri="http://127.0.0.1:9"), tmp_path / "run").run("e", "das", key="das")
    run.log_metrics({"x": 1.0}, 1)
    other = open_store(TrackingConfig(), tmp_path / "other")
    assert replay(tmp_path / "run", other.uri) == 2
    run.log_metrics({"x": 0.5}, 2)
    run.close()
    assert replay(tmp_path / "run", other.uri) == 2
    (sent,) = client_for(other.uri).search_runs([other.experiment_id("e")])
    assert (sent.data.metrics, sent.info.status) == ({"x": 0.5}, "FINISHED")


@pytest.mark.parametrize("damage", [b"\0" * 40, b'{"uri": "\xff\xfe', b"{}", b"[1]", b'{"uri": "'])
def test_a_damaged_message_is_named_and_stops_nothing(
    damage: bytes, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = open_store(TrackingConfig(), tmp_path / "other")
    (file,) = (folder / "tracking-spool").glob("*.jsonl")
    lines = file.read_bytes().splitlines()
    lines[3] = damage  # the metrics of step 1
    file.write_bytes(b"\n".join(lines) + b"\n")
    caplog.clear()
    assert replay(folder, other.uri) == 9
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"A damaged message in {file} was not sent to MLflow: ")
    assert "\n" not in said
    runs = {run.info.run_name: run for run in client_for(other.uri).search_runs([other.experiment_id("e")])}
    history = client_for(other.uri).get_metric_history(runs["das"].info.run_id, "train/loss")
    assert [point.step for point in history] == [2]


def test_a_message_that_cannot_be_encoded_is_named_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(TrackingConfig(), tmp_path)
    run = store.run("e", "das", key="das")
    run.log_metrics({"x": 1.0}, 2**70)
    run.log_metrics({"x": 1.0}, 1)
    spool = Spool(tmp_path, store.uri)
    assert not spool.is_down
    spool.write(run.id, "params", {"params": {"data": "caf\udce9"}})  # as an earlier version kept it
    spool.write(run.id, "metrics", {"metrics": {"x": 0.5}, "step": 2**70, "time": 0})
    spool.write(run.id, "metrics", {"metrics": {"x": 0.25}, "step": 3, "time": 0})
    assert replay(tmp_path) == 3
    refused = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in refused] == [f"MLflow refused metrics of run {run.id}"] * 2
    client = client_for(store.uri)
    assert sorted(point.step for point in client.get_metric_history(run.id, "x")) == [1, 3]
    assert client.get_run(run.id).data.params == {"data": "caf\\udce9"}


def test_a_damaged_picture_is_named_and_stops_nothing(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = open_store(TrackingConfig(), tmp_path / "other")
    (picture,) = (folder / "tracking-spool").glob("*.png")
    picture.write_bytes(picture.read_bytes()[:40])
    caplog.clear()
    assert replay(folder, other.uri) == 10
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{picture} is damaged (")
    assert_only_ids_are_left(folder)


def test_an_address_that_cannot_be_read_loses_no_message(folder: Path) -> None:
    before = Spool(folder).waiting()
    with pytest.raises(UserError, match="still does not answer"):
        replay(folder, "http://[")
    assert Spool(folder).waiting() == before


def test_a_lock_that_a_writer_holds_is_not_taken_for_a_second_replay(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_store(TrackingConfig(), tmp_path / "other")
    monkeypatch.setattr(importlib.import_module("fieldshift.tracking.replay"), "LOCK_WAIT_S", 0.01)
    with FileLock(folder / LOCK), pytest.raises(UserError, match=f"holds {folder / LOCK} for over .*fieldshift sync"):
        replay(folder, other.uri)
    assert replay(folder, other.uri) == 0


def test_a_lock_that_another_process_holds_ends_no_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fieldshift.tracking.spool.LOCK_WAIT_S", 0.01)
    monkeypatch.setattr("fieldshift.tracking.spool.LOCKED_WAIT_S", 0.01)
    run = open_store(TrackingConfig(uri="http://127.0.0.1:9"), folder).run("e", "das", key="das")
    before = Spool(folder).waiting()
    caplog.clear()
    with FileLock(folder / LOCK):
        for step in (1, 2):
            run.log_metrics({"x": 1.0}, step)
    assert [record.getMessage() for record in caplog.records] == [
        f"Another process holds {folder / LOCK} for over 0.01 s: messages for MLflow are lost until it is free."
    ]
    run.log_metrics({"x": 1.0}, 3)
    assert Spool(folder).waiting() == before + 1


def test_what_a_moved_folder_spooled_is_sent_from_where_it_lies_and_what_is_gone_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_store(TrackingConfig(uri="http://127.0.0.1:9"), tmp_path / "first").run("e", "das", key="das")
    outside = tmp_path / "outside.txt"
    for file in (tmp_path / "first/result.json", outside):
        file.write_text("kept")
        run.log_artifact(file)
    run.log_metrics({"x": 1.0})
    outside.unlink()
    moved = (tmp_path / "first").rename(tmp_path / "moved")
    other = open_store(TrackingConfig(), tmp_path / "other")
    caplog.clear()
    assert replay(moved, other.uri) == 4
    assert [record.getMessage() for record in caplog.records] == [
        f"{outside} is no longer there and was not sent to MLflow."
    ]
    client = client_for(other.uri)
    (sent,) = client.search_runs([other.experiment_id("e")])
    assert sent.data.metrics == {"x": 1.0}
    assert [file.path for file in client.list_artifacts(sent.info.run_id)] == ["result.json"]


def test_one_process_sends_at_a_time_and_a_run_in_progress_is_not_held_up(folder: Path, tmp_path: Path) -> None:
    spool = Spool(folder, "http://127.0.0.1:9")
    with FileLock(spool.folder / SENDING):
        with pytest.raises(UserError, match="Another process is sending"):
            replay(folder)
        spool.write("offline-1", "tags", {"tags": {}})


def test_metrics_that_the_store_has_already_are_not_sent_twice(folder: Path, tmp_path: Path) -> None:
    other = open_store(TrackingConfig(), tmp_path / "other")
    run = other.run("e", "das", key="das")
    run.log_metrics({"train/loss": 1.0}, 1)
    replay(folder, other.uri)
    history = client_for(other.uri).get_metric_history(run.id, "train/loss")
    assert sorted(point.step for point in history) == [1, 2]


def test_what_waits_is_sent_by_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fieldshift.cli import main

    other = open_store(TrackingConfig(), tmp_path / "other")
    assert main(["sync", str(folder), "--uri", other.uri]) == 0
    assert capsys.readouterr().out == f"10 messages of {folder} sent.\n"
    (folder / "config.yaml").touch()
    assert main(["sync", str(folder)]) == 0
    assert capsys.readouterr().out == f"0 messages of {folder} sent.\n"


@pytest.mark.parametrize("second", ["nowhere", "."])
def test_a_folder_without_a_run_is_named_before_any_message_is_sent(
    folder: Path, second: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fieldshift.cli import main

    other = open_store(TrackingConfig(), tmp_path / "other")
    assert main(["sync", str(folder), str(tmp_path / second), "--uri", other.uri]) == 2
    assert f"There is no run in '{tmp_path / second}'" in capsys.readouterr().err
    assert Spool(folder).waiting() == 10
    assert main(["sync"]) == 2


def test_a_store_that_is_still_down_leaves_the_spool_as_it_was(folder: Path) -> None:
    (file,) = (folder / "tracking-spool").glob("*.jsonl")
    before = file.read_text()
    with pytest.raises(UserError, match="still does not answer"):
        replay(folder)
    assert file.read_text() == before


def test_a_run_whose_store_missed_nothing_has_nothing_to_send(tmp_path: Path) -> None:
    assert replay(tmp_path) == 0


def test_a_store_that_goes_down_in_the_middle_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(TrackingConfig(), tmp_path)
    run = store.run("e", "r", key="r")
    run.log_metrics({"loss": 1.0}, step=1)
    client = client_for(store.uri)

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("refused")

    with monkeypatch.context() as down:
        down.setattr(client, "log_batch", refuse)
        run.log_metrics({"loss": 0.5}, step=2)
        run.log_metrics({"loss": 0.25}, step=3)
    run.close()
    assert sum("does not answer" in record.getMessage() for record in caplog.records) == 1
    assert client.get_run(run.id).info.status == "RUNNING"
    assert replay(tmp_path) == 3
    history = client.get_metric_history(run.id, "loss")
    assert sorted((point.step, point.value) for point in history) == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert client.get_run(run.id).info.status == "FINISHED"
    assert not Spool(tmp_path).is_down
