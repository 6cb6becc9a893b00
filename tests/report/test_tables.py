from __future__ import annotations

import io
import math

import pandas as pd
import pytest
from rich.console import Console

from fieldshift.motions import Policy
from fieldshift.report import (
    Sheet,
    comparison_sheets,
    cost_sheets,
    field_sheet,
    policy_sheet,
    show,
    summarise,
    sweep_sheet,
)

BASELINES = ("none", "affine")


@pytest.fixture
def sheets(rows: pd.DataFrame) -> list[Sheet]:
    named = rows.replace({"arm": {"wide-field": "a-control-with-a-very-long-name-of-its-own"}})
    summary = summarise(named, baseline_arms=BASELINES)
    return [*comparison_sheets(summary), *cost_sheets(summary)]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_wider_than_the_page_and_no_cell_is_lost(sheets: list[Sheet], width: int) -> None:
    for sheet in sheets:
        text = sheet.text(width)
        assert max(map(len, text.splitlines())) <= width
        for row in sheet.rows:
            for cell in row[1:]:
                assert cell in text
    assert "a-control-with-a-very-long-name-of-its-own" in sheets[0].text(200)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_every_number_too(sheets: list[Sheet], width: int) -> None:
    for sheet in sheets:
        stream = io.StringIO()
        show(sheet, Console(file=stream, width=width, force_terminal=True, color_system=None))
        text = stream.getvalue()
        assert max(map(len, text.splitlines())) <= width
        for row in sheet.rows:
            for cell, side in zip(row, sheet.align, strict=True):
                assert cell in text or side == "left"
            assert row[0] in text or len(row[0]) > 24


def test_without_a_terminal_the_table_is_plain_text(sheets: list[Sheet]) -> None:
    stream = io.StringIO()
    show(sheets[0], Console(file=stream, width=100, force_terminal=False))
    assert stream.getvalue() == sheets[0].text(100)


def test_the_comparison_prints_the_numbers_of_the_trials(rows: pd.DataFrame) -> None:
    summary = summarise(rows, baseline_arms=BASELINES)
    sheet = comparison_sheets(summary, score_name="mIoU")[1]
    cells = {row[0]: row for row in sheet.rows}
    assert sheet.title == "Equal compute, test mIoU"
    scores = [0.90, 0.88, 0.93, 0.91]
    mean = sum(scores) / 4
    reach = 3.1824 * math.sqrt(sum((score - mean) ** 2 for score in scores) / 3 / 4)
    interval = f"{100 * (mean - reach):.1f} to {100 * (mean + reach):.1f}"
    assert cells["das"][1:8] == ("DAS", "4", "90.5", interval, "-", "3", "+18.5")
    assert cells["affine"][7:] == ("best 2D", "", "")
    assert cells["das-gsf"][4] == "-"
    assert any("das-gsf: 1 run: no interval" in note for note in sheet.notes)
    costs = {row[0]: row for row in cost_sheets(summary)[1].rows}
    assert costs["das"] == ("das", "3", "48,321", "4.1", "12", "31.5", "39.0", f"{(31.5 + 39) / 3600:.3g}", "1.00", "-")


def test_markup_in_a_name_is_printed_and_not_obeyed() -> None:
    sheet = Sheet(title="[red]t", columns=("[b]x", "n"), rows=(("[link]y", "1"),), align=("left", "right"))
    stream = io.StringIO()
    show(sheet, Console(file=stream, width=80, force_terminal=True, color_system=None))
    for words in ("[red]t", "[b]x", "[link]y"):
        assert words in stream.getvalue()


def test_the_sweep_has_a_row_for_every_number_of_frames() -> None:
    runs = [
        {"frames": frames, "score": 0.5 + 0.01 * frames + 0.02 * seed, "seconds": 10.0 * frames}
        for frames in (16, 1, 3)
        for seed in range(2)
    ]
    sheet = sweep_sheet(pd.DataFrame(runs))
    assert [row[:3] for row in sheet.rows] == [("1", "2", "52.0"), ("3", "2", "54.0"), ("16", "2", "67.0")]
    reach = 12.7062 * 0.01 * math.sqrt(2) / math.sqrt(2)
    assert sheet.rows[0][3] == f"{100 * (0.52 - reach):.1f} to {100 * (0.52 + reach):.1f}"
    both = pd.concat([pd.DataFrame(runs).assign(arm=arm) for arm in ("das", "das-gsf")])
    assert [row[:2] for row in sweep_sheet(both).rows][:2] == [("das", "1"), ("das", "3")]
    unequal = sweep_sheet(both.assign(epochs=[6] * len(runs) + [18] * len(runs)))
    assert unequal.columns[:4] == ("arm", "frames T", "epochs", "n")
    assert [row[:4] for row in unequal.rows][::3] == [("das", "1", "6", "2"), ("das-gsf", "1", "18", "2")]
    assert "equal compute" in unequal.notes[-1]
    wall, single = sweep_sheet(pd.DataFrame(runs[:1])).notes
    assert ("wall-clock" in wall, single) == (True, "1 run: no interval.")
    measured = pd.DataFrame(runs).assign(device_seconds=7.0)
    sheet = sweep_sheet(measured)
    assert [row[4] for row in sheet.rows] == ["7.0", "7.0", "7.0"]
    assert sheet.notes == ("Seconds are the device's: CPU seconds of the training process, or a GPU's seconds.",)


def test_receptive_fields_stand_side_by_side_with_gaps_shown() -> None:
    sheet = field_sheet({"2D": {"side, px": 15, "area": 33.21}, "das": {"area": 130.0, "angle": math.nan}})
    assert sheet.columns == ("measure", "2D", "das")
    assert sheet.rows == (("side, px", "15", "-"), ("area", "33.21", "130"), ("angle", "-", "-"))
    assert sheet.align == ("left", "right", "right")


def test_a_policy_in_words_has_a_row_for_every_edge(policy: Policy) -> None:
    sheet = policy_sheet(policy)
    assert len(sheet.rows) == len(policy.edges)
    for edge, row in zip(policy.edges, sheet.rows, strict=True):
        assert row[0] == f"{edge.source}->{edge.target}"
        assert all(step.phrase() in row[1] for step in edge.steps)
    assert max(map(len, sheet.text(80).splitlines())) <= 80
    assert policy.digest()[:12] in sheet.title


def test_a_data_frame_keeps_its_numbers_to_the_right() -> None:
    frame = pd.DataFrame({"name": ["a", "b"], "value": [1.23456, math.nan], "count": [1200, 3], "on": [True, False]})
    sheet = Sheet.from_frame(frame)
    assert sheet.align == ("left", "right", "right", "left")
    assert sheet.rows == (("a", "1.235", "1,200", "yes"), ("b", "-", "3", "no"))


def test_rows_of_the_same_first_cell_are_told_apart_in_every_block() -> None:
    rows = tuple(
        (reading, method, "Not shown", "Yes") for reading in ("equal epochs", "equal compute") for method in "ab"
    )
    sheet = Sheet(
        title="", columns=("budget", "method", "motion helps", "search helps"), rows=rows, align=("left",) * 4
    )
    first, second = sheet.text(40).split("\n\n")
    assert [" ".join(line.split()) for line in first.splitlines()[2:]] == [
        "equal epochs a Not shown", "equal epochs b Not shown", "equal compute a Not shown", "equal compute b Not shown",
    ]  # fmt: skip
    assert second.splitlines()[0].split() == ["budget", "method", "search", "helps"]
    stream = io.StringIO()
    show(sheet, Console(file=stream, width=40, force_terminal=True, color_system=None))
    assert stream.getvalue().count("equal epochs   a") == 2
    assert sheet.text(30).splitlines()[0].split() == ["budget", "method"]  # no room beside the names
