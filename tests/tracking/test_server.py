"""MLflow's pages on a run's store."""

from __future__ import annotations

import socket
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from fieldshift.errors import UserError
from fieldshift.tracking import TrackingConfig, open_store, serving
from fieldshift.tracking.server import charts_link, find_store

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_folder_without_a_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tracking store"):
        find_store(tmp_path)
    with pytest.raises(UserError, match="is a server already"):
        find_store("http://127.0.0.1:5000")


def test_the_newest_store_of_a_folder_of_runs_is_found(tmp_path: Path) -> None:
    for name, age in (("old", 1), ("new", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mlflow.db").touch()
        import os

        os.utime(tmp_path / name / "mlflow.db", (age, age))
    assert find_store(tmp_path)[0].startswith(f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}")
    assert find_store(tmp_path / "old")[1] == str(tmp_path / "old" / "artifacts")


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    open_store(TrackingConfig(), tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"Port {port} of 127.0.0.1 cannot be used"), serving(tmp_path, port=port):
            pass


def test_the_link_opens_the_charts_of_the_children(tmp_path: Path) -> None:
    store = open_store(TrackingConfig(), tmp_path)
    assert charts_link(store.uri, "http://here") == "http://here"
    parent = store.run("mine", "study")
    assert "searchFilter" not in charts_link(store.uri, "http://here")
    store.run("mine", "das", parent_id=parent.id)
    link = charts_link(store.uri, "http://here")
    page, _, query = link.partition("?")
    assert page == f"http://here/#/experiments/{store.experiment_id('mine')}/runs"
    assert dict(urllib.parse.parse_qsl(query))["searchFilter"] == "tags.`mlflow.parentRunId` LIKE '%'"


@pytest.mark.timeout(400)
def test_the_server_answers_and_ends_with_the_block(tmp_path: Path) -> None:
    open_store(TrackingConfig(), tmp_path).run("mine", "study").close()
    with serving(tmp_path, port=0) as url, urllib.request.urlopen(f"{url}/version", timeout=30) as answer:
        assert answer.status == 200
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=5)
