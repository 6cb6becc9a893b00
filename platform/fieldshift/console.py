"""What a person sees while something runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """The console of standard output, wide enough for the tables where it is not a terminal."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False, soft_wrap=False)
    return Console(highlight=False, width=120, no_color=True, force_terminal=False)


def say(line: str = "") -> None:
    """Prints one line as it is, at once."""
    print(line, flush=True)


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 0:07, 2:31, 1:04:09."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@dataclass
class Progress:
    """Counts `total` units of work; `advance` and `note` tell the person how far it is.

    On a terminal one bar is redrawn; elsewhere a line is printed at most every `interval` seconds and at the end.
    It belongs to the process whose output it writes to, so it cannot be pickled, on a terminal or elsewhere.
    """

    title: str
    total: float
    interval: float = 5.0
    done: float = 0.0
    _bar: Any = None
    _task: Any = None
    _started: float = field(default_factory=time.perf_counter)
    _last: float = 0.0

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Progress stays in the process that shows it; send plain values to other processes.")

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        self.show(self.done + amount, note)

    def show(self, done: float, note: str = "") -> None:
        """Sets the work done so far."""
        self.done = min(done, self.total)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=note)
            return
        elapsed = time.perf_counter() - self._started
        if elapsed - self._last >= self.interval or self.done >= self.total:
            self._last = elapsed
            share = self.done / self.total if self.total else 1.0
            say(f"  {self.title} {share:4.0%}  {duration(elapsed)}  {note}".rstrip())


@contextmanager
def progress(title: str, total: float) -> Iterator[Progress]:
    """A `Progress` that is closed, whatever happens inside."""
    if not sys.stdout.isatty():
        yield Progress(title, total)
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Bar(*columns, console=console(), transient=False) as bar:
        shown = Progress(title, total, _bar=bar)
        shown._task = bar.add_task(title, total=total, note="")
        yield shown


def table(content: Any) -> None:
    """Prints a rich renderable (a table, mostly)."""
    console().print(content)
