"""SIGTERM ends a command as Ctrl-C does."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from fieldshift import cli
from fieldshift.termination import terminate_like_interrupt


@pytest.mark.parametrize("on_ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
def test_sigterm_interrupts_and_its_handler_is_put_back(on_ctrl_c: object, request: pytest.FixtureRequest) -> None:
    """Also where Ctrl-C is ignored, as in what a shell starts in the background."""
    ours = signal.signal(signal.SIGINT, on_ctrl_c)  # type: ignore[arg-type]
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, ours))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminate_like_interrupt() as termination:
        os.kill(os.getpid(), signal.SIGTERM)
    assert termination.received
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    passed = []

    def run() -> None:
        with terminate_like_interrupt():
            passed.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert passed == [True]


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_command_that_is_ended_says_which_signal_it_was(
    number: int, status: int, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "dispatch", lambda _argv: os.kill(os.getpid(), number))
    assert cli.main(["study"]) == status
    assert capsys.readouterr().err == f"fieldshift: {word}.\n"
