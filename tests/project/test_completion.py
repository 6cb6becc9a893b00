"""Shell completion, tried in bash: commands, options and names; file names are left to the shell."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from fieldshift.arguments import option_kinds
from fieldshift.cli import command_function, commands, main
from fieldshift.completion import SHELLS, names_of_options

TRIED = 'try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _fieldshift; echo "${COMPREPLY[@]}"; }'


@pytest.fixture
def written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["--completion", "bash"]) == 0
    script = tmp_path / "fieldshift"
    script.write_text(capsys.readouterr().out)
    return script


def completed(script: Path, *lines: str) -> list[list[str]]:
    tried = "\n".join(f"try {line}" for line in lines)
    done = subprocess.run(
        ["bash", "-c", f"source {shlex.quote(str(script))}\n{TRIED}\n{tried}"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    return [line.split() for line in done.stdout.splitlines()]


def test_commands_and_all_their_options_are_completed(written: Path) -> None:
    assert completed(written, "fieldshift ''")[0][: len(commands())] == [*commands()]
    lines = [f"fieldshift {command} --" for command in commands()]
    for command, found in zip(commands(), completed(written, *lines), strict=True):
        expected = {f"--{name}" for name in option_kinds(command_function(command))} - {"--search.frames"}
        assert set(found) == expected, command


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("fieldshift st", "study stop"),
        ("fieldshift train --recipe.label", "--recipe.label_smoothing"),
        ("fieldshift compare --arms none das-folded trivial", "trivialaugment"),
        ("fieldshift study --form = fo", "folded"),
        ("fieldshift study --data vo", "voc2012 voc:"),
        ("fieldshift train --data folder : pictures", ""),
        ("fieldshift train --out wherever", ""),
    ],
)
def test_names_are_completed_and_files_are_left_to_the_shell(written: Path, line: str, found: str) -> None:
    assert [sorted(words) for words in completed(written, line)] == [sorted(found.split())]


def test_every_option_with_names_is_an_option_of_a_command() -> None:
    known = {name for command in commands() for name in option_kinds(command_function(command))}
    assert {*names_of_options()} - known == {"completion"}


@pytest.mark.parametrize("words", [["--completion"], ["--completion", "tcsh"], ["--completion=tcsh"]])
def test_another_shell_is_refused_in_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"Known: {', '.join(SHELLS)}" in said
