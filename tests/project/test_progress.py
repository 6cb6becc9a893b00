"""A deadline that waits for progress ends what only waits, and leaves alone what works, here or in a process below."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading

import pytest

from tests.progress import Work, fair_share, progress_awaited

BUSY = "import time\nwhile time.process_time() < {seconds}: pass"
QUICK = {"work_s": 0.3, "look_s": 0.5}


@pytest.fixture(autouse=True)
def idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.1, 0.1))


@pytest.mark.parametrize(("load", "share"), [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (4.0, 0.5), (40.0, 0.05)])
def test_less_work_is_asked_for_where_many_want_to_run(
    load: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, load, load))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert fair_share() == pytest.approx(share)


def test_what_only_waits_fails() -> None:
    with (
        pytest.raises(pytest.fail.Exception, match=r"did less than 0\.\d+ s of work in 2 s"),
        progress_awaited(2, **QUICK),
    ):
        threading.Event().wait(60)


def test_what_works_longer_than_the_patience_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = itertools.count()
    monkeypatch.setattr(Work, "look", lambda self: next(steps))
    with progress_awaited(1, work_s=1, look_s=0.2):
        threading.Event().wait(2)


@pytest.mark.parametrize("name", ["plain", "ray/dashboard"])
def test_work_of_a_process_below_and_the_start_of_a_daemon_of_ray_count(name: str) -> None:
    work = Work(os.getpid())
    with subprocess.Popen([sys.executable, "-c", BUSY.format(seconds=1), name]) as below:
        while below.poll() is None:
            work.look()
    assert work.look() >= 1


def test_a_process_that_is_named_as_a_daemon_of_ray_does_not_count() -> None:
    program = BUSY.format(seconds=60)
    with pytest.raises(pytest.fail.Exception), progress_awaited(2, **QUICK, start_s=0):
        subprocess.run([sys.executable, "-c", program, "ray/dashboard"], check=True)
