"""What a person has to mend ends a command at once, in one line; what passes with time does not."""

from __future__ import annotations

import errno
import http.client
import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fieldshift.errors import UserError
from fieldshift.tracking import TrackingConfig, open_store
from fieldshift.tracking.refusals import failure, is_refused
from fieldshift.tracking.spool import Spool
from fieldshift.tracking.store import Store, check_store

pytestmark = pytest.mark.filterwarnings("ignore")


INVALID_HOST = "403-Invalid-Host-header-possible-DNS-rebinding-attack-detected"
"""The answer of MLflow's server to a host name that it does not allow."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (sqlite3.OperationalError("(sqlite3.OperationalError) database or disk is full [SQL: INSERT INTO"), "no space left"),
        (OSError(errno.ENOSPC, "No space left on device", "artifacts/x.png"), "has no space left on its disk"),
        (PermissionError(errno.EACCES, "Permission denied", "artifacts/x.png"), "takes no files ("),
        (sqlite3.OperationalError("database is locked [SQL: INSERT INTO params] [parameters: ()]"),
         "does not answer (database is locked)"),
    ],
)  # fmt: skip
def test_the_failure_of_a_store_in_words(error: Exception, words: str) -> None:
    assert words in failure(error)
    assert "SQL:" not in failure(error)


class Answers(BaseHTTPRequestHandler):
    """A server that is no MLflow: answers with the status that the path names, and the words after it."""

    def answer(self) -> None:
        status, _, words = self.path.split("/")[1].partition("-")
        body = words.replace("-", " ") or "no"
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    served = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("401", "refused the log-in: set MLFLOW_TRACKING_USERNAME"),
        ("403", "does not permit this: ask for the right"),
        (INVALID_HOST, "refuses the host name of its address: start it with --allowed-hosts"),
        ("404", "is not an MLflow server"),
        ("501", "is not an MLflow server"),
        ("200", "is not an MLflow server"),
    ],
)
def test_a_server_that_will_never_take_it_ends_the_command(server: str, path: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_store(TrackingConfig(uri=f"{server}/{path}"))


def test_a_right_that_is_missing_is_told_with_the_first_run_and_never_waited_for(server: str, tmp_path: Path) -> None:
    store = Store(uri=f"{server}/403", folder=tmp_path)
    with pytest.raises(UserError, match="does not permit this"):
        store.run("experiment", "run", key="run")
    assert not (tmp_path / "tracking-spool").exists()
    store.run("experiment", "part", key="part", parent_id="parent").close()  # a right that ends later ends no training
    assert Spool(tmp_path).waiting() == 2


def caused_by(*causes: Exception) -> Exception:
    """An error as MLflow raises it from others."""
    error = last = RuntimeError("500")
    for each in causes:
        last.__cause__ = last = each
    return error


def while_handling(handled: Exception) -> Exception:
    """An error of a store while another one, not of the store, is handled."""
    error = RuntimeError("500")
    error.__context__ = handled
    return error


UNREADABLE = http.client.IncompleteRead(b"")


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed"), True),
        (ValueError("a string with a zero byte"), True),
        (TypeError("not JSON"), True),
        (OverflowError("too large to convert to SQLite INTEGER"), True),
        (caused_by(ValueError("a string with a zero byte")), True),
        (caused_by(ConnectionError("refused")), False),
        (caused_by(UNREADABLE, ValueError("no length of a chunk")), False),
        (json.JSONDecodeError("a page of a proxy", "<html>", 0), False),
        (caused_by(UserError("no space"), OSError("no space")), False),
        (while_handling(UserError("a mistake")), False),
    ],
)
def test_an_error_of_the_message_itself_refuses_it_and_one_of_the_connection_does_not(
    error: Exception, refused: bool
) -> None:
    assert is_refused(error) == refused


def test_a_folder_for_artifacts_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    check_store(TrackingConfig(artifacts=str(tmp_path / "new" / "place")))
    with pytest.raises(UserError, match=r"tracking.artifacts is '\S+', but \S+file is a file; give a folder"):
        check_store(TrackingConfig(artifacts=str(file / "place")))
    monkeypatch.setattr("os.access", lambda path, _how: Path(path) != tmp_path)  # tests may run as root
    with pytest.raises(UserError, match="is not writable"):
        check_store(TrackingConfig(artifacts=str(tmp_path / "place")))


@pytest.mark.parametrize(
    ("given", "locked", "said"),
    [
        ("file/store.db", "", "file is a file"),
        ("folder", "", "folder is a folder"),
        ("folder/store.db", "folder", "folder is not writable"),
        ("folder/new/store.db", "folder", "folder is not writable"),
        ("file", "file", "file is not writable"),
    ],
)
def test_a_database_that_cannot_be_written_is_named_before_mlflow_tries_it_for_minutes(
    given: str, locked: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr("os.access", lambda path, _how: not locked or Path(path) != tmp_path / locked)
    monkeypatch.setattr("fieldshift.tracking.store.client_for", lambda _uri: pytest.fail("MLflow was asked"))
    with pytest.raises(UserError, match=rf"cannot be written \({tmp_path / said}\); give a file that can"):
        check_store(TrackingConfig(uri=f"sqlite:///{tmp_path}/{given}"))


def test_a_driver_that_is_missing_is_named() -> None:
    with pytest.raises(UserError, match=r"needs the package \w+, which is not installed: pip install \w+"):
        check_store(TrackingConfig(uri="mssql://127.0.0.1/x"))


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "http://nowhere.invalid"])
def test_a_server_that_does_not_answer_ends_nothing(uri: str) -> None:
    check_store(TrackingConfig(uri=uri))


def test_a_database_of_another_version_or_of_something_else_is_refused(tmp_path: Path) -> None:
    open_store(TrackingConfig(), tmp_path / "run")
    foreign, junk = tmp_path / "foreign.db", tmp_path / "junk.db"
    shutil.copyfile(tmp_path / "run" / "mlflow.db", foreign)
    with sqlite3.connect(foreign) as opened:
        opened.execute("UPDATE alembic_version SET version_num = 'abcdef012345'")
    opened.close()
    junk.write_text("something else" * 1000)
    for file, said in ((foreign, "schema of another version"), (junk, "file is not a database")):
        with pytest.raises(UserError, match=said):
            check_store(TrackingConfig(uri=f"sqlite:///{file}"))
    (tmp_path / "later").mkdir()
    shutil.copyfile(foreign, tmp_path / "later" / "mlflow.db")
    with pytest.raises(UserError, match="schema of another version"):
        open_store(TrackingConfig(), tmp_path / "later")
