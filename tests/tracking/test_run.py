"""What a run sends: names, batches, nesting, tables, and how it ends."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fieldshift.errors import UserError
from fieldshift.tracking import Run, Store, TrackingConfig, open_store
from fieldshift.tracking.run import TrackedRun, flat, metric_name
from fieldshift.tracking.sending import perform
from fieldshift.tracking.spool import Spool
from fieldshift.tracking.store import client_for, quiet_mlflow

pytestmark = pytest.mark.filterwarnings("ignore")


class Recorder:
    """Stands for MLflow's client: keeps every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(TrackingConfig(), tmp_path_factory.mktemp("store"))


@given(st.text(max_size=300))
def test_every_name_becomes_one_that_mlflow_takes(name: str) -> None:
    safe = metric_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_\-. :/]{1,250}", safe)
    assert metric_name(safe) == safe


@pytest.mark.parametrize("name", ["train/loss", "cost/device hours", "a_b-c.d:e"])
def test_good_names_stay(name: str) -> None:
    assert metric_name(name) == name


def test_metrics_and_parameters_go_in_batches(tmp_path: Path) -> None:
    client = Recorder()
    perform(client, "run", "metrics", {"metrics": {f"m{n}": 1.0 for n in range(2500)}, "step": 3, "time": 5})
    perform(client, "run", "params", {"params": {f"p{n}": "x" for n in range(250)}})
    sizes = [len(kwargs.get("metrics", kwargs.get("params"))) for _, _, kwargs in client.calls]
    assert sizes == [1000, 1000, 500, 100, 100, 50]
    assert {(m.step, m.timestamp) for m in client.calls[0][2]["metrics"]} == {(3, 5)}


class Patience:
    """Stands for MLflow's client: keeps the seconds that a server has for the answer to each call."""

    def __init__(self) -> None:
        self.seconds: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self.note(name)

    def note(self, name: str) -> Any:
        self.seconds[name] = os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]
        run = mock.MagicMock()
        run.data.tags = {}
        return run


TEXT = {"file": "table.json", "text": "{}"}
PICTURE = {"key": "a", "step": 0, "time": 0, "shown": None}


@pytest.mark.parametrize(
    ("what", "message", "sends"),
    [
        ("image", PICTURE, "log_image"),
        ("table", TEXT, "log_text"),
        ("artifact", {"path": "a", "folder": None}, "log_artifact"),
        ("register", {"name": "a", "folder": "a"}, "create_model_version"),
        ("params", {"params": {"long": "x" * 7000}}, "log_text"),
    ],
)
def test_a_server_has_more_time_for_files_than_for_other_messages(
    what: str, message: dict[str, Any], sends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    quiet_mlflow()
    client = Patience()
    perform(client, "run", what, message)
    assert client.seconds[sends] == "120"
    perform(client, "run", "metrics", {"metrics": {"x": 1.0}, "step": 0, "time": 0})
    assert client.seconds["log_batch"] == os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "10"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    perform(client, "run", what, message)
    assert client.seconds[sends] == os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "600"


def test_a_server_that_is_down_is_found_out_in_the_short_time_before_a_file_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    seconds = []

    class Down(Recorder):
        def get_run(self, run_id: str) -> None:
            seconds.append(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"])
            raise ConnectionError("no answer")

    client = Down()
    with pytest.raises(ConnectionError):
        perform(client, "run", "artifact", {"path": str(tmp_path), "folder": None})
    assert (seconds, client.calls) == (["10"], [])


def test_nested_parameters_become_names_with_dots() -> None:
    assert flat({"a": {"b": 1, "c": {"d": 2}}, "e": {}}) == {"a.b": 1, "a.c.d": 2, "e": {}}


def test_a_long_parameter_is_kept_whole_as_a_file(store: Store) -> None:
    run = store.run("params", "long")
    run.log_params({"policy": "x" * 7000})
    client = client_for(store.uri)
    assert client.get_run(run.id).data.params == {"policy": "see params/policy.txt"}
    assert Path(client.download_artifacts(run.id, "params/policy.txt")).read_text() == "x" * 7000


def test_two_metrics_with_one_name_are_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="same name"):
        store.run("metrics", "twice").log_metrics({"acc@1": 1.0, "acc#1": 2.0})


def test_a_parameter_that_changes_is_said_and_ends_nothing(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    run = store.run("params", "changing")
    run.log_params({"epochs": 3})
    run.log_params({"epochs": 3})
    assert not caplog.records
    run.log_params({"epochs": 4})
    assert "MLflow refused params" in caplog.text
    assert client_for(store.uri).get_run(run.id).data.params == {"epochs": "3"}


def test_names_of_files_that_are_not_utf_8_are_escaped(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    name, shown = os.fsdecode(b"caf\xe9"), "caf\\udce9"
    run = store.run("encoding", name, key=name, tags={"folder": name})
    run.log_params({"data": name})
    run.set_tags({"out": name})
    run.tag_experiment({"place": name})
    run.log_dataset(name, "0123", {"train": 1})
    run.close()
    assert store.run("encoding", None, key=name).id == run.id
    assert not caplog.records
    client = client_for(store.uri)
    found = client.get_run(run.id)
    assert (found.info.run_name, found.data.params) == (shown, {"data": shown})
    assert (found.data.tags["folder"], found.data.tags["out"]) == (shown, shown)
    assert found.inputs.dataset_inputs[0].dataset.name == shown
    assert client.get_experiment(store.experiment_id("encoding")).tags["place"] == shown


def test_a_table_that_cannot_be_encoded_is_said_and_ends_nothing(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    run = store.run("encoding", "table")
    run.log_table(pd.DataFrame({"class": [os.fsdecode(b"caf\xe9")]}, dtype=object), "classes")
    run.close()
    assert f"MLflow refused table of run {run.id}: 'utf-8' codec can't encode" in caplog.text
    assert client_for(store.uri).get_run(run.id).info.status == "FINISHED"


def test_a_table_is_written_in_place_of_an_earlier_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)  # `load_table` looks for runs there, whatever its client's is
    run = store.run("tables", "arms")
    for mean in (0.5, 0.75):
        run.log_table(pd.DataFrame({"arm": ["none", "das"], "mean": [0.25, mean]}), "comparison")
    table = client_for(store.uri).load_table(store.experiment_id("tables"), "comparison.json", [run.id])
    assert table.to_dict("list") == {"arm": ["none", "das"], "mean": [0.25, 0.75]}


def test_the_data_of_a_run_are_its_input(store: Store) -> None:
    run = store.run("data", "das")
    run.log_dataset("digits", "0123456789abcdef", {"train": 160, "test": 80})
    (held,) = client_for(store.uri).get_run(run.id).inputs.dataset_inputs
    assert (held.dataset.name, held.dataset.digest) == ("digits", "0123456789abcdef")
    assert json.loads(held.dataset.profile) == {"train": 160, "test": 80}


def test_pictures_of_one_key_make_a_series(store: Store) -> None:
    run = store.run("images", "maps")
    for step in (0, 5):
        run.log_image("policy/frames", np.full((4, 6, 3), 40 * step, np.uint8), step)
    names = [file.path for file in client_for(store.uri).list_artifacts(run.id, "images")]
    assert {step for name in names for step in re.findall(r"step[%+\w]*?(\d+)", name)[:1]} == {"0", "5"}


def test_a_picture_is_shown_as_large_as_asked_for_and_kept_whole(store: Store) -> None:
    run = store.run("images", "shown")
    run.log_image("a:b/c", np.full((40, 80, 3), 200, np.uint8), shown=16)
    client = client_for(store.uri)
    files = [file.path for file in client.list_artifacts(run.id, "images")]
    sizes = {Path(name).suffix: Image.open(client.download_artifacts(run.id, name)).size for name in files}
    assert sizes == {".png": (80, 40), ".webp": (16, 8)}
    assert len(files) == 2


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)])
def test_what_is_no_picture_is_refused(store: Store, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="A picture is uint8"):
        store.run("images", "wrong").log_image("x", array)


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (RuntimeError, "FAILED"), (UserError, "FAILED"), (KeyboardInterrupt, "KILLED")],
)
def test_a_run_closes_itself_as_it_ended(store: Store, error: type[BaseException] | None, status: str) -> None:
    def use(run: Run) -> None:
        with run:
            if error is not None:
                raise error

    run = store.run("closing", status)
    if error is None:
        use(run)
    else:
        with pytest.raises(error):
            use(run)
    run.close("FAILED" if status == "FINISHED" else "FINISHED")
    assert client_for(store.uri).get_run(run.id).info.status == status


def test_a_reopened_run_is_running_again_and_has_one_id(store: Store) -> None:
    first = store.run("again", "a", key="it's")
    first.close("KILLED")
    second = store.run("again", "b", key="it's", tags={"seed": 3})
    assert second.id == first.id
    found = client_for(store.uri).get_run(second.id)
    assert (found.info.status, found.info.run_name, found.data.tags["seed"]) == ("RUNNING", "b", "3")
    assert store.run("again", "c").id != store.run("again", "c").id


def test_a_run_that_was_deleted_with_its_experiment_is_restored_and_loses_nothing(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    run, client = store.run("deleted", "das"), client_for(store.uri)
    client.delete_experiment(store.experiment_id("deleted"))
    run.log_metrics({"x": 1.0}, 1)
    client.delete_run(run.id)
    run.log_params({"a": 1})
    run.log_metrics({"x": 0.5}, 2)
    run.close()
    found = client.get_run(run.id)
    assert (found.info.lifecycle_stage, found.info.status, found.data.params) == ("active", "FINISHED", {"a": "1"})
    assert [point.step for point in client.get_metric_history(run.id, "x")] == [1, 2]
    assert [record.getMessage() for record in caplog.records] == [
        f"The MLflow run {run.id} was deleted while it was in progress, and is restored."
    ] * 2


def test_an_experiment_that_was_deleted_before_is_restored_with_a_line(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    first, client = store.run("forgotten", "one"), client_for(store.uri)
    first.close()
    client.delete_experiment(store.experiment_id("forgotten"))
    store.run("forgotten", "two").close()
    runs = client.search_runs([store.experiment_id("forgotten")])
    assert {run.info.run_name for run in runs} == {"one", "two"}
    assert [record.getMessage() for record in caplog.records] == [
        "The MLflow experiment forgotten was deleted, and is restored."
    ]


def test_a_run_that_a_silent_server_created_several_times_is_one(store: Store) -> None:
    client, where = client_for(store.uri), store.experiment_id("silent")
    run = store.run("silent", "das", key="das")
    run.log_metrics({"x": 1.0}, 1)
    for _ in range(2):
        client.create_run(where, tags={"fieldshift.key": "das"}, run_name="das")
    assert store.run("silent", "das", key="das").id == run.id
    assert [found.info.run_id for found in client.search_runs([where])] == [run.id]


def test_the_duration_of_a_reopened_run_is_the_time_in_which_it_was_open(store: Store) -> None:
    client = client_for(store.uri)
    before = 3_600_000
    first = store.run("again", "long", key="long")
    client.set_terminated(first.id, "KILLED", client.get_run(first.id).info.start_time + before)
    begin = time.time()
    second = store.run("again", "long", key="long")
    second.log_metrics({"x": 1.0})
    second.close()
    info = client.get_run(first.id).info
    assert before <= info.end_time - info.start_time <= before + 1000 * (time.time() - begin) + 1


def test_a_run_that_keeps_nothing_takes_everything(tmp_path: Path) -> None:
    with Run() as run:
        run.log_params({"a": 1})
        run.log_metrics({"a": 1.0}, step=1)
        run.set_tags({"a": "b"})
        run.log_image("a", np.zeros((2, 2, 3), np.uint8))
        run.log_table(pd.DataFrame(), "a")
        run.log_artifact(tmp_path)
    assert run.id == ""


def test_every_call_of_a_tracked_run_is_one_of_a_run_that_keeps_nothing() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(TrackedRun) == public(Run)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("uri", "file:///tmp/x"),
        ("uri", "mlruns"),
        ("experiment", " "),
        ("experiment", "x" * 501),
        ("experiment", "a\nb"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(field: str, value: str) -> None:
    with pytest.raises(UserError, match=f"tracking.{field} is"):
        TrackingConfig(**{field: value})


def test_without_mlflow_nothing_is_tracked_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert open_store(TrackingConfig(), tmp_path).run("e", "r").id == ""
    assert "MLflow is not installed" in caplog.text


def test_spools_of_two_folders_are_apart(tmp_path: Path) -> None:
    one, other = Spool(tmp_path / "one"), Spool(tmp_path / "other")
    one.server_is_down(OSError("refused"))
    assert one.is_down
    assert not other.is_down
    one.answers_again()
    assert not one.is_down
