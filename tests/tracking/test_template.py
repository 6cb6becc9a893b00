"""A store's database is MLflow's own, whether MLflow made it or it was copied, and a damaged copy is made anew."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fieldshift.tracking import TrackingConfig, open_store
from fieldshift.tracking.template import copy_template, keep_template, template_file

pytestmark = pytest.mark.filterwarnings("ignore")


def content(database: Path) -> dict[str, Any]:
    """The whole schema, and every row of every table but for when the first experiment was made.

    MLflow's migrations write the constraints of a table in an order that changes from one database to the next.
    """
    with contextlib.closing(sqlite3.connect(database)) as opened:
        made = opened.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
        names = [name for kind, name, _ in made if kind == "table"]
        schema = [(kind, name, sorted(re.split(r"[,()\s]+", sql or ""))) for kind, name, sql in made]
        rows = {name: opened.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    rows["experiments"] = [[value for value in row if not isinstance(value, int)] for row in rows["experiments"]]
    return {"schema": schema, **rows}


def test_a_copied_database_is_the_one_that_mlflow_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSHIFT_CACHE", str(tmp_path / "cache"))
    for name in ("made", "copied", "after damage"):
        if name == "after damage":
            template_file().write_bytes(template_file().read_bytes()[:5000])
        run = open_store(TrackingConfig(), tmp_path / name).run("e", name, key=name)
        run.log_metrics({"x": 1.0})
        run.close("FINISHED")
        assert template_file().exists()
    databases = [tmp_path / name / "mlflow.db" for name in ("made", "copied", "after damage")]
    left = {path.name for path in (tmp_path / "copied").iterdir()} - {"mlflow.db.lock"}  # which some filelocks remove
    assert left == {"mlflow.db"}
    first, *others = (content(path) for path in databases)
    assert first["schema"] == others[0]["schema"] == others[1]["schema"]
    for table, rows in first.items():
        assert len(rows) == len(others[0][table]) == len(others[1][table]), table
    with contextlib.closing(sqlite3.connect(template_file())) as template:
        assert template.execute("SELECT count(*) FROM experiments").fetchone() == (0,)
        assert template.execute("SELECT count(*) FROM runs").fetchone() == (0,)


@pytest.mark.parametrize("damaged", [b"", b"SQLite format 3\0", b"no database at all" * 100])
def test_a_damaged_template_is_not_copied(damaged: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSHIFT_CACHE", str(tmp_path))
    template_file().write_bytes(damaged)
    assert not copy_template(tmp_path / "new.db")
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_there_is_left_alone(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    database.write_bytes(b"mine")
    assert not copy_template(database)
    assert database.read_bytes() == b"mine"


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FIELDSHIFT_CACHE", str(tmp_path / "file" / "cache"))
    sqlite3.connect(tmp_path / "own.db").close()
    keep_template(tmp_path / "own.db")
    assert not copy_template(tmp_path / "new.db")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "own.db"}


def test_a_template_is_of_one_version_of_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = template_file()
    monkeypatch.setattr("fieldshift.tracking.template.version", lambda _package: "99.0")
    assert template_file() != ours
