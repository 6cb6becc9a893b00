"""Watches whether the head of the Ray cluster still answers."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from fieldshift.console import say
from fieldshift.ports import refusal

LOOK_S = 5.0
"""Seconds between two looks."""
AWAY_S = 20.0
"""Seconds without an answer after which it is said. Ray ends the process by itself, without an exception, after 60."""


@contextlib.contextmanager
def loss_said(address: str | None) -> Iterator[None]:
    """Says once, during the block, that nothing has answered at HOST:PORT for AWAY_S, and what continues the command."""
    if address is None:
        yield
        return
    host, _, port = address.rpartition(":")
    over = threading.Event()

    def watch() -> None:
        answered = time.monotonic()
        while not over.wait(LOOK_S):
            if refusal(host.strip("[]"), int(port)) is None:
                answered = time.monotonic()
            elif time.monotonic() - answered >= AWAY_S:
                say(
                    f"  the head of the Ray cluster, {address}, does not answer any more; unless it comes back, Ray ends this "
                    "command within a minute, and the same command with --resume continues on another cluster"
                )
                return

    watching = threading.Thread(target=watch, daemon=True, name="fieldshift-head-watch")
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
