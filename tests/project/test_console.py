"""Progress on a terminal and in a pipe: it ends at 100 %, in one line as wide as the terminal, and stays in its process."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import pickle
import re

import pytest

from fieldshift.console import Progress, broken, duration, progress, say, table
from tests.terminal import PLACES, in_pipe, in_terminal

NOTE = "accuracy 100.0% of trivialaugment-equal-compute-T16-seed12"


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (7.4, "0:07"), (151, "2:31"), (3849, "1:04:09")])
def test_durations_are_read_at_a_glance(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize("place", PLACES)
def test_a_bar_never_leaves_its_process(place: str) -> None:
    def work() -> int:
        with progress("work", 1) as bar:
            for take in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(TypeError, match="stays in the process that shows it"):
                    take(bar)
        return 0

    assert PLACES[place](work).status == 0


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("counted", [[], [0.5], [1, 2], [1, 2, 3], [0.1] * 30, [5]])
def test_a_bar_ends_at_100_percent_however_much_was_expected(counted: list[float], place: str) -> None:
    def work() -> int:
        with progress("work", 3) as bar:
            for amount in counted:
                bar.advance(amount, NOTE)
        return 0

    seen = PLACES[place](work)
    assert " 100% " in seen.bar("work")
    assert sum(" 100% " in line for line in seen.lines) == 1


@pytest.mark.parametrize("place", PLACES)
def test_a_bar_that_an_error_ends_stays_where_it_was(place: str) -> None:
    def work() -> int:
        try:
            with progress("work", 4) as bar:
                bar.interval = 0
                bar.advance(1, NOTE)
                raise ValueError
        except ValueError:
            return 1

    seen = PLACES[place](work)
    assert seen.status == 1
    assert " 25% " in seen.bar("work")


@pytest.mark.parametrize("days", [0, 3])
@pytest.mark.parametrize("columns", [60, 80, 160])
def test_a_bar_is_one_line_that_keeps_its_length(columns: int, days: int) -> None:
    """Every drawing of it, however long its note and its time are."""
    lengths = set()
    earlier = 86400 * days

    def work() -> int:
        with progress("training trivialaugment", 3) as bar:
            bar._started -= earlier
            bar._bar.tasks[0].start_time -= earlier
            for note in ("", "short", NOTE, NOTE * 4):
                bar.advance(1, note)
                bar._bar.refresh()
        return 0

    seen = in_terminal(work, columns)
    assert seen.broken == []
    assert [line for line in seen.lines if line] == [seen.bar("training trivialaugment")]
    for drawn in seen.sent.split("\r"):
        if "trivialaugment" in drawn:
            lengths.add(sum(drawn.count(piece) for piece in "━╸╺"))
    assert lengths == {30 if columns >= 110 else 10}
    assert ("3 days, 0:00:0" in seen.text) == (days == 3)


def test_what_is_said_while_a_bar_is_shown_stands_above_it() -> None:
    def work() -> int:
        with progress("work", 2) as bar:
            bar.advance(1)
            say("[red]one[/red] line")
        return 0

    assert [line.strip()[:19] for line in in_terminal(work).lines if line] == [
        "[red]one[/red] line",
        "work ━━━━━━━━━━ 100",
    ]


@pytest.mark.parametrize(
    ("marks", "shown"),
    [
        ([(4, 1)], ""),
        ([(12, 3)], ""),  # one report says nothing of the rate
        ([(5, 1), (10, 2)], "about 0:40 left"),
        ([(1, 7), (6, 8), (12, 9)], "about 0:06 left"),  # 7 of 10 were found done
        ([(5, 1), (10, 2), (60, 2)], ""),
        ([(100, 1), (200, 2), (300, 5), (400, 8)], "about 1:07 left"),
        ([(10, 2), (20, 10)], ""),
    ],
)
def test_the_remaining_time_goes_by_the_later_half(
    marks: list[tuple[float, float]], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bar = Progress("work", 10, interval=math.inf, _started=0.0)
    for seconds, done in marks:
        monkeypatch.setattr("fieldshift.console.time.perf_counter", lambda now=seconds: now)
        bar.show(done)
    assert bar.left() == shown


def test_what_an_earlier_run_trained_is_not_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trainings of 10 epochs: one goes on at epoch 8, after 10 seconds per epoch; one is found finished."""
    bar = Progress("work", 30, interval=math.inf, _started=0.0)
    for seconds, key, done, unit in [(1, "b", 10, 0), (10, "a", 8, 1), (20, "a", 9, 1), (30, "a", 10, 1)]:
        monkeypatch.setattr("fieldshift.console.time.perf_counter", lambda now=seconds: now)
        bar.show_part(key, done, unit=unit)
    assert (bar.done, bar.found) == (20, 17)
    assert bar.left() == "about 1:40 left"


def test_the_start_of_ray_is_not_speed_where_a_resumed_run_finds_trials_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two trainings of 10 epochs, one of them found finished; the other starts after 40 seconds, at 2 seconds per epoch."""
    bar, shown = Progress("work", 20, interval=math.inf, _started=0.0), []
    for seconds, key, done, unit in [(0.1, "b", 10, 0), (40, "a", 1, 1), (42, "a", 2, 1), (44, "a", 3, 1)]:
        monkeypatch.setattr("fieldshift.console.time.perf_counter", lambda now=seconds: now)
        bar.show_part(key, done, unit=unit)
        shown.append(bar.left())
    assert shown == ["", "", "about 0:16 left", "about 0:14 left"]


@pytest.mark.parametrize(("now", "shown"), [(20, "1:20"), (24, "1:16"), (30, "1:10"), (300, "1:10")])
def test_the_remaining_time_counts_down_until_the_next_report_is_due(
    now: float, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports every 10 seconds, 2 of 10 done: a report that is late leaves the time of the work behind it."""
    bar = Progress("work", 10, interval=math.inf, _started=0.0)
    for seconds, done in [(10, 1), (20, 2)]:
        monkeypatch.setattr("fieldshift.console.time.perf_counter", lambda at=seconds: at)
        bar.show(done)
    monkeypatch.setattr("fieldshift.console.time.perf_counter", lambda: now)
    assert bar.left() == f"about {shown} left"


@pytest.mark.parametrize("place", PLACES)
def test_the_remaining_time_is_shown_until_the_end(place: str) -> None:
    def work(until: int) -> int:
        with contextlib.suppress(ValueError), progress("work", 4) as bar:
            bar.interval = 0
            bar._started -= 60
            for done in range(1, until + 1):
                bar.show(done, "epoch")
            if until < bar.total:
                raise ValueError
        return 0

    assert re.search(r"\d:\d\d +about 0:00 left +epoch", PLACES[place](lambda: work(3)).bar("work"))
    assert "left" not in PLACES[place](lambda: work(4)).bar("work")


WORDS = "  note: " + "several words that go on and on until they are wider than any screen " * 4


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_a_terminal_breaks_what_is_said_between_words_and_a_pipe_does_not(columns: int) -> None:
    def work() -> int:
        say(WORDS)
        return 0

    seen = in_terminal(work, columns)
    assert seen.broken == []
    assert seen.text == " ".join(WORDS.split())
    assert all(line.startswith("    ") for line in seen.lines[1:] if line)
    assert in_pipe(work).lines == [WORDS]


def test_paths_and_json_are_never_broken() -> None:
    path = "/a" * 60
    assert broken(f"  written to {path}", 80) == f"  written to\n    {path}"
    text = json.dumps({"words": WORDS})

    def work() -> int:
        say(text, whole=True)
        return 0

    assert "".join(in_terminal(work).sent.splitlines()) == text


@pytest.mark.parametrize("text", ["", "short", "  two  blanks", "a\n\n  b"])
def test_what_fits_stays_as_it_is(text: str) -> None:
    assert broken(text, 20) == text


CELLS = ("[red]name[/red]", "a$b", "%s", "$x_1$", "x" * 30, "b\udcffd")


@pytest.mark.parametrize("place", PLACES)
def test_a_table_shows_cells_as_text(place: str) -> None:
    def work() -> int:
        table(["name", "[b]n[/b]"], [(cell, str(number)) for number, cell in enumerate(CELLS)], right=["[b]n[/b]"])
        return 0

    head, *rows = [line for line in PLACES[place](work).lines if line]
    assert head.split() == ["name", "[b]n[/b]"]
    assert [row.split() for row in rows] == [
        [cell.encode("utf-8", "backslashreplace").decode(), str(number)] for number, cell in enumerate(CELLS)
    ]
    assert {row.index(str(number), 30) for number, row in enumerate(rows)} == {head.index("[/b]") + 3}


@pytest.mark.parametrize("width", [50, 60, 90])
def test_names_to_copy_stay_on_one_line_of_a_narrow_terminal(width: int) -> None:
    job, command = (
        "raysubmit_JngAxPNnjCrayBCF",
        "fieldshift study --form folded --data digit-pairs-left --out runs/study",
    )

    def work() -> int:
        table(["job", "command"], [(job, command)], whole=["job"])
        return 0

    lines = in_terminal(work, width).lines
    assert sum(job in line for line in lines) == 1
    assert "".join("".join(lines).replace(job, "").split()).endswith("".join(command.split()))


def test_a_table_without_rows_has_its_head() -> None:
    def work() -> int:
        table(["one", "two"], [])
        return 0

    assert [line.split() for line in in_pipe(work).lines if line] == [["one", "two"]]
