"""What Ray writes to disk or sends to other processes holds nothing of this one: no lock, no bar, no client."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fieldshift.cluster import ClusterConfig, WorkerContext
from fieldshift.cluster.resources import Resources
from fieldshift.cluster.trainable import fit_quietly, run_config, trainable_for, trial_listener

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


@pytest.mark.parametrize(("trials", "is_raised"), [(1, False), (2, True)], ids=["all ended", "one is left"])
def test_an_error_of_tune_counts_only_before_all_trials_have_ended(trials: int, is_raised: bool) -> None:
    """After them Tune makes a summary; before, it may be the search's database or the cluster."""
    told: list[str] = []
    listener = trial_listener(lambda config: dict(config), None, lambda result: told.append(result.key))

    def fit() -> None:
        listener.on_trial_complete(0, [], SimpleNamespace(trial_id="a", config={"key": "one"}))
        listener.on_experiment_end([])  # Tune calls this after an error in the middle, too
        raise EOFError("Ran out of input")

    raised = pytest.raises(EOFError, match="Ran out of input")
    with raised if is_raised else nullcontext():
        fit_quietly(SimpleNamespace(fit=fit), listener, told, trials)
    assert told == ["one"]


def test_an_error_of_the_caller_is_raised_as_it_is() -> None:
    def refuse(_result: object) -> None:
        raise KeyError("mine")

    listener = trial_listener(lambda config: dict(config), None, refuse)

    def fit() -> None:
        try:
            listener.on_trial_complete(0, [], SimpleNamespace(trial_id="a", config={"key": "one"}))
        except KeyError:
            raise RuntimeError("Tune's own") from None

    with pytest.raises(KeyError, match="mine"):
        fit_quietly(SimpleNamespace(fit=fit), listener, (), 1)
