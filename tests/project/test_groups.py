"""The suite itself: with several processes, what is made once for a file is made in one of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def process(testrun_uid: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of the suite see, with a file for each that runs tests of this file."""
    folder = tmp_path_factory.getbasetemp().parent / f"processes-{testrun_uid}"
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()
    return folder


@pytest.mark.parametrize("number", range(6))
def test_the_tests_of_a_file_stay_in_one_process(process: Path, number: int) -> None:
    assert [each.name for each in process.iterdir()] == [str(os.getpid())]
