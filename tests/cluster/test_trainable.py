"""What Ray writes to disk or sends to other processes holds nothing of this one: no lock, no bar, no client."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from fieldshift.cluster import ClusterConfig, WorkerContext
from fieldshift.cluster.resources import Resources
from fieldshift.cluster.trainable import run_config, trainable_for, trial_listener

cloudpickle = pytest.importorskip("ray.cloudpickle")


def double(trial: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    return {"twice": 2 * trial["number"]}


def test_what_tune_writes_of_its_callbacks_holds_nothing_of_this_process(tmp_path: Path) -> None:
    lock, heard = threading.RLock(), []

    def hear(*arguments: object) -> None:
        with lock:
            heard.append(arguments)

    listener = trial_listener(lambda config: dict(config["trial"]), hear, hear)
    with pytest.raises(TypeError, match="cannot pickle"):
        cloudpickle.dumps(hear)
    written = cloudpickle.loads(
        cloudpickle.dumps(run_config("name", {"storage_path": str(tmp_path)}, listener, ClusterConfig()))
    )
    assert written.name == "name"
    (mute,) = written.callbacks
    mute.on_trial_result(1, [], None, {})
    assert heard == []


def test_what_runs_in_other_processes_is_sent_without_this_ones_callbacks(tmp_path: Path) -> None:
    sent = trainable_for(double, lambda config: dict(config), ClusterConfig(), Resources(2, 0), tmp_path)
    assert cloudpickle.loads(cloudpickle.dumps(sent)) is not None
