"""Calls on a pseudo-terminal or on a pipe in place of this process's streams, and the screen that a person would see."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

END = b"\0end of output\0"
SIZE_OF_SCREEN = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")

_PIECE = re.compile(
    r"\x1b\[(?P<numbers>[?\d;]*)(?P<command>[A-Za-z])|\x1b\](?P<title>[^\x07\x1b]*)(?:\x07|\x1b\\)|(?s:.)"
)


@dataclass(frozen=True)
class Shown:
    """What a call wrote: its status, every character as it was sent, and the lines of the screen after the last.

    `broken` are the lines of the program that were wider than the terminal, as the terminal had to break them.
    """

    status: int
    sent: str
    lines: list[str]
    broken: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What stands on the screen, each run of white space as one blank: a line may be wrapped anywhere."""
        return " ".join(" ".join(self.lines).split())

    def bar(self, title: str) -> str:
        """The last line of a progress bar: a share and a time, unlike text that was wrapped before the same word."""
        bar = re.compile(rf"  {re.escape(title)} .*\d+% +(\d+ days?, )?\d+:\d\d")
        return [line for line in self.lines if bar.match(line)][-1]


@dataclass
class Screen:
    """A terminal of so many columns, with all lines that scrolled away. An unknown control sequence is an error."""

    columns: int
    lines: list[list[str]] = field(default_factory=lambda: [[]])
    row: int = 0
    column: int = 0
    wrapped: set[int] = field(default_factory=set)
    cursor_hidden: bool = False

    def write(self, text: str) -> None:
        for piece in _PIECE.finditer(text):
            if piece["command"]:
                self.control(piece["command"], piece["numbers"])
            elif piece["title"] is None:
                self.character(piece[0])

    def control(self, command: str, numbers: str) -> None:
        amount = int(numbers) if numbers.isdigit() else 0
        line = self.lines[self.row]
        match command:
            case "m":
                pass
            case "A":
                self.row = max(0, self.row - max(amount, 1))
            case "K" if amount == 2:
                line.clear()
            case "K" if amount == 0:
                del line[self.column :]
            case "h" | "l" if numbers == "?25":
                self.cursor_hidden = command == "l"
            case _:
                raise AssertionError(f"The terminal of the tests knows no control sequence ESC[{numbers}{command}.")

    def character(self, character: str) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.down()
        else:
            assert character.isprintable(), f"{character!r} is sent to the screen"
            if self.column == self.columns:
                self.down()
                self.wrapped.add(self.row)
                self.column = 0
            line = self.lines[self.row]
            line += [" "] * (self.column - len(line))
            line[self.column : self.column + 1] = [character]
            self.column += 1

    def down(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append([])

    def text(self) -> list[str]:
        """The lines without blanks at their ends; one that the terminal broke is several of them."""
        return ["".join(line).rstrip() for line in self.lines]

    def broken(self) -> list[str]:
        lines = self.text()
        return [lines[row - 1] + lines[row] for row in sorted(self.wrapped)]


def in_terminal(call: Callable[[], int], columns: int = 80) -> Shown:
    """Calls on a pseudo-terminal: standard input, output and error are one."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    status, sent = _captured(call, ours, theirs, streams=(0, 1, 2))
    screen = Screen(columns)
    screen.write(sent)
    assert not screen.cursor_hidden, "the cursor is left hidden"
    return Shown(status, sent, screen.text(), screen.broken())


def in_pipe(call: Callable[[], int], columns: int = 80) -> Shown:
    """Calls with standard output and error in a pipe."""
    ours, theirs = os.pipe()
    status, sent = _captured(call, ours, theirs, streams=(1, 2))
    assert "\x1b" not in sent, "control sequences are sent into a pipe"
    return Shown(status, sent, sent.splitlines())


PLACES = {"terminal": in_terminal, "pipe": in_pipe}


def _captured(call: Callable[[], int], ours: int, theirs: int, streams: tuple[int, ...]) -> tuple[int, str]:
    received = bytearray()

    def receive() -> None:
        while not received.endswith(END):
            received.extend(os.read(ours, 65536))

    reader = threading.Thread(target=receive, name="terminal", daemon=True)
    reader.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TERM", "xterm-256color")
            for name in SIZE_OF_SCREEN:
                patch.delenv(name, raising=False)
            with _streams(theirs, streams):
                status = call()
    finally:
        os.write(theirs, END)
        reader.join(60)
        os.close(theirs)
        os.close(ours)
    assert not reader.is_alive()
    return status, received.removesuffix(END).decode()


@contextlib.contextmanager
def _streams(target: int, streams: tuple[int, ...]) -> Iterator[None]:
    """Puts `target` in the place of these file descriptors, and Python's streams on top of it."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = {number: os.dup(number) for number in streams}
    try:
        for number in streams:
            os.dup2(target, number)
        with (
            open(1, "w", buffering=1, closefd=False, encoding="utf-8") as out,
            open(2, "w", buffering=1, closefd=False, encoding="utf-8") as error,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(error),
        ):
            yield
    finally:
        for number, before in kept.items():
            os.dup2(before, number)
            os.close(before)
