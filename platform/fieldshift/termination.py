"""Handling of SIGTERM (`kill`, a stopped job) and SIGHUP (a closed terminal) like Ctrl-C: runs are closed, workers stopped."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

AGAIN_S = 5.0
"""A signal that follows the first within this time is the same one: `timeout`, shells and kernels send it twice."""


@dataclass
class Termination:
    """Records whether SIGTERM or SIGHUP was received, and when, on the monotonic clock."""

    received: bool = False
    at: float = 0.0


_current: list[Termination] = []


@contextlib.contextmanager
def terminate_like_interrupt() -> Iterator[Termination]:
    """Within the block SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does; `Termination` records which it was.

    It does so whatever a library made of SIGINT: Ray's handler waits for answers of a cluster that, where the signal went to a
    whole process group (as `timeout` and batch systems send it), has ended by then. A signal that is ignored, as SIGHUP under
    `nohup`, stays so. One that comes again at once does not interrupt what the first began. Outside the main thread,
    where signals cannot be handled, the block changes nothing.
    """
    termination = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield termination
        return

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if termination.received and now - termination.at < AGAIN_S:
            return
        termination.received, termination.at = True, now
        raise KeyboardInterrupt

    taken = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in taken}
    _current.append(termination)
    try:
        yield termination
    finally:
        _current.remove(termination)
        for number, handler in before.items():
            if handler is not None:  # one that was not set from Python
                signal.signal(number, handler)


def is_terminated() -> bool:
    """Whether this process has received SIGTERM or SIGHUP and is ending."""
    return any(termination.received for termination in _current)


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Restores this process's signal handlers after the block, in which a library may put its own in their place.

    A SIGTERM that a library took without ending the block raises KeyboardInterrupt at its end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
    if is_terminated():
        raise KeyboardInterrupt
