"""A store in PostgreSQL with its artifacts in a folder; the server is Debian's or that on the path, started for these tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fieldshift.errors import UserError
from fieldshift.ports import free_port
from fieldshift.tracking import TrackingConfig, open_store, replay
from fieldshift.tracking.spool import Spool
from fieldshift.tracking.store import check_store, client_for

ON_PATH = Path(shutil.which("initdb") or "/usr/bin/initdb").resolve().parent
PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=ON_PATH, key=lambda path: float(path.parent.name))
PASSWORD = "a word for these tests"

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        not (PROGRAMS / "initdb").exists(), reason="PostgreSQL is not installed (apt-get install postgresql)"
    ),
]


@dataclass
class Server:
    """A PostgreSQL server with the empty databases `mlflow` and `later`."""

    data: Path
    port: int

    def __post_init__(self) -> None:
        self.uri = f"postgresql://mlflow@127.0.0.1:{self.port}/mlflow"

    def run(self, program: str, *words: str) -> None:
        """Runs one of PostgreSQL's programs; as the user nobody where this is root, whom it refuses."""
        account = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        command = [str(PROGRAMS / program), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **account)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.data} -c fsync=off"
        self.run("pg_ctl", "-D", str(self.data / "db"), "-l", str(self.data / "log"), "-w", "-o", options, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.data / "db"), "-w", "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    port = free_port()
    data = Path(tempfile.mkdtemp(prefix="fs-pg-", dir="/tmp"))  # sockets need a short path
    word = data / "password"
    word.write_text(PASSWORD)
    if os.geteuid() == 0:
        for path in (data, word):
            shutil.chown(path, "nobody", "nogroup")
    found = Server(data, port)
    try:
        arguments = ("-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={word}", "-D", str(data / "db"))
        found.run("initdb", *arguments)
        found.start()
        environment = os.environ | {"PGPASSWORD": PASSWORD}
        for name in ("mlflow", "later"):
            command = [str(PROGRAMS / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", name]
            subprocess.run(command, env=environment, check=True)
        yield found
    finally:
        if (data / "db/postmaster.pid").exists():
            found.stop()
        shutil.rmtree(data)


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)


def test_runs_metrics_and_artifacts_come_back(server: Server, password: None, tmp_path: Path) -> None:
    where = tmp_path / "shared artifacts"
    store = open_store(TrackingConfig(uri=server.uri, artifacts=str(where)), tmp_path / "run")
    parent = store.run("digits", "study", key="s")
    child = store.run("digits", "das", key="c", parent_id=parent.id, tags={"arm": "das"})
    for step in range(3):
        child.log_metrics({"train/loss": 1.0 / (step + 1)}, step=step)
    child.log_image("field/map", np.zeros((4, 5, 3), np.uint8))
    (tmp_path / "result.json").write_text("{}")
    parent.log_artifact(tmp_path / "result.json")
    for run in (child, parent):
        run.close("FINISHED")
    client = client_for(server.uri)
    assert [point.value for point in client.get_metric_history(child.id, "train/loss")] == [1.0, 0.5, 1.0 / 3]
    assert client.get_run(child.id).data.tags["arm"] == "das"
    assert Path(client.download_artifacts(parent.id, "result.json")).read_text() == "{}"
    assert list(where.rglob("result.json"))
    again = open_store(TrackingConfig(uri=server.uri), tmp_path / "run").run("digits", "study", key="s")
    assert again.id == parent.id


def test_artifacts_lie_beside_the_run_unless_told(server: Server, password: None, tmp_path: Path) -> None:
    run = open_store(TrackingConfig(uri=server.uri), tmp_path / "runs/one").run("beside", "study", key="b")
    (tmp_path / "note.txt").write_text("here")
    run.log_artifact(tmp_path / "note.txt")
    run.close()
    assert [path.read_text() for path in (tmp_path / "runs/mlflow-artifacts").rglob("note.txt")] == ["here"]


def test_the_variable_names_the_store(
    server: Server, password: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert open_store(TrackingConfig(), tmp_path / "run").uri == server.uri
    own = f"sqlite:///{tmp_path}/own.db"
    assert open_store(TrackingConfig(uri=own), tmp_path / "run").uri == own
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI is './mlruns', but must start with .*unset it"):
        check_store(TrackingConfig())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:word@host")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI holds a password"):
        check_store(TrackingConfig())


@pytest.mark.parametrize(
    ("user", "database", "word", "reason"),
    [
        ("mlflow", "mlflow", "another word", "refused the log-in"),
        ("mlflow", "nowhere", PASSWORD, "cannot be opened .*nowhere"),
        ("nobody_here", "mlflow", PASSWORD, "refused the log-in"),
    ],
)
def test_what_a_person_has_to_mend_is_told_before_any_work(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: str, database: str, word: str, reason: str
) -> None:
    monkeypatch.setenv("PGPASSWORD", word)
    with pytest.raises(UserError, match=reason) as error:
        check_store(
            TrackingConfig(uri=f"postgresql://{user}@127.0.0.1:{server.port}/{database}?application_name=mistaken")
        )
    assert word not in str(error.value)
    assert "\n" not in str(error.value)


def test_what_a_stopped_server_missed_is_sent_once(server: Server, password: None, tmp_path: Path) -> None:
    uri = f"{server.uri.removesuffix('mlflow')}later"
    run = open_store(TrackingConfig(uri=uri), tmp_path / "run").run("later", "train", key="t")
    run.log_metrics({"train/loss": 1.0}, step=0)
    server.stop()
    run.log_metrics({"train/loss": 0.5}, step=1)
    run.close()
    assert Spool(tmp_path / "run").waiting() == 2
    server.start()
    assert replay(tmp_path / "run") == 2
    client = client_for(uri)
    assert [point.value for point in client.get_metric_history(run.id, "train/loss")] == [1.0, 0.5]
    assert client.get_run(run.id).info.status == "FINISHED"
