"""Estimates of how long a study takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.estimating import Workload, roughly

WORK = Workload(
    arms=["none", "das", "das-folded"], seeds=2, searches=2, frames=3, epochs=6, search_epochs=4,
    counts={"video": [1, 3, 5], "folded": [3, 5, 7]},
)  # fmt: skip


def test_passes_are_counted_in_videos() -> None:
    """By hand, in passes of a video network over all images, for 120 images at 60 videos per second."""
    none = folded = 6 * (1 + 1 / 3)  # at equal compute, and at equal epochs
    das, swept = 6 * 1, 6 * (1 + 5) / 3 + 2 * 6
    searched = 2 * 2 * 4 * (1 + 1 / 3)  # seeds, halves, passes, the video and the folded form
    assert WORK.seconds(120, 60.0) == pytest.approx(2.0 * (2 * (none + das + folded) + swept + searched))


def test_trials_side_by_side_take_less() -> None:
    assert replace(WORK, trials_at_once=2).seconds(120, 60.0) == pytest.approx(WORK.seconds(120, 60.0) / 2)


@pytest.mark.parametrize(
    ("seconds", "words"), [(1.0, "a minute"), (100.0, "2 minutes"), (5400.0, "90 minutes"), (9000.0, "2.5 hours")]
)
def test_durations_are_rough(seconds: float, words: str) -> None:
    assert roughly(seconds) == words
