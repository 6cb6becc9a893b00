"""The storage of a cluster: what workers find and leave there, on several file systems of pyarrow."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ray import cloudpickle

from fieldshift.cluster import ClusterConfig, WorkerContext, check_fits
from fieldshift.cluster.storage import (
    ATTEMPTS,
    Storage,
    StorageLostError,
    bring_all,
    filesystem,
    given_storage,
    joined,
    patient_filesystem,
    place_of_ray,
    try_storage,
)
from fieldshift.errors import UserError

KINDS: dict[str, Callable[[Path], str]] = {
    "path": str,
    "file URI": lambda folder: f"file://{folder}",
    "another file system": lambda folder: f"fsspec+file://{folder}",  # through Python, as gcsfs and s3fs are
}


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(joined(KINDS[request.param](tmp_path / "bucket"), "run", "part"), str(tmp_path / "out"))


def files_below(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_a_restarted_worker_finds_its_last_report_and_the_driver_gets_all_files(
    storage: Storage, tmp_path: Path
) -> None:
    out, bucket = tmp_path / "out" / "trials" / "one", tmp_path / "bucket" / "run" / "part" / "trials" / "one"
    seen: list[Path] = []

    def work(context: WorkerContext, passes: int) -> None:
        with context.folder(out) as folder:
            seen.append(folder)
            done = int((folder / "state.pt").read_text()) if (folder / "state.pt").exists() else 0
            for number in range(done + 1, passes + 1):
                (folder / "state.pt").write_text(str(number))
                context.report({"pass": float(number)})
                assert files_below(bucket)["state.pt"] == str(number)
                if number == 2:
                    (folder / "state.pt").write_text("not reported")
                    raise RuntimeError("this process dies")
            (folder / "deep").mkdir()
            (folder / "deep" / "weights").write_text("w")
            (folder / "state.pt").unlink()

    first = WorkerContext(storage=storage)
    with pytest.raises(RuntimeError, match="dies"):
        work(first, 3)
    assert files_below(bucket) == {"state.pt": "2"}
    second = WorkerContext(storage=storage)
    work(second, 3)
    assert files_below(bucket) == {"deep/weights": "w"}
    assert not out.exists()
    bring_all(storage, second.folders)
    assert files_below(out) == {"deep/weights": "w"}
    assert [path.exists() for path in seen] == [False, False]
    assert first.folders == []


def test_only_the_first_worker_reads_and_writes(storage: Storage, tmp_path: Path) -> None:
    with WorkerContext(storage=storage).folder(tmp_path / "out") as folder:
        (folder / "name").write_text("first")
    with WorkerContext(rank=1, world=2, storage=storage).folder(tmp_path / "out") as folder:
        assert list(folder.iterdir()) == []
        (folder / "other").write_text("second")
    assert files_below(tmp_path / "bucket") == {"run/part/name": "first"}


def test_a_file_is_removed_if_it_is_there(storage: Storage, tmp_path: Path) -> None:
    with WorkerContext(storage=storage).folder(tmp_path / "out" / "one") as folder:
        (folder / "checkpoint.pt").write_text("c")
        (folder / "rest").write_text("r")
    for _ in range(2):
        storage.remove(tmp_path / "out" / "one" / "checkpoint.pt")
    storage.remove(tmp_path / "out" / "two" / "checkpoint.pt")
    assert files_below(tmp_path / "bucket") == {"run/part/one/rest": "r"}


def test_without_a_storage_a_worker_writes_into_the_run_folder(tmp_path: Path) -> None:
    with WorkerContext().folder(tmp_path) as folder:
        assert folder == tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_a_storage_is_tried_without_a_trace(kind: str, tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    try_storage(given_storage(KINDS[kind](tmp_path / "bucket")))
    assert list((tmp_path / "bucket").iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    ["ftp://host/folder", "file:/no", "s3://", "s3:///", "fsspec+nothing://x", "/proc/1/nothing", "file:///proc/x"],
)
def test_a_storage_that_cannot_be_used_is_refused_in_one_line_before_any_work(wrong: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"cluster.storage {wrong} cannot be used (")) as caught:
        check_fits(ClusterConfig(storage=wrong, gpus_per_worker=0), 1)
    assert "\n" not in str(caught.value)


def test_a_storage_is_not_ignored_where_nothing_runs_on_ray(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cluster.storage is .*, but a run in this process does not use it"):
        check_fits(ClusterConfig(storage=str(tmp_path), gpus_per_worker=0), 0)


def test_credentials_in_the_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="cluster.storage holds a password") as caught:
        ClusterConfig(storage="s3://key:geheim@bucket/folder")
    assert "geheim" not in str(caught.value)


def test_places_are_joined_before_the_parameters_of_a_uri(tmp_path: Path) -> None:
    given = "s3://bucket/folder/?endpoint_override=host%3A9000&scheme=http"
    assert joined(given, "run", "ray") == "s3://bucket/folder/run/ray?endpoint_override=host%3A9000&scheme=http"
    assert joined("gs://bucket", "run") == "gs://bucket/run"
    assert place_of_ray(tmp_path, Storage("gs://anonymous@bucket/run", "/out"))["storage_path"] == "bucket/run/ray"
    assert place_of_ray(tmp_path, None) == {"storage_path": str(tmp_path / "ray")}


def test_a_run_asks_s3_again_for_half_a_minute_with_the_other_settings_of_its_address(tmp_path: Path) -> None:
    """Of pyarrow's file system, only its pickled form shows its settings, and the attempts are not among them."""
    from pyarrow import fs

    uri = "s3://bucket/folder?endpoint_override=127.0.0.1%3A1&scheme=http&region=eu-west-1"
    (plain, path), (patient, same) = filesystem(uri), patient_filesystem(uri)
    assert path == same == "bucket/folder"
    assert isinstance(patient, fs.S3FileSystem)
    assert plain.__reduce__() == patient.__reduce__()


def test_copies_of_s3_in_other_processes_are_as_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray pickles the file system for its own files; each copy is made anew, with the attempts."""
    from pyarrow import fs

    asked: list[int] = []
    strategy = fs.AwsDefaultS3RetryStrategy

    def counted(max_attempts: int) -> object:
        asked.append(max_attempts)
        return strategy(max_attempts=max_attempts)

    monkeypatch.setattr(fs, "AwsDefaultS3RetryStrategy", counted)
    files, _ = patient_filesystem("s3://bucket/folder?endpoint_override=127.0.0.1%3A1&scheme=http&region=eu-west-1")
    copy = pickle.loads(cloudpickle.dumps(pickle.loads(pickle.dumps(files))))
    assert copy.region == "eu-west-1"
    assert asked == [ATTEMPTS] * 3


def test_a_storage_that_fails_in_a_run_is_no_mistake_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "bucket").write_text("a file in place of the folder")
    storage = Storage(f"file://{tmp_path}/bucket", str(tmp_path / "out"))
    with (
        pytest.raises(
            StorageLostError, match=re.escape(f"cluster.storage file://{tmp_path}/bucket failed (")
        ) as caught,
        WorkerContext(storage=storage).folder(tmp_path / "out" / "one") as folder,
    ):
        (folder / "state").write_text("1")
    assert "\n" not in str(caught.value)
