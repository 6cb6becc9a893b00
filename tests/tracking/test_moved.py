"""A run folder that was moved, copied, or cannot be written: its store keeps its artifacts."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from fieldshift.tracking import TrackingConfig, open_store
from fieldshift.tracking.moved import point_here, readable
from fieldshift.tracking.store import client_for

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first") / "study"
    store = open_store(TrackingConfig(), folder)
    run = store.run("mine", "das", key="das")
    run.log_image("map", np.full((4, 6, 3), 9, np.uint8))
    (folder / "report.txt").write_text("report")
    run.log_artifact(folder / "report.txt")
    run.close()
    return folder


def text_of(uri: str) -> str:
    """The artifact of the only run, as a client reads it."""
    client = client_for(uri)
    experiment = client.get_experiment_by_name("mine")
    (run,) = client.search_runs([experiment.experiment_id])
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"images", "report.txt"}
    return Path(client.download_artifacts(run.info.run_id, "report.txt")).read_text()


@pytest.mark.parametrize("place", ["moved", "with space and ü", "100%25#?"])
def test_a_copy_is_read_from_where_it_lies(written: Path, tmp_path: Path, place: str) -> None:
    folder = tmp_path / place / "study"
    shutil.copytree(written, folder)
    changed = next(folder.glob("artifacts/*/artifacts/report.txt"))
    changed.write_text("of the copy")
    with readable(folder) as uri:
        assert text_of(uri) == "of the copy"
    with readable(written) as uri:
        assert text_of(uri) == "report"


def test_a_run_in_a_moved_folder_writes_where_it_lies(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(written, folder)
    run = open_store(TrackingConfig(), folder).run("mine", "das", key="another")
    (tmp_path / "new.txt").write_text("new")
    run.log_artifact(tmp_path / "new.txt")
    run.close()
    assert [path.parent.parent.parent.parent for path in tmp_path.rglob("new.txt") if path.parent != tmp_path] == [
        folder
    ]
    assert not list(written.rglob("new.txt"))


def test_a_folder_that_cannot_be_written_is_read_from_a_copy_and_left_alone(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "read only"
    shutil.copytree(written, folder)
    monkeypatch.setattr("fieldshift.tracking.moved.is_writable", lambda _folder: False)  # root may write everywhere
    before = (folder / "mlflow.db").read_bytes()
    with readable(folder) as uri:
        assert str(folder) not in uri
        assert text_of(uri) == "report"
        database = Path(uri.partition("///")[2].partition("?")[0])
        assert database.exists()
    assert not database.exists()
    assert (folder / "mlflow.db").read_bytes() == before


@pytest.mark.parametrize("location", ["s3://bucket/artifacts", "mlflow-artifacts:/1", "/elsewhere/mlruns/0"])
def test_locations_that_are_no_run_folders_stay(written: Path, tmp_path: Path, location: str) -> None:
    database = tmp_path / "mlflow.db"
    shutil.copyfile(written / "mlflow.db", database)
    with sqlite3.connect(database) as opened:
        opened.execute("UPDATE experiments SET artifact_location = ?", (location,))
        opened.execute("UPDATE runs SET artifact_uri = ?", (f"{location}/run",))
    opened.close()
    assert point_here(database, tmp_path) == 0
    with sqlite3.connect(database) as opened:
        assert opened.execute("SELECT DISTINCT artifact_uri FROM runs").fetchall() == [(f"{location}/run",)]
    opened.close()
