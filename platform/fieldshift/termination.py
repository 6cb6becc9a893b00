"""SIGTERM (from `kill` or a stopped job) ends a command as Ctrl-C does: runs are closed and workers are ended."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass
class Termination:
    """Records whether SIGTERM was received."""

    received: bool = False


@contextlib.contextmanager
def terminate_like_interrupt() -> Iterator[Termination]:
    """Within the block SIGTERM raises KeyboardInterrupt, as Ctrl-C does; `Termination` records which of the two it was.

    Outside the main thread, where signals cannot be handled, the block changes nothing.
    """
    termination = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield termination
        return

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        termination.received = True
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in a shell's background
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield termination
    finally:
        signal.signal(signal.SIGTERM, before)
