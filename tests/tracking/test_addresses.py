"""Addresses of stores, read back by SQLAlchemy and SQLite; conditions of filters, by MLflow."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy

from fieldshift.tracking import TrackingConfig
from fieldshift.tracking.addresses import SQLITE_WAIT_S, is_sqlite, quoted_condition, sqlite_address, sqlite_file
from fieldshift.tracking.store import client_for, open_store

FOLDERS = (
    "plain",
    "two  blanks",
    "a?b",
    "a#b",
    "100%",
    "%41",
    "a%3Fb?c#d",
    "&=;",
    "[red]",
    "$x_1$",
    "ärger",
    "it's",
    'a"b',
)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_address_leads_to_the_file(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    engine = sqlalchemy.create_engine(sqlite_address(folder / "mlflow.db"))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table words (word text)"))
        connection.execute(sqlalchemy.text("insert into words values ('here')"))
    engine.dispose()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [path.name for path in folder.iterdir()] == ["mlflow.db"]
    with sqlite3.connect(folder / "mlflow.db") as database:
        assert database.execute("select word from words").fetchall() == [("here",)]
    database.close()


@pytest.mark.parametrize("name", FOLDERS)
def test_the_file_is_read_back_from_the_address(name: str, tmp_path: Path) -> None:
    address = sqlite_address(tmp_path / name / "mlflow.db")
    assert is_sqlite(address)
    assert sqlite_file(address) == tmp_path / name / "mlflow.db"


@pytest.mark.parametrize("name", ["a?b", "a#b", "100%"])
def test_mlflow_leaves_nothing_in_the_current_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    store = open_store(TrackingConfig(), tmp_path / name)
    store.run("fieldshift", name, key=name).close("FINISHED")
    assert store.is_local
    assert list((tmp_path / "here").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "here"])


@pytest.mark.parametrize("name", ["plain", "a?b"])
def test_a_locked_store_is_waited_for(name: str, tmp_path: Path) -> None:
    url = sqlalchemy.engine.make_url(sqlite_address(tmp_path / name))
    assert url.query["timeout"] == str(SQLITE_WAIT_S)


def test_a_relative_path_is_the_file_below_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sqlite_address(Path("mlflow.db")) == sqlite_address(tmp_path / "mlflow.db")


def test_conditions_find_what_is_meant(tmp_path: Path) -> None:
    """Names with either kind of quotes are found alone; with both, among what is like them."""
    store = open_store(TrackingConfig(), tmp_path)
    names = ("plain", "it's", 'say "a"', "100%", "a_b")
    for name in (*names, "both ' and \""):
        store.run("fieldshift", name, key=name).close("FINISHED")
    client = client_for(store.uri)
    experiment = client.get_experiment_by_name("fieldshift")
    assert experiment is not None

    def found(name: str) -> set[str]:
        condition = quoted_condition("tags.`mlflow.runName`", name)
        return {run.info.run_name for run in client.search_runs([experiment.experiment_id], condition)}

    for name in names:
        assert found(name) == {name}
    assert "both ' and \"" in found("both ' and \"")
