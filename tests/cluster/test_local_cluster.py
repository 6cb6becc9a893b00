"""A cluster of this machine's own leaves no process, however it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from fieldshift.cluster import ClusterConfig, connect
from fieldshift.cluster.local_cluster import local_cluster
from fieldshift.errors import RunFailedError
from fieldshift.termination import terminate_like_interrupt

ray = pytest.importorskip("ray")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes of a stand-in for Ray that leaves them behind, as Ray does where it had to kill its node manager."""
    found: list[subprocess.Popen[bytes]] = []

    def init(**_settings: object) -> None:
        found.append(subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]))

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr("fieldshift.cluster.local_cluster.ENDING_S", 0.1)
    yield found
    for process in found:
        process.kill()
        process.wait()


def test_what_the_cluster_leaves_is_ended_and_other_processes_stay(started: list[subprocess.Popen[bytes]]) -> None:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as other:
        with local_cluster(str), subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as later:
            assert started[0].poll() is None
            assert later.poll() is None
            later.kill()
        assert started[0].wait(timeout=30) is not None
        assert other.poll() is None
        other.kill()


def test_a_cluster_that_fails_is_one_line(
    started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where its head was killed; an error of a function that ran there stays as it is."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    gone = ray.exceptions.ActorUnavailableError("failed to connect\nto all addresses", None)
    with (
        pytest.raises(
            RunFailedError, match=r"^The Ray cluster failed \(.*failed to connect to all.*\); .*--resume"
        ) as caught,
        connect(ClusterConfig(workers=1)),
    ):
        raise gone
    assert "\n" not in str(caught.value)
    with pytest.raises(ray.exceptions.RayTaskError), connect(ClusterConfig(workers=1)):
        raise ray.exceptions.RayTaskError("function", "traceback", ValueError("own"))
    assert len(started) == 2


@pytest.mark.parametrize("when", ["within", "after"])
def test_sigterm_at_the_end_interrupts_once_all_has_ended(
    started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Ray's `shutdown` resets SIGTERM below Python long before it returns; the signal would end this process."""
    library = ctypes.CDLL(None)
    reset = ctypes.create_string_buffer(256)  # an action of zeros is the default

    def action() -> bytes:
        """The handler's address: what follows the first fields of C's `struct sigaction` is not set."""
        found = ctypes.create_string_buffer(256)
        library.sigaction(signal.SIGTERM, None, found)
        return found.raw[: ctypes.sizeof(ctypes.c_void_p)]

    def shutdown() -> None:
        own = action()
        library.sigaction(signal.SIGTERM, reset, None)
        deadline = time.monotonic() + 30
        while when == "within" and action() != own and time.monotonic() < deadline:
            time.sleep(0.001)
        if when == "within":
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ray, "shutdown", shutdown)
    with terminate_like_interrupt() as termination:
        own = action()
        with pytest.raises(KeyboardInterrupt) if when == "within" else contextlib.nullcontext(), local_cluster(str):
            pass
        assert action() == own
    assert termination.received == (when == "within")
    assert started[0].wait(timeout=30) is not None


def test_sigterm_during_the_start_ends_what_was_started(
    started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's `init` puts a handler of its own in place, which exits with the number of the signal."""
    start = ray.init

    def exits(number: int, _frame: object) -> None:
        raise SystemExit(number)

    def init(**settings: object) -> None:
        signal.signal(signal.SIGTERM, exits)
        start(**settings)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(KeyboardInterrupt), terminate_like_interrupt() as termination, local_cluster(str):
        pass
    assert termination.received
    assert started[0].wait(timeout=30) is not None
