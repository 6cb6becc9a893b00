"""Progress on a terminal and in a pipe: it ends at 100 %, in one line as wide as the terminal, and stays in its process."""

from __future__ import annotations

import copy
import pickle

import pytest

from fieldshift.console import duration, progress
from tests.terminal import PLACES


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (7.4, "0:07"), (151, "2:31"), (3849, "1:04:09")])
def test_durations_are_read_at_a_glance(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize("place", PLACES)
def test_a_bar_never_leaves_its_process(place: str) -> None:
    def work() -> int:
        with progress("work", 1) as bar:
            for take in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(TypeError, match="stays in the process that shows it"):
                    take(bar)
        return 0

    assert PLACES[place](work).status == 0
