"""A deadline that waits for progress: for processor time of the tests' own processes, however slow the machine is."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import psutil
import pytest

from fieldshift.background import beside

LOOK_S = 5.0
# Seconds of processor time that count as progress; a driver that only waits for Ray uses less in all its patience.
WORK_S = 10.0
# What a Ray cluster that has nothing to do keeps doing is no progress of a test, but its processes' start is.
START_S = 20.0
ALWAYS_BUSY = ("gcs_server", "raylet", "ray/dashboard", "ray/_private/log_monitor", "ray/_private/runtime_env")


class Work:
    """Counts the processor time of a process and of all below it, those that have ended included."""

    def __init__(self, pid: int, start_s: float = START_S) -> None:
        self._root, self._start_s = psutil.Process(pid), start_s
        self._known: dict[tuple[int, float], float] = {}
        self.seconds = 0.0
        self.look()
        self.seconds = 0.0

    def look(self) -> float:
        """The seconds since the count began."""
        for process in [self._root, *self._root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                key, spent = (process.pid, process.create_time()), sum(process.cpu_times()[:4])
                words = " ".join(process.cmdline())
                if any(name in words for name in ALWAYS_BUSY):
                    spent = min(spent, self._start_s)
                self.seconds += max(0.0, spent - self._known.get(key, 0.0))
                self._known[key] = spent
        return self.seconds


def fair_share() -> float:
    """The part of a core that a process may hope for while as many want to run as now, at most 1."""
    return min(1.0, (os.cpu_count() or 1) / max(os.getloadavg()[0], 1e-3))


@contextlib.contextmanager
def progress_awaited(
    patience_s: float, *, work_s: float = WORK_S, look_s: float = LOOK_S, start_s: float = START_S
) -> Iterator[None]:
    """Fails the test in the block when `patience_s` pass in which its processes do not work for `work_s` together.

    Where more processes want to run than there are cores, so much less work is asked of them.
    """

    def fail(_signal: int, _frame: FrameType | None) -> None:
        faulthandler.dump_traceback(file=sys.__stderr__)
        pytest.fail(
            f"The processes of this test did less than {work_s * fair_share():.2g} s of work in {patience_s:g} s."
        )

    def watch(over: threading.Event) -> None:
        work, begun, waited = Work(os.getpid(), start_s), 0.0, 0.0
        while not over.wait(look_s):
            waited += look_s
            if work.look() - begun >= work_s * fair_share():
                begun, waited = work.seconds, 0.0
            elif waited >= patience_s:
                os.kill(os.getpid(), signal.SIGALRM)
                return

    before = signal.signal(signal.SIGALRM, fail)
    try:
        with beside(watch, "progress"):
            yield
    finally:
        signal.signal(signal.SIGALRM, before)
