"""A head that is lost is said while Ray still waits for it."""

from __future__ import annotations

import itertools
import socket
import threading
from types import SimpleNamespace

import pytest

from fieldshift.cluster import watch

DEADLINE_S = 60.0


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(watch, "say", lines.append)
    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    return lines


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fieldshift-head-watch"]


@pytest.mark.parametrize("host", ["127.0.0.1", "[127.0.0.1]"])
def test_a_head_that_is_gone_is_said_once(host: str, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "AWAY_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as head:
        port = head.getsockname()[1]
        with watch.loss_said(f"{host}:{port}"):
            (watcher,) = watchers()
            accepted, _ = head.accept()  # it has looked
            accepted.close()
            assert not said
            head.close()
            watcher.join(DEADLINE_S)
            assert not watcher.is_alive()
    (line,) = said
    assert f"{host}:{port}, does not answer any more" in line
    assert "--resume continues on another cluster" in line
    assert not watchers()


@pytest.mark.parametrize(("away", "is_said"), [([5, 5, 5], False), ([5, 9], True)], ids=["in time", "too late"])
def test_the_time_counts_from_the_last_answer(
    away: list[int], is_said: bool, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look takes a second of this clock; between the times away the head answers once."""
    clock, done = itertools.count(), threading.Event()
    looks = iter([reason for count in away for reason in (*["refused"] * count, None)])

    def look(_host: str, _port: int) -> str | None:
        try:
            return next(looks)
        except StopIteration:
            done.set()
            return None

    monkeypatch.setattr(watch, "AWAY_S", 8)
    monkeypatch.setattr(watch, "refusal", look)
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    with watch.loss_said("127.0.0.1:1"):
        (watcher,) = watchers()
        while not done.wait(0.01) and watcher.is_alive():
            pass
    assert bool(said) == is_said
