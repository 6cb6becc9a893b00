"""Workers and trials on a real cluster whose files go through a storage apart from the run folder."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fieldshift.cluster import ClusterConfig, WorkerContext, connect, run_trials, run_workers
from fieldshift.cluster.storage import Storage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]

ONE = ClusterConfig(workers=1, gpus_per_worker=0, start_timeout_s=3600)


@pytest.fixture(scope="module", autouse=True)
def ray_cluster() -> Iterator[None]:
    with connect(ONE):
        yield


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """A file system that pyarrow reaches through Python, as it does gcsfs or s3fs."""
    return Storage(f"fsspec+file://{tmp_path}/bucket/run", str(tmp_path / "out"))


def counts(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    """Counts to 4 over reports; it dies once after the second, and once the storage fails at the third."""
    from fieldshift.cluster import storage as used

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with context.folder(payload["folder"]) as folder:
        state, failed = folder / "state", Path(payload["failed"])
        begun = int(state.read_text()) if state.exists() else 0
        for number in range(begun + 1, 5):
            state.write_text(str(number))
            if number == 3 and not failed.exists():
                failed.touch()
                used.upload = full
            context.report({"number": float(number)})
            if number == 2 and begun == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        (folder / "weights").write_text("w")
        return {"begun": begun, "elsewhere": not Path(payload["folder"]).exists()}


def lose(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    """Loses the storage at once, every time."""
    from fieldshift.cluster import storage as used

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with context.folder(payload["folder"]) as folder:
        if payload["key"] == "lost":
            used.upload = full
        (folder / "weights").write_text("w")
        return {"done": True}


def left(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_lost_worker_resumes_from_the_storage_and_its_files_come_back(
    storage: Storage, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    payload = {"folder": str(out / "train"), "failed": str(tmp_path / "failed")}
    found = run_workers(counts, payload, cluster=ONE, name="train", storage=out / "ray", shared=storage)
    assert found == {"begun": 2, "elsewhere": True}
    told = capfd.readouterr().out
    assert "worker 0 on " in told
    assert f"cluster.storage {storage.uri} failed ([Errno 28] No space left on device); resuming" in told
    assert left(out) == ["train/state", "train/weights"]
    assert [path.name for path in (tmp_path / "bucket/run").iterdir() if path.name != "train"] == ["ray"]


def test_a_lost_trial_resumes_from_the_storage_and_its_files_come_back(storage: Storage, tmp_path: Path) -> None:
    out = tmp_path / "out"
    trials = [
        {"key": name, "folder": str(out / "trials" / name), "failed": str(tmp_path / name)} for name in ("one", "two")
    ]
    cluster = ClusterConfig(gpus_per_worker=0)
    results = run_trials(counts, trials, cluster=cluster, name="trials", storage=out / "ray", shared=storage)
    assert [result.value for result in results] == 2 * [{"begun": 2, "elsewhere": True}]
    assert left(out / "trials") == ["one/state", "one/weights", "two/state", "two/weights"]
    assert sorted(path.name for path in (out / "ray").rglob("*") if path.is_file()) == ["one.json", "two.json"]


def test_a_full_storage_fails_the_trials_that_need_it_and_says_so(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own files of errors lie there too and are empty then; it reads them when all trials have ended."""
    read: list[bool] = []

    def read_empty(_trial: object) -> None:
        read.append(True)
        raise EOFError("Ran out of input")

    monkeypatch.setattr("ray.tune.experiment.Trial.get_pickled_error", read_empty)
    out = tmp_path / "out"
    trials = [{"key": name, "folder": str(out / "trials" / name)} for name in ("lost", "whole")]
    cluster = ClusterConfig(gpus_per_worker=0, max_failures=0)
    lost, whole = run_trials(lose, trials, cluster=cluster, name="trials", storage=out / "ray", shared=storage)
    assert read
    assert (lost.value, whole.value) == (None, {"done": True})
    assert str(lost.error).startswith(f"cluster.storage {storage.uri} failed ([Errno 28] No space left on device)")
