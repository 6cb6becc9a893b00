"""`fieldshift tune`: samples on held-out images, continued with what Optuna's database holds."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import optuna
import pytest

import fieldshift.experiment.tuning
from fieldshift.cli import main
from fieldshift.cluster import TrialResult
from fieldshift.cluster.storage import Storage
from fieldshift.experiment.tuning import drop_checkpoints, sample_name
from fieldshift.motions import Policy
from fieldshift.tracking.store import client_for
from pipelines.tuning import largest_motion, tunable

SMALL = (
    "--loading.train_limit", "80", "--loading.test_limit", "20", "--recipe.epochs", "3", "--recipe.batch", "16",
    "--tracking.enabled", "false", "--cluster.trials_at_once", "0",
)  # fmt: skip

TRACKED = tuple(word for word in SMALL if word not in {"--tracking.enabled", "false"})


def the_study(database: Path) -> optuna.Study:
    (summary,) = optuna.get_all_study_summaries(f"sqlite:///{database}")
    return optuna.load_study(study_name=summary.study_name, storage=f"sqlite:///{database}")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return Policy.single("translate_x", 0.3, frames=3).save(tmp_path / "policy.json")


def test_samples_are_continued_and_the_best_is_the_best_of_the_complete(tmp_path: Path, policy: Path) -> None:
    words = ["tune", "--arm", "das-folded+randaugment", "--policy", str(policy), "--out", str(tmp_path / "t"), *SMALL]
    assert main([*words, "--samples", "2"]) == 0
    first = json.loads((tmp_path / "t/result.json").read_text())
    assert main([*words, "--samples", "5", "--resume"]) == 0
    result = json.loads((tmp_path / "t/result.json").read_text())
    assert result["samples"][:2] == first["samples"]
    assert len(result["samples"]) == 5
    complete = [row["score"] for row in result["samples"] if not row["stopped"]]
    assert result["score"] == max(complete)
    assert set(result["best"]) == {"learning_rate", "weight_decay", "num_ops", "magnitude", "motion"}
    assert result["recipe"]["learning_rate"] == result["best"]["learning_rate"]
    assert result["recipe"]["epochs"] == 3
    tuned = Policy.load(tmp_path / "t/policy.json")
    assert tuned == Policy.load(policy).scaled(result["best"]["motion"])
    study = the_study(tmp_path / "t/optuna.db")
    trials = {trial.user_attrs["key"]: trial for trial in study.trials}
    assert {key: trial.params["learning_rate"] for key, trial in trials.items()} == {
        row["key"]: row["learning_rate"] for row in result["samples"]
    }
    assert len(study.trials) == 5
    (first_sample,) = (tmp_path / "t/trials").glob("tune-sample-000-*")
    learned = json.loads((first_sample / "held_out.json").read_text())
    assert len(learned["scored_on"]) == 16  # a fifth of 80


def test_the_advice_can_be_pasted_also_from_a_folder_with_a_space(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my runs; no others"
    words = ["tune", "--policy", str(policy), "--over", "motion", "--samples", "1", "--out", str(out), *SMALL]
    assert main(words) == 0
    (advice,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("best on held-out images")]
    options = shlex.split(advice[advice.index("--policy") :])
    assert options == ["--policy", str(out / "policy.json")]
    assert Policy.load(options[1]).frames == 3


def test_samples_that_were_stopped_early_keep_no_checkpoint(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}/bucket", str(tmp_path / "out"))
    payload = {"folder": str(tmp_path / "out" / "trials" / "tune"), "learning_rate": 0.1}
    results = [
        TrialResult(
            trial={**payload, "key": f"sample-{number:03d}"}, value=None, error=error, seconds=1.0, stopped=not error
        )
        for number, error in enumerate((None, "it failed"))
    ]
    places = [tmp_path / place / "trials" for place in ("out", "bucket")]
    for place in places:
        for result in results:
            (place / f"tune-{sample_name(result.trial)}").mkdir(parents=True)
            (place / f"tune-{sample_name(result.trial)}" / "checkpoint.pt").write_text("c")
    for _ in range(2):
        drop_checkpoints(results, storage)
    left = [path for place in places for path in place.rglob("checkpoint.pt")]
    assert [path.parent.name.rpartition("-")[0] for path in left] == 2 * ["tune-sample-001"]


def test_samples_that_a_killed_process_left_open_fail(tmp_path: Path, policy: Path) -> None:
    out = tmp_path / "t"
    words = ["tune", "--policy", str(policy), "--over", "learning_rate", "--samples", "2", "--out", str(out), *SMALL]
    assert main(words) == 0
    study = the_study(out / "optuna.db")
    study.ask()
    assert main([*words, "--samples", "3", "--resume"]) == 0
    states = [trial.state.name for trial in study.get_trials()]
    assert "RUNNING" not in states
    assert states.count("FAIL") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--over", "learnin_rate"], "Did you mean 'learning_rate'?"),
        (["--over", "motion"], "The arm 'none' has no motion to tune"),
        (["--over", "magnitude"], "The arm 'none' has no magnitude to tune"),
        (["--over", "learning_rate", "learning_rate"], "one of them twice"),
        (["--samples", "0"], "--samples is 0, but must be at least 1"),
        (["--study", "nonsense"], "Optuna cannot use the database nonsense"),
        (["--arm", "das"], "needs a policy"),
        (["--study", "postgresql://me:hunter2@host/db"], "--study holds a password"),
    ],
)
def test_mistakes_end_in_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *words, "--out", str(tmp_path / "t"), *SMALL]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1


def test_motions_are_scaled_within_their_limits() -> None:
    zoom = Policy.single("zoom", 4.0, frames=3)
    assert zoom.scaled(0.5).edges[0].steps[0].magnitude == 2.0
    assert Policy.single("rotate", -30.0, frames=3).scaled(1.5).edges[0].steps[0].magnitude == -45.0
    assert largest_motion(Policy.single("translate_x", 0.3, frames=3)) == 1.5
    assert largest_motion(Policy.single("translate_x", 0.9, frames=3)) == pytest.approx(1.1)
    assert tunable(None, "das+randaugment") == ["learning_rate", "weight_decay", "num_ops", "magnitude", "motion"]
    assert tunable(None, "none") == ["learning_rate", "weight_decay"]


def test_a_sample_that_was_interrupted_is_not_resumed_under_other_values(tmp_path: Path) -> None:
    """Keys are given again after an interruption; folders and runs depend on the values too."""
    payload = {"key": "sample-003", "recipe": {"learning_rate": 1.0, "epochs": 2}, "folder": "f"}
    names = {sample_name({**payload, "learning_rate": rate}) for rate in (0.1, 0.2)}
    assert len(names) == 2
    assert all(name.startswith("sample-003-") for name in names)
    assert sample_name({**payload, "learning_rate": 0.1}) in names


@pytest.mark.parametrize("over", ["num_ops", "magnitude"])
def test_one_of_randaugments_numbers_alone_is_tuned_beside_the_default_of_the_other(over: str, tmp_path: Path) -> None:
    words = ["tune", "--arm", "randaugment", "--over", over, "--samples", "1", "--out", str(tmp_path / "t"), *SMALL]
    assert main(words) == 0
    assert set(json.loads((tmp_path / "t/result.json").read_text())["best"]) == {over}


def test_two_runs_in_one_database_are_two_studies(tmp_path: Path) -> None:
    shared = f"sqlite:///{tmp_path / 'shared.db'}"
    for name in ("a", "b"):
        words = [
            "tune",
            "--over",
            "learning_rate",
            "--samples",
            "1",
            "--study",
            shared,
            "--out",
            str(tmp_path / name),
            *SMALL,
        ]
        assert main(words) == 0
    assert [summary.n_trials for summary in optuna.get_all_study_summaries(shared)] == [1, 1]


def test_samples_of_an_interrupted_tuning_stay_finished_in_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["tune", "--over", "learning_rate", "--samples", "3", "--out", str(tmp_path / "t"), *TRACKED]
    run, calls = fieldshift.experiment.tuning.run_tuning_trial, []

    def interrupted(payload: dict[str, Any], context: Any) -> dict[str, Any]:
        calls.append(payload["key"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(payload, context)

    monkeypatch.setattr(fieldshift.experiment.tuning, "run_tuning_trial", interrupted)
    assert main(words) == 130
    client = client_for(f"sqlite:///{tmp_path / 't/mlflow.db'}")
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    states = {found.info.run_name: found.info.status for found in runs}
    assert states.pop("t") == "KILLED"
    assert states == {"none sample-000": "FINISHED"}


def test_stored_samples_are_whole_in_a_store_that_had_not_heard_of_them(tmp_path: Path) -> None:
    """As where tracking was off at first, or the process was killed between a sample's file and its run in MLflow."""
    words = ["tune", "--over", "learning_rate", "--out", str(tmp_path / "t")]
    assert main([*words, "--samples", "1", *SMALL]) == 0
    assert main([*words, "--samples", "2", "--resume", *TRACKED]) == 0
    client = client_for(f"sqlite:///{tmp_path / 't/mlflow.db'}")
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    runs = {each.info.run_name: each for each in found}
    samples = json.loads((tmp_path / "t/result.json").read_text())["samples"]
    for sample in samples:
        run = runs[f"none {sample['key']}"]
        assert run.info.status == "FINISHED"
        scores = [value for name, value in run.data.metrics.items() if "held_out" in name]
        assert scores == [pytest.approx(sample["score"])], run.data.metrics
    assert len(samples) == 2
