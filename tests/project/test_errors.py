"""Errors in one line: what a library says shortened to what a person needs, and lines that a terminal breaks well."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch

from fieldshift import cli
from fieldshift.console import complain
from fieldshift.errors import UserError, one_line, reason_of
from tests.terminal import in_pipe, in_terminal

REASONS = {
    "one sentence": (ValueError("The file ends early."), "The file ends early"),
    "advice after it": (ValueError("no map here. Pass weights_only=False to go on."), "no map here"),
    "several lines": (RuntimeError("shape\n   mismatch:\t3 and 4"), "shape mismatch: 3 and 4"),
    "a number": (ValueError("0.5 is not 1.5"), "0.5 is not 1.5"),
    "nothing": (KeyError(), "KeyError"),
    "blanks": (OSError("  "), "OSError"),
    "very long": (ValueError("x" * 500), "x" * 200),
}


@pytest.mark.parametrize("name", REASONS)
def test_a_reason_is_a_first_sentence(name: str) -> None:
    error, said = REASONS[name]
    assert reason_of(error) == said


class Thing:
    """What no file of tensors holds."""


def test_what_torch_refuses_to_unpickle_is_named_without_its_advice(tmp_path: Path) -> None:
    torch.save({"a": Thing()}, tmp_path / "thing.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Thing(), 2))
    for file, words in (
        ("thing.pt", f"it contains a {__name__}.Thing object, which is not a tensor"),
        ("plain.pt", None),
    ):
        with pytest.raises(pickle.UnpicklingError) as caught:
            torch.load(tmp_path / file, weights_only=True)
        said = reason_of(caught.value)
        assert said.startswith("it ")
        assert "weights_only" not in said
        assert words is None or said == words


def test_blanks_in_names_stay_in_the_line() -> None:
    assert one_line(UserError("'two  blanks.png'\n   cannot be read;\n\n mend it")) == (
        "'two  blanks.png' cannot be read; mend it"
    )


PATH = "/data/" + "/".join(f"folder{number}" for number in range(20)) + "/image.png"
BLANKS = f"/data/my pictures/{'a folder/' * 12}one image.png"


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_breaks_no_word_and_no_path(columns: int) -> None:
    line = (
        f"The file {PATH} isn't an image and '{BLANKS}' isn't either; give others, which a person can see, or leave it"
    )

    def work() -> int:
        complain(line)
        return 0

    seen = in_terminal(work, columns)
    assert " ".join(line.strip() for line in seen.sent.splitlines()) == f"fieldshift: {line}"
    rows = [row.strip() for row in seen.sent.splitlines()]
    assert PATH in rows  # alone, so that it can be pasted, and longer than the terminal
    assert any(f"'{BLANKS}'" in row for row in rows)
    assert all(len(row) <= columns for row in rows if PATH not in row and BLANKS not in row)
    assert in_pipe(work).lines == [f"fieldshift: {line}"]


def test_a_mistake_on_a_terminal_is_broken_between_words() -> None:
    words = ["train", "--data", f"folder:{PATH}"]
    seen = in_terminal(lambda: cli.main(words), 80)
    assert seen.status == 2
    rows = [row.strip() for row in seen.sent.splitlines()]
    assert len(rows) > 1
    assert any(PATH in row for row in rows)
    whole = in_pipe(lambda: cli.main(words)).lines
    assert whole == [" ".join(rows)]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space or give another path"),
        (errno.EACCES, "give another path"),
        (errno.EROFS, "give another path"),
        (errno.EEXIST, "give another path"),
    ],
)
def test_an_error_with_a_file_is_one_line_with_its_path(
    number: int, advice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(argv: list[str]) -> int:
        raise OSError(number, os.strerror(number), "/a folder/result.json")

    monkeypatch.setattr(cli, "dispatch", fail)
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err == (f"fieldshift: '/a folder/result.json': {os.strerror(number)}; {advice}.\n")


def test_an_error_of_the_system_without_a_file_is_none_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(argv: list[str]) -> int:
        raise OSError("something else")

    monkeypatch.setattr(cli, "dispatch", fail)
    with pytest.raises(OSError, match="something else"):
        cli.main(["train"])
