"""`fieldshift tune`: samples on held-out images, continued with what Optuna's database holds."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from fieldshift.cli import main
from fieldshift.motions import Policy
from pipelines.tuning import largest_motion, tunable

SMALL = (
    "--loading.train_limit", "80", "--loading.test_limit", "20", "--recipe.epochs", "3", "--recipe.batch", "16",
    "--tracking.enabled", "false", "--cluster.trials_at_once", "0",
)  # fmt: skip


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
    study = optuna.load_study(study_name="tune", storage=f"sqlite:///{tmp_path / 't/optuna.db'}")
    trials = {trial.user_attrs["key"]: trial for trial in study.trials}
    assert {key: trial.params["learning_rate"] for key, trial in trials.items()} == {
        row["key"]: row["learning_rate"] for row in result["samples"]
    }
    assert len(study.trials) == 5
    learned = json.loads((tmp_path / "t/trials/tune-sample-000/held_out.json").read_text())
    assert len(learned["scored_on"]) == 16  # a fifth of 80


def test_samples_that_a_killed_process_left_open_fail(tmp_path: Path, policy: Path) -> None:
    out = tmp_path / "t"
    words = ["tune", "--policy", str(policy), "--over", "learning_rate", "--samples", "2", "--out", str(out), *SMALL]
    assert main(words) == 0
    study = optuna.load_study(study_name="tune", storage=f"sqlite:///{out / 'optuna.db'}")
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
