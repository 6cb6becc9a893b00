"""Workers and trials in this process: the same functions as on a cluster, without Ray."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from fieldshift.cluster import ClusterConfig, TrialResult, WorkerContext, run_trials, run_workers
from fieldshift.errors import UserError

HERE = ClusterConfig(workers=0, trials_at_once=0)


def square(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    for step in range(3):
        context.report({"step": step})
    if payload.get("fails"):
        raise ValueError("no root")
    return {"value": payload["number"] ** 2, "rank": context.rank, "world": context.world}


def trials(*numbers: int, **more: Any) -> list[dict[str, Any]]:
    return [{"key": f"n{number}", "number": number, **more} for number in numbers]


def test_no_workers_runs_the_function_here_and_hears_its_reports(tmp_path: Path) -> None:
    heard: list[dict[str, float]] = []
    found = run_workers(
        square,
        {"number": 7},
        cluster=HERE,
        name="here",
        storage=tmp_path,
        on_report=lambda metrics: heard.append(metrics),
    )
    assert found == {"value": 49, "rank": 0, "world": 1}
    assert [metrics["step"] for metrics in heard] == [0, 1, 2]


def test_reports_hold_plain_numbers_only() -> None:
    import torch

    with pytest.raises(TypeError, match="'loss' is a Tensor"):
        WorkerContext().report({"loss": torch.tensor(1.0)})  # type: ignore[dict-item]
    WorkerContext().report({"loss": math.nan})


def test_results_come_in_the_order_of_the_trials_and_errors_are_collected(tmp_path: Path) -> None:
    asked = [*trials(3), {"key": "bad", "number": 0, "fails": True}, *trials(2)]
    done: list[TrialResult] = []
    results = run_trials(square, asked, cluster=HERE, name="t", storage=tmp_path, on_done=done.append)
    assert [result.key for result in results] == ["n3", "bad", "n2"]
    assert [result.value and result.value["value"] for result in results] == [9, None, 4]
    assert "no root" in str(results[1].error)
    assert len(done) == 3


def test_finished_trials_are_kept_and_failed_ones_run_again(tmp_path: Path) -> None:
    ran: list[int] = []

    def remembering(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
        ran.append(payload["number"])
        if payload["number"] == 5 and ran.count(5) == 1:
            raise ValueError("first time")
        return {"value": payload["number"]}

    first = run_trials(remembering, trials(4, 5), cluster=HERE, name="t", storage=tmp_path)
    assert [result.value is None for result in first] == [False, True]
    again = run_trials(remembering, trials(4, 5, 6), cluster=HERE, name="t", storage=tmp_path, resume=True)
    assert [result.value for result in again] == [{"value": 4}, {"value": 5}, {"value": 6}]
    assert ran == [4, 5, 5, 6]


def test_a_kept_trial_of_another_configuration_is_refused(tmp_path: Path) -> None:
    run_trials(square, trials(4), cluster=HERE, name="t", storage=tmp_path)
    with pytest.raises(UserError, match="another configuration"):
        run_trials(square, trials(4, extra=1), cluster=HERE, name="t", storage=tmp_path, resume=True)


@pytest.mark.parametrize("keys", [["a", "a"], [""], ["a b"], ["../a"]])
def test_keys_name_files_and_are_unique(tmp_path: Path, keys: list[str]) -> None:
    with pytest.raises(ValueError, match="[Kk]ey"):
        run_trials(square, [{"key": key, "number": 1} for key in keys], cluster=HERE, name="t", storage=tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"workers": -1},
        {"cpus_per_worker": 0},
        {"gpus_per_worker": 2.0},
        {"trials_at_once": -1},
        {"start_timeout_s": 0.0},
        {"address": "http://127.0.0.1:8265"},
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        ClusterConfig(**settings)
    assert "\n" not in str(caught.value)
    assert next(iter(settings)) in str(caught.value)
