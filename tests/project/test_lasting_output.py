"""A reader that goes away, such as `head -1`, or a stream that is closed ends no command and fails no finished run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

WRITER = """
import sys
from pathlib import Path
from fieldshift.console import lasting_output, say
with lasting_output():
    for number in range(20000):
        say(f"line {number}")
    Path(sys.argv[1]).write_text("done")
"""


def test_what_is_written_after_the_reader_went_away_is_dropped(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "end")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        assert writer.stdout.readline() == "line 0\n"
        writer.stdout.close()
        errors = writer.stderr.read()
        assert writer.wait(60) == 0
    assert errors == ""
    assert (tmp_path / "end").read_text() == "done"


def test_the_stream_is_the_one_before_after_the_block(capsys: pytest.CaptureFixture[str]) -> None:
    from fieldshift.console import lasting_output, say

    before = sys.stdout
    with lasting_output():
        say("within")
    assert sys.stdout is before
    assert capsys.readouterr().out == "within\n"


TRAIN = (
    "train", "--loading.train_limit", "16", "--loading.test_limit", "16", "--recipe.epochs", "1", "--recipe.batch", "8",
    "--tracking.enabled", "false", "--out", "run",
)  # fmt: skip


def with_closed(streams: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a shell that closes some of its streams, such as ">&-"."""
    command = ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "fieldshift.cli", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


def test_a_training_with_closed_streams_has_its_result_and_writes_nowhere_else(tmp_path: Path) -> None:
    found = {}
    for number, streams in enumerate(("", ">&-", "<&- >&- 2>&-")):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = with_closed(streams, folder, *TRAIN)
        assert (done.returncode, done.stderr) == (0, "")
        assert bool(done.stdout) == (not streams)
        found[streams] = json.loads((folder / "run" / "result.json").read_text())
        assert sorted(path.name for path in folder.iterdir()) == ["run"]
    losses = {result["row"]["loss"] for result in found.values()}
    assert len(losses) == 1, losses


@pytest.mark.parametrize("streams", ["2>&-", ">&-", ">&- 2>&-", "<&- 2>&-"])
def test_the_status_is_the_same_with_closed_streams(streams: str, tmp_path: Path) -> None:
    done = with_closed(streams, tmp_path, "train", "--recipe.flip", "2")
    assert done.returncode == 2
    said = "fieldshift: recipe.flip is 2.0, but a probability must be from 0 to 1.\n"
    assert done.stderr == ("" if "2>&-" in streams else said)
    assert with_closed(streams, tmp_path, "--version").returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_lines_for_a_stream_that_python_does_not_have_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Python, too, where a program without standard streams calls a function of `pipelines`."""
    from fieldshift import console

    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with console.lasting_output():
        console.say("a line")
        console.complain("another")
        console.table(["column"], [["cell"]])
        with console.progress("work", 1) as bar:
            bar.advance()
    assert bar.done == 1
