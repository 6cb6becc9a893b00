"""Saved views as MLflow keeps them: what their state holds, and what does not fit."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable

import pytest

from fieldshift.tracking.views import (
    LONGEST,
    SHOWN_PICTURE,
    TAG,
    Chart,
    Section,
    View,
    are_known,
    bars,
    height_of_images,
    images,
    lines,
    links,
    parallel,
    points,
)

KINDS: dict[str, Callable[[], Chart]] = {
    "BAR": lambda: bars("a", "x/a", "x/b"),
    "LINE": lambda: lines("a", "x/a"),
    "SCATTER": lambda: points("a", "x/a", "x/b"),
    "PARALLEL": lambda: parallel("a", ["arm"], ["x/a"]),
    "IMAGE": lambda: images("a", "x/map"),
}


def view(*sections: Section, key: str = "key") -> View:
    return View(
        key=key,
        name="a view",
        runs="tags.`a` = 'b'",
        order="metrics.`x/a`",
        columns=["params.`arm`"],
        sections=sections,
    )


def test_a_tag_holds_the_state_as_mlflow_unpacks_it() -> None:
    held = view(Section(name="one", charts=(bars("a", "x/a"),)))
    name, value = held.tag(7)
    assert name == f"{TAG}key"
    read = json.loads(value)
    assert (read["name"], read["createdAt"], read["updatedAt"]) == ("a view", 7, 7)
    kind, _, packed = read["state"].partition(";")
    assert kind == "deflate"
    assert json.loads(zlib.decompress(base64.b64decode(packed))) == held.state()


def test_every_run_is_shown_and_nothing_is_grouped() -> None:
    state = view().state()
    assert state["runsHiddenMode"] == "SHOW_ALL"
    assert state["groupBy"] is None
    assert state["searchFilter"] == "tags.`a` = 'b'"


@pytest.mark.parametrize("kind", KINDS)
def test_a_chart_of_each_kind_lies_in_its_section(kind: str) -> None:
    state = view(
        Section(name="one", charts=(bars("first", "x/a"),)), Section(name="two", charts=(KINDS[kind](),))
    ).state()
    sections = {section["uuid"]: section["name"] for section in state["compareRunSections"]}
    last = state["compareRunCharts"][-1]
    assert (last["type"], sections[last["metricSectionId"]]) == (kind, "two")
    assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == 2


def test_a_chart_of_images_is_as_high_as_its_rows() -> None:
    heights = [height_of_images(count) for count in range(1, 8)]
    assert len(set(heights)) == 3
    assert heights == sorted(heights)
    assert heights[3] - heights[2] >= SHOWN_PICTURE


def test_a_view_that_mlflow_would_cut_is_refused() -> None:
    many = [bars(f"{number * 7919 % 100003}", f"{number * 104729 % 99991}/{number}") for number in range(900)]
    assert not view(Section(name="one", charts=many)).fits
    assert view(Section(name="one", charts=many[:1])).fits
    with pytest.raises(ValueError, match=f"over MLflow's {LONGEST}"):
        view(Section(name="one", charts=many)).tag(0)


def test_links_are_in_the_order_of_the_keys() -> None:
    tags = dict(View(key=key, name=name, runs="", order="x").tag(1) for key, name in (("b", "second"), ("a", "first")))
    found = links("http://here", "3", {**tags, "other": "1"})
    assert list(found) == ["first", "second"]
    assert found["first"].startswith("http://here/#/experiments/3/runs?")
    assert found["first"].endswith("viewStateShareKey=a")


def test_a_view_without_charts_opens_the_table_of_runs() -> None:
    charts = view(Section(name="one", charts=(bars("a", "x/a"),)))
    for held, mode in ((charts, "CHART"), (view(), "TABLE")):
        (address,) = links("http://here", "3", dict([held.tag(1)])).values()
        assert f"compareRunsMode={mode}" in address


def test_the_installed_mlflow_opens_saved_views() -> None:
    assert are_known()
