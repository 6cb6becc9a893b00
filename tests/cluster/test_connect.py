"""Checks before any work, and what is put back afterwards."""

import os
import socket
import sys

import pytest

from fieldshift.cluster import ClusterConfig, check_fits, connect
from fieldshift.cluster.local_cluster import _import_path
from fieldshift.cluster.resources import Resources, local_device, preflight, worker_gpus
from fieldshift.cluster.variables import environment
from fieldshift.errors import UserError


@pytest.mark.parametrize(
    ("cluster", "workers", "held", "wanted"),
    [
        (ClusterConfig(), 3, Resources(2, 0), "Too few CPU cores for 3 workers: 3 needed, but the cluster has 2"),
        (
            ClusterConfig(cpus_per_worker=4),
            2,
            Resources(6, 0),
            "Too few CPU cores for 2 workers: 8 needed, but the cluster has 6",
        ),
        (
            ClusterConfig(gpus_per_worker=1),
            2,
            Resources(8, 1),
            "Too few GPUs for 2 workers: 2 needed, but the cluster has 1",
        ),
        (
            ClusterConfig(gpus_per_worker=1),
            1,
            Resources(8, 0),
            "Too few GPUs for 1 worker: 1 needed, but the cluster has 0",
        ),
        (ClusterConfig(), 2, Resources(8, 1), "Too few GPUs for 2 workers: 2 needed, but the cluster has 1"),
    ],
)
def test_more_than_the_cluster_has_is_refused_with_both_numbers(
    cluster: ClusterConfig, workers: int, held: Resources, wanted: str
) -> None:
    with pytest.raises(UserError) as caught:
        preflight(cluster, workers, held)
    assert str(caught.value).startswith(wanted)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cluster", "workers", "held"),
    [
        (ClusterConfig(), 2, Resources(2, 0)),
        (ClusterConfig(gpus_per_worker=0.5), 2, Resources(2, 1)),
        (ClusterConfig(gpus_per_worker=0), 2, Resources(2, 1)),
        (ClusterConfig(), 2, Resources(2, 2)),
    ],
)
def test_what_fits_passes(cluster: ClusterConfig, workers: int, held: Resources) -> None:
    preflight(cluster, workers, held)


@pytest.mark.parametrize(("asked", "there", "given"), [(None, 0, 0), (None, 4, 1), (0, 4, 0), (0.25, 0, 0.25)])
def test_a_worker_takes_a_gpu_where_there_is_one(asked: float | None, there: float, given: float) -> None:
    assert worker_gpus(ClusterConfig(gpus_per_worker=asked), there) == given


@pytest.mark.parametrize(
    ("available", "asked", "device"), [(True, None, "cuda:0"), (True, 0, "cpu"), (False, None, "cpu")]
)
def test_the_device_of_this_process(
    monkeypatch: pytest.MonkeyPatch, available: bool, asked: float | None, device: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: available)
    assert local_device(ClusterConfig(gpus_per_worker=asked)) == device


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="this machine has 0 GPUs"):
        local_device(ClusterConfig(gpus_per_worker=1))


def test_an_address_where_nothing_answers_is_said_at_once() -> None:
    with socket.socket() as held_back:
        held_back.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held_back.getsockname()[1]}"
        with (
            pytest.raises(UserError, match=f"Nothing answers at cluster.address {address}"),
            connect(ClusterConfig(address=address)),
        ):
            pass


@pytest.mark.parametrize("address", ["head", "head:port", "head:"])
def test_an_address_without_a_port_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="must be HOST:PORT"), connect(ClusterConfig(address=address)):
        pass


def test_without_ray_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.train", None)
    with pytest.raises(UserError, match="needs Ray, which is not installed"), connect(ClusterConfig(workers=1)):
        pass


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSHIFT_TEST_KEPT", "before")
    monkeypatch.delenv("FIELDSHIFT_TEST_NEW", raising=False)
    with environment({"FIELDSHIFT_TEST_KEPT": "within", "FIELDSHIFT_TEST_NEW": "within"}):
        assert (os.environ["FIELDSHIFT_TEST_KEPT"], os.environ["FIELDSHIFT_TEST_NEW"]) == ("within", "within")
    assert os.environ["FIELDSHIFT_TEST_KEPT"] == "before"
    assert "FIELDSHIFT_TEST_NEW" not in os.environ


def test_workers_find_what_this_process_imports_from_outside_its_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), sys.prefix, *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), "own"]))
    entries = _import_path().split(os.pathsep)
    assert entries.count(str(tmp_path)) == 1
    assert sys.prefix not in entries
    assert entries[-1] == "own"


def test_what_does_not_fit_is_refused_without_starting_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("a check starts no cluster"))
    cores = os.cpu_count() or 1
    check_fits(ClusterConfig(gpus_per_worker=0), cores)
    with pytest.raises(
        UserError, match=f"^Too few CPU cores for {cores + 1} workers: {cores + 1} needed, but .* has {cores};"
    ):
        check_fits(ClusterConfig(gpus_per_worker=0), cores + 1)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(UserError, match="^Too few GPUs for 1 worker: 1 needed, but the cluster has 0;"):
        check_fits(ClusterConfig(gpus_per_worker=1), 1)
    check_fits(ClusterConfig(gpus_per_worker=0), 0)


def free_address() -> str:
    with socket.socket() as held_back:
        held_back.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{held_back.getsockname()[1]}"


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_a_cluster_of_the_environment_that_is_gone_is_said_at_once(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"{prefix}{free_address()}")
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("nothing answers there"))
    for begin in (lambda: check_fits(ClusterConfig(), 1), lambda: connect(ClusterConfig()).__enter__()):
        with pytest.raises(UserError, match=r"Nothing answers at RAY_ADDRESS 127.*; start .* or unset RAY_ADDRESS\.$"):
            begin()


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "head", ":1", "head:port", "127.0.0.1:65536"])
def test_an_address_of_the_environment_that_is_none_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=r"RAY_ADDRESS is '.*', but must be HOST:PORT .* or unset RAY_ADDRESS"):
        check_fits(ClusterConfig(), 1)


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_too_long_for_the_sockets_is_refused_before_a_cluster_starts(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_ADDRESS", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "/" + "x" * 90)
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("a check starts no cluster"))
    with pytest.raises(UserError, match=rf"^{variable} is /x+, which is \d+ bytes too long .* RAY_TMPDIR=/tmp"):
        check_fits(ClusterConfig(gpus_per_worker=0), 1)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    check_fits(ClusterConfig(gpus_per_worker=0), 1)
