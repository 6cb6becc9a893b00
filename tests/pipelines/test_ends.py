"""A command that is interrupted, or breaks, closes its MLflow run and those of all its parts, and goes on with --resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fieldshift.cli import main
from fieldshift.cluster import WorkerContext
from fieldshift.experiment import training_runs as running

SMALL = [
    "--loading.train_limit", "32", "--loading.test_limit", "16", "--recipe.batch", "16", "--recipe.epochs", "2",
    "--cluster.trials_at_once", "0",
]  # fmt: skip
COMPARE = ["compare", "--arms", "none", "affine", "--seeds", "1", "--budgets", "equal-epochs", *SMALL]


def statuses(folder: Path) -> list[str]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return sorted(run.info.status for run in runs)


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
            broken.setattr(running, "show", lambda *_: (_ for _ in ()).throw(error("no screen")))
            with pytest.raises(error):
                main(command)
    assert "RUNNING" not in statuses(tmp_path)
    assert left in statuses(tmp_path)
    assert main([*command, "--resume"]) == 0
    assert set(statuses(tmp_path)) == {"FINISHED"}
