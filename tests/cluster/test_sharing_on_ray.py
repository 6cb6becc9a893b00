"""A cluster of two nodes, one of which does not see the folder that a run writes to."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fieldshift.cluster import ClusterConfig, WorkerContext, connect, run_trials
from fieldshift.cluster.sharing import check_shared
from fieldshift.cluster.storage import Storage
from fieldshift.errors import UserError
from fieldshift.ports import free_port
from tests.family import end_family

ray = pytest.importorskip("ray")

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180), pytest.mark.filterwarnings("ignore")]
DEADLINE_S = 120.0


def may_mount() -> bool:
    """Whether a process may have file systems of its own here."""
    try:
        subprocess.run(["unshare", "--mount", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return shutil.which("mount") is not None


@pytest.fixture(scope="module")
def blind_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that the second node of a running cluster has a file system of its own at."""
    if not may_mount():
        pytest.skip("a node without the folder needs `unshare --mount`, which is not allowed here")
    folder, log = tmp_path_factory.mktemp("blind"), tmp_path_factory.mktemp("node") / "log"
    with connect(ClusterConfig(gpus_per_worker=0)), log.open("w") as printed:
        head = ray.get_runtime_context().gcs_address
        ports = [f"--{name}={free_port()}" for name in ("dashboard-agent-listen-port", "dashboard-agent-grpc-port")]
        start = f"{Path(sys.executable).with_name('ray')} start --address={head} --num-cpus=1 --block {' '.join(ports)}"
        command = ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs tmpfs {folder} && exec {start}"]
        node = subprocess.Popen(command, stdout=printed, stderr=printed)
        try:
            deadline = time.monotonic() + DEADLINE_S
            while sum(each["Alive"] for each in ray.nodes()) < 2:
                assert node.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield folder
        finally:
            end_family(node)


def test_a_folder_that_a_node_does_not_see_is_refused_before_any_work(blind_folder: Path) -> None:
    def never(trial: dict[str, object], context: WorkerContext) -> dict[str, object]:
        raise AssertionError("no trial starts")

    with pytest.raises(UserError, match=rf"^--out {blind_folder}/ray is not visible to 1 of the cluster's 2 nodes \("):
        run_trials(never, [{"key": "one"}], cluster=ClusterConfig(), name="never", storage=blind_folder / "ray")
    assert [path.name for path in (blind_folder / "ray").iterdir()] == ["trials"]


def test_a_folder_that_all_nodes_see_is_taken(blind_folder: Path, tmp_path: Path) -> None:
    check_shared(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_a_node_does_not_reach_is_refused_before_any_work(blind_folder: Path, tmp_path: Path) -> None:
    there = f"file://{blind_folder}/bucket"
    with pytest.raises(
        UserError, match=rf"^cluster.storage {there} cannot be read and written by 1 of the cluster's 2 "
    ):
        check_shared(blind_folder, Storage(there, str(tmp_path)))
    assert list((blind_folder / "bucket").iterdir()) == []


def test_with_a_storage_the_run_folder_is_on_one_node_and_gets_the_files_of_all(
    blind_folder: Path, tmp_path: Path
) -> None:
    """As many trials at once as there are cores, one of them on the node without the folder: each waits for the others."""
    cores = int(ray.cluster_resources()["CPU"])
    out, met = blind_folder / "out", tmp_path / "met"
    met.mkdir()

    def meet(trial: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
        with context.folder(trial["folder"]) as folder:
            (folder / "weights").write_text(trial["key"])
            context.report({"epoch": 1.0})
            (met / trial["key"]).touch()
            deadline = time.monotonic() + DEADLINE_S
            while len(list(met.iterdir())) < trial["cores"]:
                assert time.monotonic() < deadline, "the others did not start"
                time.sleep(0.1)
        return {"sees": Path(trial["seen"]).exists()}

    (blind_folder / "here").touch()
    trials = [
        {"key": f"t{number}", "folder": str(out / f"t{number}"), "seen": str(blind_folder / "here"), "cores": cores}
        for number in range(cores)
    ]
    storage = Storage(f"file://{tmp_path}/bucket", str(out))
    results = run_trials(
        meet, trials, cluster=ClusterConfig(gpus_per_worker=0), name="meet", storage=out / "ray", shared=storage
    )
    assert sorted(result.value["sees"] for result in results if result.value) == [False, *[True] * (cores - 1)]
    assert [(out / trial["key"] / "weights").read_text() for trial in trials] == [trial["key"] for trial in trials]
