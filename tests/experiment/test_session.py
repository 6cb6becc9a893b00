"""A run from its first to its last line: its saved views never end it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldshift.experiment.session import Session
from fieldshift.run_folder import RunFolder
from fieldshift.tracking import Run, Store
from fieldshift.tracking.views import Section, View, bars


class Tagged(Run):
    """A run that keeps the tags of its experiment."""

    def __init__(self) -> None:
        self.tags: list[str] = []

    def tag_experiment(self, tags: object) -> None:
        self.tags += tags  # type: ignore[operator]


@pytest.mark.parametrize("uri", ["", "http://127.0.0.1:9"])
def test_a_view_that_is_too_long_is_left_out_with_a_line_where_there_is_a_store(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Tagged()
    folder = RunFolder(tmp_path, "search", {}, resumed=False)
    session = Session(folder, Store(uri=uri, folder=tmp_path), run, "experiment", "identity", "search", {})
    many = [bars(f"{number * 7919 % 100003}", f"{number * 104729 % 99991}/{number}") for number in range(900)]
    long, short = (
        View(key=name, name=name, runs="", order="x", sections=[Section(name="one", charts=charts)])
        for name, charts in (("long", many), ("short", many[:1]))
    )
    session.keep(long)
    said = capsys.readouterr().out
    assert said == ("  note: MLflow has no room for the saved view 'long', which is left out\n" if uri else "")
    session.keep(short)
    assert run.tags == (["mlflow.sharedViewState.short"] if uri else [])
