"""A cluster of its own with token authentication: a job is sent, followed, and refused without the token."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import fieldshift
from fieldshift.cluster.reach import check_lasts
from fieldshift.cluster.tokens import check_token
from fieldshift.errors import UserError
from fieldshift.ports import free_port
from tests.family import end_family

ray = pytest.importorskip("ray")

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400), pytest.mark.filterwarnings("ignore")]

PROGRAM = """
import fieldshift, os, sys
from pathlib import Path
from fieldshift.cluster import ClusterConfig, run_trials

def double(trial, context):
    return {"twice": 2 * trial["number"]}

if __name__ == "__main__":
    trials = [{"key": "one", "number": 21}]
    (result,) = run_trials(double, trials, cluster=ClusterConfig(), name="job", storage=Path(sys.argv[1]))
    print("imported from", Path(fieldshift.__file__).parent)
    print("twice is", result.value["twice"])
    sys.exit(int(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """URL, token and address of a head node; its processes end with the tests."""
    token = secrets.token_hex(32)
    port, own = free_port(), free_port()
    folder = Path(tmp_path_factory.mktemp("ray"))
    # Unix sockets of a Ray session need a short path.
    session = Path("/tmp") / f"fs-{secrets.token_hex(3)}"
    command = [
        *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2"),
        *(f"--port={own}", f"--dashboard-port={port}", "--dashboard-host=127.0.0.1"),
        *("--include-dashboard=true", f"--temp-dir={session}", f"--ray-client-server-port={free_port()}"),
        f"--dashboard-agent-listen-port={free_port()}",
    ]
    variables = os.environ | {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # Ray's 15 would starve the job beside other tests
    }  # fmt: skip
    with (folder / "log").open("w") as log:
        head = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
        try:
            await_port(head, port, folder / "log")
            yield f"http://127.0.0.1:{port}", token, f"127.0.0.1:{own}"
        finally:
            end_family(head)
            shutil.rmtree(session, ignore_errors=True)


def await_port(head: subprocess.Popen[bytes], port: int, log: Path) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert head.poll() is None, log.read_text()
            time.sleep(0.2)
        else:
            return


def gcs_address(port: str) -> str:
    """The address by which the node of that port knows its head, once it runs."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        for process in psutil.process_iter(["name", "cmdline"]):
            words = process.info["cmdline"] if process.info["name"] == "raylet" else None
            for word in words or ():
                if word.startswith("--gcs-address=") and word.endswith(f":{port}"):
                    return str(word.partition("=")[2])
        time.sleep(0.2)
    raise AssertionError(f"no raylet has the port {port}")


def test_a_rejected_token_is_seen_before_ray_joins(
    cluster: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Holds the name of Ray's call and of its header."""
    _, token, address = cluster
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    check_token(address, "cluster.address")
    monkeypatch.setenv("RAY_AUTH_TOKEN", token[::-1])
    with pytest.raises(UserError, match="it rejects this process's token"):
        check_token(address, "cluster.address")
    found = gcs_address(address.rpartition(":")[2])
    check_lasts(found, "cluster.address")  # `ray start --block` is not a program of its own


def test_a_job_needs_the_token_brings_its_package_and_ends_with_its_status(
    cluster: tuple[str, str, str], tmp_path: Path
) -> None:
    """In processes of their own, because Ray reads the way of authentication once."""
    url, token, _ = cluster
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    script = tmp_path / "send.py"
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = {[str(Path(fieldshift.__file__).parents[1])]!r}\n"
        "import fieldshift\n"
        "from fieldshift.cluster import submit\n"
        "from fieldshift.errors import UserError\n"
        "try:\n"
        f"    outcome = submit({url!r}, sys.argv[1:], modules=[fieldshift], start_timeout_s=3600)\n"
        "except UserError as error:\n"
        "    sys.exit(f'refused: {error}')\n"
        "print('status', outcome.status)\n"
        "sys.exit(outcome.exit_code)\n"
    )

    def run(variables: dict[str, str], code: int) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        argv = [sys.executable, str(script), sys.executable, str(program), str(tmp_path / "storage"), str(code)]
        return subprocess.run(argv, env=clean | variables, capture_output=True, text=True, check=False)

    without = run({"RAY_AUTH_MODE": "disabled"}, 0)
    assert without.returncode == 1
    assert "rejects this client's token" in without.stderr
    assert "RAY_AUTH_MODE=token" in without.stderr
    finished = run({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}, 3)
    assert "twice is 42" in finished.stdout, finished.stdout + finished.stderr
    assert "runtime_resources" in finished.stdout
    assert "status FAILED" in finished.stdout
    assert finished.returncode == 3


def test_a_study_is_submitted_stopped_resumed_and_fetched(cluster: tuple[str, str, str], tmp_path: Path) -> None:
    """The commands as a person types them, on a cluster whose own Python is in nobody's PATH."""
    url, token, _ = cluster
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    variables = clean | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "FOR_THE_JOB": "1"}

    def fieldshift(command: str, *words: str) -> str:
        argv = [sys.executable, "-m", "fieldshift.cli", command, "--address", url, *words]
        done = subprocess.run(argv, env=variables, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    options = (
        "--stages search compare --form folded --arms das-folded --seeds 1 --budgets equal-epochs --tta_copies 0 "
        "--search.epochs 60 --search.tune_epochs 0 --search.batch 25 --recipe.epochs 1 --recipe.batch 25 "
        "--loading.train_limit 100 --loading.test_limit 20"
    )
    study = ["study", *options.split(), f"--out={tmp_path / 'out'}"]
    name = fieldshift("submit", "--env", "FOR_THE_JOB", "--", *study).split()[1].rstrip(":")
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("out/**/search.pt")):
        assert time.monotonic() < deadline, fieldshift("logs", name)
        time.sleep(0.5)
    listed = fieldshift("jobs")
    assert name in listed
    assert "RUNNING" in listed
    assert "fieldshift study --stages search compare" in " ".join(listed.split())
    assert f"job {name}: STOPPED" in fieldshift("stop", name)
    printed = fieldshift("logs", name)
    assert "affine-one" in printed
    assert "--resume" in printed
    assert not (tmp_path / "out" / "result.json").exists()
    assert {"KILLED"} <= statuses(tmp_path / "out") <= {"KILLED", "FINISHED"}

    printed = fieldshift("submit", "--follow", "--", *study, "--resume")
    assert "1 of 1 trials" in printed
    (resumed,) = re.findall(r"^job (\w+): SUCCEEDED$", printed, re.MULTILINE)
    assert statuses(tmp_path / "out") == {"FINISHED"}

    listed = fieldshift("jobs")
    said = fieldshift("fetch", resumed, "--out", "fetched")
    assert [line.split()[:2] for line in fieldshift("jobs").splitlines()] == [
        line.split()[:2] for line in listed.splitlines()
    ]
    assert f"{tmp_path / 'out'} of the cluster is now in fetched" in said
    fetched = {path.name for path in (tmp_path / "fetched").rglob("*")}
    assert {
        "config.yaml",
        "data.json",
        "mlflow.db",
        "policy.json",
        "result.json",
        "weights.safetensors",
    } <= fetched
    assert not {"search.pt", "ray"} & fetched
    for name in ("config.yaml", "result.json"):
        assert (tmp_path / "fetched" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def statuses(folder: Path) -> set[str]:
    """Those of all MLflow runs in the store of a run folder."""
    from mlflow import MlflowClient

    store = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = store.search_runs([each.experiment_id for each in store.search_experiments()])
    return {run.info.status for run in runs}
