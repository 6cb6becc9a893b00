"""Where runs may be tracked; a password is never taken in an address, since addresses are written into files."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldshift.cli import main
from fieldshift.errors import UserError
from fieldshift.tracking import TrackingConfig

SECRET = "hunter2"


@pytest.mark.parametrize(
    "uri",
    [
        f"http://me:{SECRET}@host:5000",
        f"https://:{SECRET}@host",
        f"postgresql+psycopg://me:{SECRET}@host/mlflow",
        f"postgresql://host/mlflow?user=me&password={SECRET}",
        f"mysql+pymysql://me:{SECRET}@[::1]:3306/mlflow",
    ],
)
def test_an_address_with_a_password_is_refused_without_repeating_it(
    uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="holds a password") as caught:
        TrackingConfig(uri=uri)
    assert SECRET not in str(caught.value)
    for words in (
        ["search", "--tracking.uri", uri],
        ["sync", str(Path(__file__).parent), "--uri", uri],
        ["ui", "--run", uri],
        ["submit", "--address", "http://127.0.0.1:1", "--", "study", f"--tracking.uri={uri}"],
        ["submit", "--address", "http://127.0.0.1:1", "--", "study", "--tracking.uri", uri],
    ):
        assert main(words) == 2
        printed = capsys.readouterr()
        assert "holds a password" in printed.err
        assert SECRET not in printed.err + printed.out


@pytest.mark.parametrize(
    "words",
    [["results", "--run", "mine"], ["ui", "--run"], ["compare-fields", "--runs", "ab" * 16, "cd" * 16]],
)
def test_whoever_reads_a_store_that_is_down_is_told_so_in_one_line_without_a_password(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = "http://127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert main([*words, address] if words[-1] == "--run" else words) == 2
    assert f"The tracking store {address} does not answer" in (said := capsys.readouterr().err)
    assert said.count("\n") == 1
    if words[0] != "ui":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@host")
        assert main(words) == 2
        assert SECRET not in (said := capsys.readouterr().err)
        assert said.count("\n") == 1


@pytest.mark.parametrize(
    "uri", ["http://[::1", "https://host:99999", "http://", "http:///path", "postgresql://[::1/mlflow"]
)
def test_a_malformed_address_is_refused_in_one_line(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^tracking.uri is '") as caught:
        TrackingConfig(uri=uri)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match=r"^MLFLOW_TRACKING_URI is '"):
        _ = TrackingConfig().address


@pytest.mark.parametrize(
    "uri", ["http://host:5000", "http://me@host", "postgresql://me@host/mlflow", "sqlite:////a/b@c.db"]
)
def test_an_address_without_one_is_taken(uri: str) -> None:
    assert TrackingConfig(uri=uri).uri == uri
