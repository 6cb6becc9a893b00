"""Random command lines end with 0, or with 2 and one line, and leave nothing; `python -m tests.command_lines` runs 5,000."""

from __future__ import annotations

import pytest

from fieldshift.cli import commands
from tests.command_lines import WORK, Ending, endings

COUNT = 200


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Ending], list[str]]:
    return endings(1, COUNT, tmp_path_factory.mktemp("command lines"))


def test_every_random_command_line_ends_with_0_or_with_2_and_one_line(ended: tuple[list[Ending], list[str]]) -> None:
    found, made = ended
    assert len(found) == COUNT
    assert [(ending.words, ending.status, ending.said, ending.trace) for ending in found if not ending.is_right] == []
    assert made == []


def test_they_are_of_every_command_and_some_pass_every_check(ended: tuple[list[Ending], list[str]]) -> None:
    found, _ = ended
    assert {ending.words[0] for ending in found} >= set(commands())
    assert any(WORK in ending.said for ending in found)
    assert {ending.status for ending in found} == {0, 2}
