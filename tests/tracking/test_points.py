"""A run that is opened again loses no point and doubles none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fieldshift.tracking import Run, Store, TrackingConfig, open_store
from fieldshift.tracking.store import client_for

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(TrackingConfig(), tmp_path)


def points(store: Store, run: Run, name: str) -> list[Any]:
    history = client_for(store.uri).get_metric_history(run.id, name)
    return sorted((point.step, point.value) for point in history)


def test_epochs_that_are_reported_again_add_nothing_and_lost_ones_are_filled_in(store: Store) -> None:
    run = store.run("e", "das", key="das")
    for step in (1, 3):
        run.log_metrics({"train/loss": 1 / step}, step)
    again = store.run("e", "das", key="das")
    for step in (1, 2, 3, 4):
        again.log_metrics({"train/loss": 2 / step, "train/accuracy": 0.5}, step)
    assert points(store, run, "train/loss") == [(1, 1.0), (2, 1.0), (3, 1 / 3), (4, 0.5)]
    assert points(store, run, "train/accuracy") == [(step, 0.5) for step in (1, 2, 3, 4)]


def test_a_number_without_a_course_is_sent_again_only_where_it_changed(store: Store) -> None:
    for value in (0.5, 0.5, 0.75):
        run = store.run("e", "arm", key="arm")
        run.log_metrics({"accuracy/mean": value})
        run.log_metrics({"accuracy/mean": value})
    assert points(store, run, "accuracy/mean") == [(0, 0.5), (0, 0.75)]
    assert client_for(store.uri).get_run(run.id).data.metrics == {"accuracy/mean": 0.75}
