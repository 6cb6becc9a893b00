"""Output for people: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import textwrap
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

from fieldshift.wording import printable

if TYPE_CHECKING:
    from rich.console import Console

_QUOTED = re.compile(r"(?<![^\s(\[])'[^'\n]*'(?!\w)")  # not the apostrophe within a word
_BLANK = "\0"  # replaces a space within quotation marks while a line is wrapped

# The length of a bar in characters, and the screen width above which the longer one is used.
NARROW_BAR, WIDE_BAR, WIDE_SCREEN = 10, 30, 110
ESTIMATE_SCREEN = 80  # a narrower one shows no remaining time

# The remaining time is estimated from so many seconds on, and from the later part of the time so far.
ESTIMATED_AFTER_S, LATER_PART = 10.0, 0.5


def console() -> Console:
    """The console of standard output, wide enough for tables where it is not a terminal."""
    from rich.console import Console

    if on_terminal():
        return Console(highlight=False, soft_wrap=False)
    return Console(highlight=False, width=120, no_color=True, force_terminal=False)


def on_terminal() -> bool:
    """Whether standard output is a terminal; a process that was started with it closed has none."""
    return sys.stdout is not None and sys.stdout.isatty()


def open_closed_streams() -> None:
    """Gives a process that was started with a closed standard stream (`>&-`) one to nowhere.

    Python has None for such a stream, and the next file that is opened would take its number: what a library or a child
    process writes to standard output would go into that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, so this one
        if getattr(sys, name) is None and number > 0:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - until the process ends


class LastingOutput:
    """A stream that continues without its reader: after a pipe or terminal is closed at the other end, output is discarded."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        if error.errno not in {errno.EPIPE, errno.EIO}:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Within the block, closing standard output (as `head` does) does not end the program."""
    before = sys.stdout
    if before is None:  # closed from the start: nothing is printed
        yield
        return
    sys.stdout = cast("TextIO", LastingOutput(before))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = before


def say(line: str = "", *, whole: bool = False) -> None:
    """Prints one line and flushes it. A narrow terminal gets it wrapped between words unless `whole`."""
    if on_terminal() and not whole:
        line = broken(line, shutil.get_terminal_size().columns)
    print(line, flush=True)


def complain(line: str) -> None:
    """Prints one line to standard error, prefixed with "fieldshift: ", wrapped between words on a narrow terminal."""
    line = f"fieldshift: {line}"
    if sys.stderr is None:
        return
    with suppress(OSError):  # the terminal is closed
        print(broken(line, columns_of(sys.stderr)) if sys.stderr.isatty() else line, file=sys.stderr, flush=True)


def columns_of(stream: TextIO) -> int:
    """The width of the terminal behind a stream, 80 if unknown."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def broken(text: str, width: int) -> str:
    """Wraps text to lines of at most `width` characters, between words; a longer word, such as a path, is not split.

    Text in quotation marks counts as one word, so that a path with spaces can be pasted. Lines that fit are unchanged;
    continuation lines are indented by two more spaces.
    """
    lines: list[str] = []
    for line in text.split("\n"):
        hang = " " * (len(line) - len(line.lstrip()) + 2)
        if len(line) <= width:
            lines.append(line)
            continue
        whole = _QUOTED.sub(lambda found: found[0].replace(" ", _BLANK), line)
        lines += textwrap.wrap(whole, width, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(_BLANK, " ")


def duration(seconds: float) -> str:
    """Formats seconds for people: 0:07, 2:31, 1:04:09."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@dataclass
class Progress:
    """Counts `total` units of work; `advance` and `show` report the progress and the estimated remaining time.

    On a terminal one bar is redrawn; elsewhere a line is printed at most every `interval` seconds and at the end.
    It belongs to the process that it prints from and cannot be pickled.
    """

    title: str
    total: float
    interval: float = 5.0
    done: float = 0.0
    note: str = ""
    found: float = 0.0  # of the work done, what an earlier run did
    _parts: dict[str, float] = field(default_factory=dict)
    _bar: Any = None
    _task: Any = None
    _started: float = field(default_factory=time.perf_counter)
    _last: float = 0.0
    _marks: deque[tuple[float, float]] = field(default_factory=deque)
    _estimate: tuple[float, float, float] | None = None  # seconds left at the last mark, its time, the least left later

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Progress stays in the process that shows it; send plain values to other processes.")

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        self.show(self.done + amount, note)

    def show_part(self, key: str, done: float, note: str = "", *, unit: float = 0.0) -> None:
        """Sets the work done of one of several parts that run side by side and report after each `unit` of work.

        What the first report of a part has beyond one unit was done by an earlier run, and does not count as speed.
        """
        if key not in self._parts:
            self.found += max(0.0, done - unit)
        self._parts[key] = done
        self.show(sum(self._parts.values()), note)

    def show(self, done: float, note: str = "") -> None:
        """Sets the work done so far."""
        self.done, self.note = min(done, self.total), note
        elapsed, own = time.perf_counter() - self._started, self.done - self.found
        if self._marks and not self._marks[-1][1] > 0:  # from here to the first report it may have been starting
            self._marks.clear()
        self._marks.append((elapsed, own))
        while len(self._marks) > 1 and self._marks[1][0] <= LATER_PART * elapsed:
            self._marks.popleft()
        self._estimate = self._estimated()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=note)
            return
        if self.done < self.total and elapsed - self._last >= self.interval:
            self._last = elapsed
            self._print()

    def finish(self) -> None:
        """Marks all work as done, whatever the expected total."""
        self.done = self.total
        if self._bar is not None:
            self._bar.update(self._task, completed=self.total)
        else:
            self._print()

    def left(self) -> str:
        """The estimated remaining time, such as "about 2:10 left"; "" at the start and at the end.

        The rate is that of the later half of the time so far: what a resumed run finds done does not count as speed.
        Between two reports the time counts down, by no more than the time that a report usually takes.
        """
        if self._estimate is None or not self.done < self.total:
            return ""
        remaining, at, least = self._estimate
        since = time.perf_counter() - self._started - at
        return f"about {duration(max(remaining - since, least))} left"

    def _estimated(self) -> tuple[float, float, float] | None:
        """The seconds left at the last mark, the time of that mark, and the seconds left at the next one."""
        (since, before), (elapsed, done) = self._marks[0], self._marks[-1]
        if elapsed < ESTIMATED_AFTER_S or done <= before:
            return None
        pace = (elapsed - since) / (done - before)
        step = max(0.0, done - self._marks[-2][1])
        left = self.total - self.done
        return left * pace, elapsed, max(0.0, left - step) * pace

    def _print(self) -> None:
        share = self.done / self.total if self.total else 1.0
        passed = duration(time.perf_counter() - self._started)
        say("  ".join(part for part in (f"  {self.title} {share:4.0%}", passed, self.left(), self.note) if part))


@contextmanager
def progress(title: str, total: float) -> Iterator[Progress]:
    """A `Progress` that ends at 100 % with its block; after an error it stops where it is."""
    if not on_terminal():
        shown = Progress(title, total)
        yield shown
        shown.finish()
        return
    from rich.progress import BarColumn, ProgressColumn, Task, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar
    from rich.table import Column
    from rich.text import Text

    class Remaining(ProgressColumn):
        """The estimated remaining time, as of now."""

        def render(self, _task: Task) -> Text:
            return Text(estimate())

    class Note(TextColumn):
        """The note, in what the other columns leave of the screen as it is now: a longer one would push them out."""

        def get_table_column(self) -> Column:
            passed = len(str(timedelta(seconds=int(time.perf_counter() - shown._started))))
            free = screen.width - taken - max(len("0:00:00"), passed) - len(estimate())
            return Column(no_wrap=True, overflow="ellipsis", max_width=max(1, free))

    def estimate() -> str:
        return shown.left() if screen.width >= ESTIMATE_SCREEN else ""

    shown, screen = Progress(title, total), console()
    width = WIDE_BAR if screen.width >= WIDE_SCREEN else NARROW_BAR
    columns = (
        TextColumn("  {task.description}", markup=False, table_column=Column(no_wrap=True, min_width=len(title) + 2)),
        BarColumn(bar_width=width, table_column=Column(min_width=width)),
        TaskProgressColumn(table_column=Column(no_wrap=True, min_width=4)),
        TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
        Remaining(table_column=Column(no_wrap=True)),
        Note("{task.fields[note]}", style="dim", markup=False),
    )
    taken = len(title) + 2 + width + len("100%") + len(columns) - 1
    with Bar(*columns, console=screen) as bar:
        shown._bar, shown._task = bar, bar.add_task(title, total=total, note="")
        yield shown
        shown.finish()


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = (), whole: Collection[str] = ()
) -> None:
    """Prints rows below their column names; cells are plain text, and none is cut.

    `right`: right-aligned columns. `whole`: columns whose cells, such as names to copy, stay on one line.
    """
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False)
    for name in columns:
        shown.add_column(
            Text(name), justify="right" if name in right else "left", overflow="fold", no_wrap=name in whole
        )
    for row in rows:
        shown.add_row(*(Text(printable(cell)) for cell in row))
    console().print(shown)
