"""Trials one after another: order, errors, and taking up where an earlier run ended."""

import json
from pathlib import Path
from typing import Any

import pytest

from fieldshift.cluster import ClusterConfig, TrialResult, WorkerContext, run_trials
from fieldshift.cluster.trials import agrees
from fieldshift.errors import UserError

HERE = ClusterConfig(trials_at_once=0, gpus_per_worker=0)
TRIALS = [{"key": f"arm-{arm}=T{frames}", "arm": arm, "frames": frames} for arm in "ab" for frames in (1, 5)]


def train(trial: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    if trial.get("fails") == "user":
        raise UserError("frames is 0, but must be 1 or more.")
    if trial.get("fails"):
        raise RuntimeError("loss is\nnot finite")
    context.report({"epoch": 1, "loss": 0.5})
    context.report({"epoch": 2, "loss": 0.25})
    return {"score": trial["frames"] / 10, "curve": [0.5, 0.25]}


def go(trials: list[dict[str, Any]], storage: Path, **options: Any) -> list[TrialResult]:
    return run_trials(train, trials, cluster=HERE, name="compare", storage=storage, **options)


def test_results_come_in_the_order_of_the_trials(tmp_path: Path) -> None:
    reports: list[tuple[str, float]] = []
    ended: list[str] = []
    results = go(
        TRIALS,
        tmp_path,
        on_report=lambda trial, metrics: reports.append((trial["key"], metrics["loss"])),
        on_done=lambda result: ended.append(result.key),
    )
    keys = [trial["key"] for trial in TRIALS]
    assert [result.key for result in results] == ended == keys
    assert reports == [(key, loss) for key in keys for loss in (0.5, 0.25)]
    assert [result.value for result in results] == [{"score": t["frames"] / 10, "curve": [0.5, 0.25]} for t in TRIALS]
    assert all(result.metrics == {"epoch": 2.0, "loss": 0.25} and not result.stopped for result in results)


def test_one_failing_trial_does_not_end_the_others(tmp_path: Path) -> None:
    trials = [{**TRIALS[0], "fails": "user"}, {**TRIALS[1], "fails": "else"}, TRIALS[2]]
    results = go(trials, tmp_path)
    assert [result.error for result in results] == [
        "frames is 0, but must be 1 or more.",
        "RuntimeError: loss is not finite",
        None,
    ]
    assert [file.name for file in (tmp_path / "trials").iterdir()] == [f"{TRIALS[2]['key']}.json"]


def test_finished_trials_are_not_run_again(tmp_path: Path) -> None:
    first = go(TRIALS[:2], tmp_path)
    reports: list[str] = []
    ended: list[tuple[str, bool]] = []
    second = go(
        TRIALS,
        tmp_path,
        resume=True,
        on_report=lambda trial, _: reports.append(trial["key"]),
        on_done=lambda result: ended.append((result.key, result.kept)),
    )
    assert [result.value for result in second[:2]] == [result.value for result in first]
    assert [result.seconds for result in second[:2]] == [result.seconds for result in first]
    assert set(reports) == {trial["key"] for trial in TRIALS[2:]}
    assert ended == [(trial["key"], number < 2) for number, trial in enumerate(TRIALS)]


def test_a_failed_trial_is_run_again(tmp_path: Path) -> None:
    go([{**TRIALS[0], "fails": "once"}], tmp_path)
    assert go([TRIALS[0]], tmp_path, resume=True)[0].value is not None


def test_without_resume_everything_is_run_again(tmp_path: Path) -> None:
    go(TRIALS[:1], tmp_path)
    assert not go([{**TRIALS[0], "frames": 3}], tmp_path)[0].kept


def test_another_configuration_under_the_same_key_is_refused(tmp_path: Path) -> None:
    go(TRIALS[:1], tmp_path)
    with pytest.raises(UserError, match="another configuration"):
        go([{**TRIALS[0], "frames": 3}], tmp_path, resume=True)


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"trial": {}})])
def test_a_file_that_is_no_result_is_named(tmp_path: Path, text: str) -> None:
    go(TRIALS[:1], tmp_path)
    file = tmp_path / "trials" / f"{TRIALS[0]['key']}.json"
    file.write_text(text)
    with pytest.raises(UserError, match="is not a finished trial"):
        go(TRIALS[:1], tmp_path, resume=True)


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    def interrupt(result: TrialResult) -> None:
        if result.key == TRIALS[1]["key"]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(TRIALS, tmp_path, on_done=interrupt)
    assert [result.kept for result in go(TRIALS, tmp_path, resume=True)] == [True, True, False, False]


@pytest.mark.parametrize("keys", [["a", "a"], ["a/b"], [""], ["x" * 121], ["a b"]])
def test_keys_name_one_file_each(tmp_path: Path, keys: list[str]) -> None:
    with pytest.raises(ValueError, match=r"key is|more than once"):
        go([{"key": key, "frames": 1} for key in keys], tmp_path)


def test_no_trials_are_no_work(tmp_path: Path) -> None:
    assert go([], tmp_path) == []


def test_without_ray_trials_run_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldshift.cluster.tune.has_ray", lambda: False)
    results = run_trials(train, TRIALS, cluster=ClusterConfig(gpus_per_worker=0), name="compare", storage=tmp_path)
    assert all(result.value is not None for result in results)


@pytest.mark.parametrize(
    ("recorded", "asked", "same"),
    [
        ({"data": "a"}, {"data": "a"}, True),
        ({"data": "a"}, {"data": "b"}, False),
        ({}, {"data": "b"}, True),  # an older version did not know it
        ({"data": "a"}, {}, False),
    ],
)
def test_a_kept_trial_is_taken_where_all_that_it_recorded_is_the_same(
    recorded: dict[str, str], asked: dict[str, str], same: bool, tmp_path: Path
) -> None:
    (first,) = go([{**TRIALS[0], **recorded}], tmp_path)
    if not same:
        with pytest.raises(UserError, match="another configuration"):
            go([{**TRIALS[0], **asked}], tmp_path, resume=True)
        return
    (again,) = go([{**TRIALS[0], **asked}], tmp_path, resume=True)
    assert again.kept
    assert again.value == first.value


def test_a_kept_trial_agrees_with_one_that_only_has_new_switches_off() -> None:
    recorded = {"key": "a", "recipe": {"epochs": 3}}
    assert agrees(recorded, {"key": "a", "recipe": {"epochs": 3, "shared": False, "accumulate": 1}, "data": "digest"})
    assert not agrees(recorded, {"key": "a", "recipe": {"epochs": 3, "accumulate": 2}})
    assert not agrees(recorded, {"key": "a", "recipe": {"epochs": 3, "shared": True}})
    assert not agrees(recorded, {"key": "a", "recipe": {"epochs": 3, "crop": 0}})
    assert not agrees(recorded, {"key": "a", "recipe": {}})
