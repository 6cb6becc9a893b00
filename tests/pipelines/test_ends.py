"""A command that is interrupted, or breaks, closes its MLflow run and those of all its parts, and goes on with --resume."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fieldshift.cli import main
from fieldshift.cluster import WorkerContext
from fieldshift.console import Progress
from fieldshift.experiment import training_runs as running

SMALL = [
    "--loading.train_limit", "32", "--loading.test_limit", "16", "--recipe.batch", "16", "--recipe.epochs", "2",
    "--cluster.trials_at_once", "0",
]  # fmt: skip
COMPARE = ["compare", "--arms", "none", "affine", "--seeds", "1", "--budgets", "equal-epochs", *SMALL]


DEADLINE_S = 120.0


def runs_of(folder: Path) -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return client, client.search_runs([each.experiment_id for each in client.search_experiments()])


def statuses(folder: Path) -> list[str]:
    return sorted(run.info.status for run in runs_of(folder)[1])


def points(database: Path) -> int:
    """The number of points of an epoch that a store has, also while others write to it."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database)) as opened:
        return int(opened.execute("SELECT count(*) FROM metrics WHERE step > 0").fetchone()[0])
    return 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("error", "left"), [(KeyboardInterrupt, "KILLED"), (SystemError, "FAILED")])
def test_no_run_is_left_running(
    error: type[BaseException], left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = running.run_training_trial
    command = [*COMPARE, "--out", str(tmp_path)]

    def breaks(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
        if payload["arm"] == "affine":
            context.report({"epoch": 1.0, "train/loss": 1.0})  # its MLflow run is open by now
            raise KeyboardInterrupt
        return whole(payload, context)

    with monkeypatch.context() as broken:
        broken.setattr(running, "run_training_trial", breaks)
        if error is KeyboardInterrupt:
            assert main(command) == 130
        else:
            broken.setattr(Progress, "show_part", lambda *_, **__: (_ for _ in ()).throw(error("no screen")))
            with pytest.raises(error):
                main(command)
    assert "RUNNING" not in statuses(tmp_path)
    assert left in statuses(tmp_path)
    assert main([*command, "--resume"]) == 0
    assert set(statuses(tmp_path)) == {"FINISHED"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(300)
def test_a_killed_command_goes_on_with_one_run_per_trial_and_every_point_once(tmp_path: Path) -> None:
    words = [*COMPARE, "--recipe.epochs", "3", "--out", str(tmp_path)]
    with subprocess.Popen([sys.executable, "-m", "fieldshift.cli", *words], stdout=subprocess.DEVNULL) as command:
        deadline = time.monotonic() + DEADLINE_S
        while not points(tmp_path / "mlflow.db"):
            assert time.monotonic() < deadline
            assert command.poll() is None
            time.sleep(0.01)
        command.kill()
    assert "RUNNING" in statuses(tmp_path)
    assert main([*words, "--resume"]) == 0
    client, runs = runs_of(tmp_path)
    assert {run.info.status for run in runs} == {"FINISHED"}
    trials = [run for run in runs if run.data.params.get("stage") == "compare"]
    assert sorted(run.data.params["arm"] for run in trials) == ["affine", "none"]
    assert len(runs) == 1 + 2 * len(trials)  # the command's own, the trials', the arms'
    for run in trials:
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert sorted(point.step for point in history) == [1, 2, 3]
