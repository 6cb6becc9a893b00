"""A search in this process: Optuna proposes and ends what does badly, and an earlier search is taken up."""

from pathlib import Path
from typing import Any

import pytest

from fieldshift.cluster import ClusterConfig, Tuning, WorkerContext, tune_trials
from fieldshift.errors import UserError

tune = pytest.importorskip("ray.tune")

HERE = ClusterConfig(trials_at_once=0, gpus_per_worker=0)


def climb(trial: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    """Best at x = 3; every epoch adds the same, so the order of samples never changes."""
    for epoch in range(9):
        context.report({"score": epoch - (trial["x"] - 3) ** 2 + (trial["kind"] == "good")})
    return {"epochs": epoch + 1, "network": trial["network"]}


def go(storage: Path, samples: int, **options: Any) -> Tuning:
    return tune_trials(
        climb,
        {"x": tune.randint(-10, 11), "kind": tune.choice(["good", "bad"])},
        **{"metric": "score", "samples": samples, "reports": 9, "cluster": HERE, "name": "tune", "storage": storage}
        | {"fixed": {"network": "tiny", "size": (8, 8)}}
        | options,
    )


def test_the_best_sample_is_the_one_with_the_best_metric(tmp_path: Path) -> None:
    tuning = go(tmp_path, 15)
    assert len(tuning.results) == 15
    assert tuning.best is not None
    assert tuning.best.metrics["score"] == max(result.metrics["score"] for result in tuning.results)
    assert tuning.best.value == {"epochs": 9, "network": "tiny"}
    assert all(-10 <= result.trial["x"] <= 10 for result in tuning.results)


def test_bad_samples_end_early_and_good_ones_do_not(tmp_path: Path) -> None:
    reports: list[str] = []
    results = go(tmp_path, 15, on_report=lambda trial, _: reports.append(trial["key"])).results
    stopped = [result for result in results if result.stopped]
    assert stopped
    assert all(result.value is None for result in stopped)
    assert [reports.count(result.key) < 9 for result in results] == [result.stopped for result in results]
    assert min(-result.metrics["score"] for result in stopped) > min(-result.metrics["score"] for result in results)


def test_the_same_seed_proposes_the_same(tmp_path: Path) -> None:
    first, second, other = (go(tmp_path / str(n), 6, seed=seed) for n, seed in enumerate((1, 1, 2)))
    assert [result.trial for result in first.results] == [result.trial for result in second.results]
    assert [result.trial for result in first.results] != [result.trial for result in other.results]


def test_a_search_goes_on_where_it_ended(tmp_path: Path) -> None:
    first = go(tmp_path, 4)
    told: list[str] = []
    second = go(tmp_path, 7, resume=True, on_done=lambda result: told.append(result.key))
    assert told == [result.key for result in second.results]  # the caller may not have heard of the stored ones
    asked = [{**result.trial, "size": [8, 8]} for result in first.results]  # JSON has lists
    assert [result.trial for result in second.results[:4]] == asked
    assert [result.kept for result in second.results] == [True] * 4 + [False] * 3
    assert len({result.key for result in second.results}) == 7


def test_more_samples_than_asked_for_are_no_work(tmp_path: Path) -> None:
    go(tmp_path, 3)
    assert all(result.kept for result in go(tmp_path, 2, resume=True).results)


def test_another_search_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    go(tmp_path, 2)
    with pytest.raises(UserError, match="belongs to another search"):
        go(tmp_path, 3, resume=True, fixed={"network": "other"})


def test_a_space_that_cannot_be_tuned_is_refused(tmp_path: Path) -> None:
    options = {"metric": "score", "samples": 2, "reports": 9, "cluster": HERE, "name": "tune", "storage": tmp_path}
    with pytest.raises(UserError, match="cannot be tuned"):
        tune_trials(climb, {"x": tune.grid_search([1, 2])}, **options)
    with pytest.raises(UserError, match="x of the space is not a Ray Tune domain"):
        tune_trials(climb, {"x": 3, "y": tune.uniform(0, 1)}, **options)
    with pytest.raises(UserError, match="0 samples"):
        tune_trials(climb, {"x": tune.uniform(0, 1)}, **options | {"samples": 0})


def test_failing_samples_are_collected(tmp_path: Path) -> None:
    def fails(_trial: dict[str, Any], _context: WorkerContext) -> dict[str, Any]:
        raise UserError("no data")

    options = {"metric": "score", "samples": 2, "reports": 9, "cluster": HERE, "name": "tune", "storage": tmp_path}
    tuning = tune_trials(fails, {"x": tune.uniform(0, 1)}, **options)
    assert tuning.best is None
    assert [result.error for result in tuning.results] == ["no data", "no data"]
