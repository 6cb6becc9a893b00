"""A trial that fails: the others finish, the result names it, the status tells, and --resume runs it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fieldshift.cli import main
from fieldshift.cluster import WorkerContext
from fieldshift.experiment import training_runs as running

SMALL = [
    "--loading.train_limit", "32", "--loading.test_limit", "16", "--recipe.batch", "16", "--recipe.epochs", "1",
    "--tracking.enabled", "false", "--cluster.trials_at_once", "0",
]  # fmt: skip
COMPARE = ["compare", "--arms", "none", "affine", "--seeds", "2", "--budgets", "equal-epochs", *SMALL]


def failing_where(key: str) -> Any:
    whole = running.run_training_trial

    def run(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
        if key in payload["key"]:
            raise RuntimeError("The disk is on fire.")
        return whole(payload, context)

    return run


def test_a_failed_trial_is_named_and_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*COMPARE, "--out", str(tmp_path / "out")]
    with monkeypatch.context() as broken:
        broken.setattr(running, "run_training_trial", failing_where("affine-equal-epochs-T1-seed1"))
        assert main(command) == 1
    printed = capsys.readouterr().out
    assert "affine-equal-epochs-T1-seed1 failed: RuntimeError: The disk is on fire." in printed
    assert "--resume runs them again" in printed
    first = json.loads((tmp_path / "out/result.json").read_text())
    assert first["failed"] == {"affine-equal-epochs-T1-seed1": "RuntimeError: The disk is on fire."}
    assert [(row["arm"], row["seed"]) for row in first["rows"]] == [("none", 0), ("none", 1), ("affine", 0)]

    assert main([*command, "--resume"]) == 0
    second = json.loads((tmp_path / "out/result.json").read_text())
    assert second["failed"] == {}
    assert [row for row in second["rows"] if (row["arm"], row["seed"]) != ("affine", 1)] == first["rows"]
    assert len(second["rows"]) == 4


def test_a_run_in_which_all_trials_failed_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(running, "run_training_trial", failing_where("seed"))
    assert main([*COMPARE, "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert printed.err == "fieldshift: All 4 trials failed; the last error: RuntimeError: The disk is on fire.\n"
    assert printed.out.count("The disk is on fire") == 1
    (others,) = [line for line in printed.out.splitlines() if "for the same reason: " in line]
    assert others.count("-equal-epochs-T1-seed") == 3
