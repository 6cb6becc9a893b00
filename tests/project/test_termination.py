"""SIGTERM and a closed terminal end a command as Ctrl-C does."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import threading

import pytest

from fieldshift import cli
from fieldshift.termination import own_signals, signals_deferred, terminate_like_interrupt


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("on_ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
def test_a_signal_interrupts_and_its_handler_is_put_back(
    sent: signal.Signals, on_ctrl_c: object, request: pytest.FixtureRequest
) -> None:
    """Also where Ctrl-C is ignored, as in what a shell starts in the background."""
    ours = signal.signal(signal.SIGINT, on_ctrl_c)  # type: ignore[arg-type]
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, ours))
    before = signal.signal(sent, signal.SIG_DFL)
    request.addfinalizer(lambda: signal.signal(sent, before))
    with pytest.raises(KeyboardInterrupt), terminate_like_interrupt() as termination:
        os.kill(os.getpid(), sent)
    assert termination.received
    assert signal.getsignal(sent) == signal.SIG_DFL


def test_a_signal_that_is_sent_twice_does_not_interrupt_the_end_that_it_began() -> None:
    cleaned = []
    with pytest.raises(KeyboardInterrupt), terminate_like_interrupt() as termination:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned.append(True)
    assert cleaned == [True]
    with pytest.raises(KeyboardInterrupt), terminate_like_interrupt() as termination:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        termination.at -= 60  # a person who asks again
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_closed_terminal_takes_no_last_word_and_the_status_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(cli, "dispatch", lambda _argv: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr("sys.stderr", Closed())
    assert cli.main(["study"]) == 143


def test_a_command_under_nohup_outlives_its_terminal(request: pytest.FixtureRequest) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    request.addfinalizer(lambda: signal.signal(signal.SIGHUP, before))
    with terminate_like_interrupt() as termination:
        os.kill(os.getpid(), signal.SIGHUP)
    assert not termination.received


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
    number: int,
    status: int,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr(cli, "dispatch", lambda _argv: os.kill(os.getpid(), number))
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, ours))
    assert cli.main(["study"]) == status
    assert capsys.readouterr().err == f"fieldshift: {word}.\n"


def test_a_library_that_takes_signals_gives_them_back_and_loses_none() -> None:
    taken: list[int] = []

    def library(number: int, _frame: object) -> None:
        taken.append(number)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), terminate_like_interrupt() as termination, own_signals():
        signal.signal(signal.SIGINT, library)
        os.kill(os.getpid(), signal.SIGINT)
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert termination.received
    assert taken == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) == before


def test_a_command_that_ends_well_after_sigterm_still_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def swallowing(_argv: list[str]) -> int:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        return 0

    monkeypatch.setattr(cli, "dispatch", swallowing)
    assert cli.main(["ui"]) == 143


def test_an_exit_that_a_library_makes_of_sigterm_is_an_interrupt() -> None:
    def library(number: int, _frame: object) -> None:
        raise SystemExit(number)

    with pytest.raises(KeyboardInterrupt), terminate_like_interrupt() as termination, own_signals():
        signal.signal(signal.SIGTERM, library)
        os.kill(os.getpid(), signal.SIGTERM)
    assert termination.received
    with pytest.raises(SystemExit), terminate_like_interrupt() as termination, own_signals():
        raise SystemExit(1)
    assert not termination.received


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_deferred_signals_wait_for_the_end_of_the_work(number: int, request: pytest.FixtureRequest) -> None:
    ours, inherited = (
        signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    request.addfinalizer(lambda: (signal.signal(signal.SIGINT, ours), signal.signal(signal.SIGHUP, inherited)))
    done = []
    with terminate_like_interrupt():
        before = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt), signals_deferred():
            os.kill(os.getpid(), number)
            done.append(True)
        assert done == [True]
        assert signal.getsignal(number) == before


def test_a_deferred_signal_is_not_lost_where_the_work_fails(request: pytest.FixtureRequest) -> None:
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, ours))
    with pytest.raises(KeyboardInterrupt) as caught, signals_deferred():
        os.kill(os.getpid(), signal.SIGINT)
        raise OSError("the disk is full")
    assert isinstance(caught.value.__context__, OSError)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_person_who_asks_again_does_not_wait(
    depth: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, ours))
    monkeypatch.setattr("fieldshift.termination.AGAIN_S", 0.0)
    done = []
    with pytest.raises(KeyboardInterrupt), contextlib.ExitStack() as blocks:
        for _ in range(depth):
            blocks.enter_context(signals_deferred())
        os.kill(os.getpid(), signal.SIGINT)
        done.append("first")
        os.kill(os.getpid(), signal.SIGINT)
        done.append("second")
    assert done == ["first"]
