"""Runs as one table: a row each, the same columns from a folder and from a store's address."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import pandas as pd
import pytest

import pipelines
from fieldshift.cli import main
from fieldshift.errors import UserError
from fieldshift.tracking import TrackingConfig, open_store
from fieldshift.tracking.abandoned import PROCESS_TAG, this_process
from pipelines.collecting import COLUMNS

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = open_store(TrackingConfig(), tmp_path_factory.mktemp("runs") / "study")
    parent = store.run("mine", "study", key="study")
    for seed, score in ((0, 75.0), (1, 80.5)):
        run = store.run("mine", f"das T3 s{seed}", parent_id=parent.id, key=f"das{seed}", tags={"frames": "1"})
        run.log_params(
            {
                "stage": "compare",
                "arm": "das",
                "seed": str(seed),
                "policy": str(None),
                "equal_compute": "true",
                "frames": "3",
            }
        )
        run.log_metrics({"accuracy/judged_percent": score})
        run.close()
    parent.close()
    return store.folder


def test_a_folder_and_a_store_give_the_same_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pipelines.results(str(folder))
    assert "das T3 s1" in capsys.readouterr().out
    assert tuple(table.columns) == COLUMNS
    assert table["accuracy/judged_percent"].dropna().tolist() == [75.0, 80.5]
    assert table["parent_id"].notna().sum() == 2
    assert table["seed"].dropna().tolist() == [0, 1]
    assert table["frames"].dropna().tolist() == [1, 1]  # the network's, not those that were asked for
    assert (table["seed"].dtype, table["equal_compute"].dtype, table["loss/test"].dtype) == (
        "Int64",
        "boolean",
        "float64",
    )
    assert table.loc[table["equal_compute"].fillna(False), "name"].tolist() == ["das T3 s0", "das T3 s1"]
    config = TrackingConfig(uri=f"sqlite:///{folder / 'mlflow.db'}")
    pd.testing.assert_frame_equal(table, pipelines.results("mine", tracking=config))


@pytest.mark.parametrize(("ended", "status"), [(True, "KILLED"), (False, "RUNNING")])
def test_runs_of_killed_processes_are_closed(tmp_path: Path, ended: bool, status: str) -> None:
    store = open_store(TrackingConfig(), tmp_path / "run")
    tags = {PROCESS_TAG: f"{socket.gethostname()}:1:1" if ended else this_process()}
    store.find_or_create(experiment="e", name="a", key="a", tags=tags, start=1_700_000_000_000)
    assert pipelines.results(str(tmp_path / "run"))["status"].tolist() == [status]


def test_a_folder_of_run_folders_gives_the_runs_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, score in (("plain", 59.5), ("folded", 87.0)):
        run = open_store(TrackingConfig(), tmp_path / name).run(name, "train", key=name)
        run.log_params({"stage": "train"})
        run.log_metrics({"accuracy/judged_percent": score})
        run.close()
    table = pipelines.results(str(tmp_path))
    assert table.columns[0] == "folder"
    assert dict(zip(table["folder"], table["accuracy/judged_percent"], strict=True)) == {"folded": 87.0, "plain": 59.5}
    printed = capsys.readouterr().out
    assert "folded" in printed
    assert "plain" in printed


def test_the_command_prints_comma_separated_values(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results", "--run", str(folder), "--csv"]) == 0
    text = capsys.readouterr().out
    assert "None" not in text
    printed = pd.read_csv(io.StringIO(text))
    assert tuple(printed.columns) == COLUMNS
    assert len(printed) == 3


def test_what_is_not_there_is_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="is not a folder"):
        pipelines.results(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no tracking store"):
        pipelines.results(str(tmp_path))
    with pytest.raises(UserError, match="no experiment 'other'"):
        pipelines.results("other", tracking=TrackingConfig(uri=f"sqlite:///{folder / 'mlflow.db'}"))
