"""A reader that goes away, such as `head -1`, ends no command and turns no finished run into a failed one."""

from __future__ import annotations

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
