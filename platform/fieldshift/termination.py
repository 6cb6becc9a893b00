"""Handling of SIGTERM (`kill`, a stopped job) and SIGHUP (a closed terminal) like Ctrl-C: runs are closed, workers stopped."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from fieldshift.background import beside

ACTION_BYTES, HANDLER_BYTES = 256, ctypes.sizeof(ctypes.c_void_p)
"""More than C's `struct sigaction` takes on any system, and what the handler at its begin takes."""

LOOK_S = 0.001
"""How often `action_held` looks whether a signal's action was reset."""

AGAIN_S = 5.0
"""A signal that follows the first within this time is the same one: `timeout`, shells and kernels send it twice."""


@dataclass
class Termination:
    """Records whether SIGTERM or SIGHUP was received, and when, on the monotonic clock."""

    received: bool = False
    at: float = 0.0

    def receive(self) -> None:
        self.received, self.at = True, time.monotonic()


_current: list[Termination] = []
_deferred: list[bool] = []
"""One entry while signals are deferred."""


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
        if termination.received and time.monotonic() - termination.at < AGAIN_S:
            return
        termination.receive()
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
def _handlers_kept() -> Iterator[None]:
    """Restores this process's signal handlers after the block, in which a library may put others in their place.

    Outside the main thread, where signals cannot be handled, the block changes nothing.
    """
    is_main = threading.current_thread() is threading.main_thread()
    taken = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1) if is_main else ()
    before = {number: signal.getsignal(number) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


@contextlib.contextmanager
def action_held(number: signal.Signals) -> Iterator[None]:
    """Within the block and after it, a signal's action stays what it was, also where a library resets it below Python.

    Ray's `shutdown` resets SIGTERM so, a second before its processes have ended: `signal.getsignal` still shows the handler,
    but the signal would end the process. A thread looks every LOOK_S and puts the action back: only a signal within that
    time still does.
    """
    library = ctypes.CDLL(None)
    own, seen = (ctypes.create_string_buffer(ACTION_BYTES) for _ in range(2))
    library.sigaction(number, None, own)

    def put_back() -> None:
        library.sigaction(number, None, seen)
        if seen.raw[:HANDLER_BYTES] != own.raw[:HANDLER_BYTES]:
            library.sigaction(number, own, None)

    def watch(over: threading.Event) -> None:
        while not over.wait(LOOK_S):
            put_back()

    try:
        with beside(watch, "signal action"):
            yield
    finally:
        put_back()


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Restores this process's signal handlers after the block; a SIGTERM that a library took raises KeyboardInterrupt.

    It does so at the end of the block, or at once where the library's handler exits.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handlers_kept():
        try:
            yield
        except SystemExit as exit_:
            if exit_.code != signal.SIGTERM:
                raise
            for termination in _current:
                termination.receive()
    if is_terminated():
        raise KeyboardInterrupt


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Within the block SIGINT, SIGTERM and SIGHUP wait for its end; one that comes again after AGAIN_S does not.

    For short work that must not be left half done. Within another such block it changes nothing, nor outside the main thread,
    where no signals arrive.
    """
    if threading.current_thread() is not threading.main_thread() or _deferred:
        yield
        return
    before: dict[int, Callable[[int, FrameType | None], Any]] = {}
    waiting: list[tuple[int, float]] = []
    is_over = False

    def wait(number: int, frame: FrameType | None) -> None:
        if is_over or (waiting and time.monotonic() - waiting[0][1] > AGAIN_S):
            before[number](number, frame)
        else:
            waiting.append((number, time.monotonic()))

    try:
        _deferred.append(True)
        for taken in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            handler = signal.getsignal(taken)
            if callable(handler):
                before[taken] = handler
                signal.signal(taken, wait)
        yield
    finally:
        is_over = True
        _deferred.clear()
        for number, earlier in before.items():
            signal.signal(number, earlier)
        for number, _ in waiting:
            signal.raise_signal(number)
