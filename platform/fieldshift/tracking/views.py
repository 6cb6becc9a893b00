"""Saved views of MLflow's comparison page: its runs, sections and charts, in the format of MLflow 3.17."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

TAG = "mlflow.sharedViewState."
LONGEST = 5000
"""Maximum length of an experiment's tag in MLflow's SQL stores."""
LATEST = 10**13 - 1
"""A time in milliseconds with as many digits as any until the year 2286."""

SHOWN_PICTURE, PICTURE_BORDER, PICTURE_TITLE, CHART_EDGE = 120, 22, 44, 130
"""Pixels of the longer side of a picture in an image grid, and what MLflow adds to its width, its height, and the grid."""
NARROW_CHART = 490
"""Pixels for the pictures of a chart over the whole row, in a window of 1100 pixels without the table of runs."""

Chart = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of charts under one heading.

    Attributes:
        folded: Collapsed; MLflow adds its generated charts of metrics with this name as prefix to it.
        columns: Number of charts side by side.
        height: Height of a chart, in pixels.
    """

    name: str
    charts: Sequence[Chart] = ()
    folded: bool = False
    columns: int = 3
    height: int = 360


@dataclass(frozen=True, kw_only=True)
class View:
    """A saved view of MLflow's comparison page.

    Attributes:
        key: Key in the address of the view; unique in the experiment.
        name: Name in the list of saved views.
        runs: Filter of the runs, in MLflow's search language.
        order: Column to sort runs by, such as metrics.`accuracy/mean_percent`.
        ascending: Whether to sort in ascending order.
        columns: Columns of the table of runs, in addition to their names.
        table: Whether the table of runs is open beside the charts.
        sections: The sections of charts; without any, the page is the table of runs over the whole width.
    """

    key: str
    name: str
    runs: str
    order: str
    ascending: bool = False
    columns: Sequence[str] = ()
    table: bool = True
    sections: Sequence[Section] = field(default_factory=tuple)

    def state(self) -> dict[str, Any]:
        """The state of the page: all runs visible, no grouping, sections in the given order."""
        charts: list[Chart] = []
        sections: list[dict[str, Any]] = []
        for number, section in enumerate(self.sections):
            place = f"s{number}"
            sections.append(
                {
                    "uuid": place, "name": section.name, "display": not section.folded, "isReordered": True, "deleted": False,
                    "isGenerated": False, "columns": section.columns, "cardHeight": section.height,
                }
            )  # fmt: skip
            for chart in section.charts:
                held = {"uuid": f"c{len(charts)}", "metricSectionId": place, "deleted": False, "isGenerated": False}
                charts.append(held | chart)
        return {
            "searchFilter": self.runs,
            "orderByKey": self.order,
            "orderByAsc": self.ascending,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": list(self.columns),
            "runsHiddenMode": "SHOW_ALL",
            "runListHidden": not self.table,
            "compareRunCharts": charts,
            "compareRunSections": sections,
            "isAccordionReordered": True,
            "hideEmptyCharts": True,
            "groupBy": None,
        }

    @property
    def fits(self) -> bool:
        """Whether MLflow's stores can keep the view."""
        return len(self._value(LATEST)) <= LONGEST

    def tag(self, now: int) -> tuple[str, str]:
        """The name and value of the experiment's tag that stores the view; `now` in milliseconds.

        Raises ValueError if the value is longer than MLflow allows: use fewer charts.
        """
        value = self._value(now)
        if len(value) > LONGEST:
            raise ValueError(
                f"The view {self.name} has {len(value)} characters, over MLflow's {LONGEST}; use fewer charts."
            )
        return f"{TAG}{self.key}", value

    def _value(self, now: int) -> str:
        packed = base64.b64encode(zlib.compress(json.dumps(self.state(), separators=(",", ":")).encode(), 9)).decode()
        return json.dumps({"name": self.name, "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"})


def link(url: str, experiment_id: str, key: str, mode: str = "CHART") -> str:
    """The address of a saved view on MLflow's server at `url`; mode: CHART, or TABLE for the table of runs alone."""
    query = {"workflowType": "machine_learning", "compareRunsMode": mode, "viewStateShareKey": key}
    return f"{url}/#/experiments/{experiment_id}/runs?{urlencode(query, quote_via=quote)}"


def links(url: str, experiment_id: str, tags: Mapping[str, str]) -> dict[str, str]:
    """The addresses of the saved views among the tags of an experiment, by name and in the order of their keys."""
    views = {key.removeprefix(TAG): json.loads(value) for key, value in tags.items() if key.startswith(TAG)}
    modes = {key: "CHART" if _unpacked(view["state"])["compareRunCharts"] else "TABLE" for key, view in views.items()}
    return {str(views[key]["name"]): link(url, experiment_id, key, modes[key]) for key in sorted(views)}


def _unpacked(state: str) -> dict[str, Any]:
    """The state of a page from its text in a tag."""
    return dict(json.loads(zlib.decompress(base64.b64decode(state.removeprefix("deflate;")))))


@cache
def are_known() -> bool:
    """Whether the installed version of MLflow can open saved views."""
    import mlflow

    pages = Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js"
    return any(TAG.encode() in file.read_bytes() for file in pages.glob("main.*.js"))


def bars(title: str, *metrics: str, runs: int = 40) -> Chart:
    """A bar chart: one bar per run and metric, in the order of the table."""
    chart = {"type": "BAR", "displayName": title, "metricKey": metrics[0], "runsCountToCompare": runs}
    return chart | ({"selectedMetricKeys": list(metrics)} if len(metrics) > 1 else {})


def lines(title: str, *metrics: str) -> Chart:
    """A line chart: one line per run and metric against the step."""
    return {
        "type": "LINE", "displayName": title, "metricKey": metrics[0], "selectedMetricKeys": list(metrics),
        "runsCountToCompare": 40, "lineSmoothness": 0, "xAxisScaleType": "linear", "scaleType": "linear", "range": {},
        "xAxisKey": "step", "selectedXAxisMetricKey": "", "displayPoints": True, "yAxisKey": "metric",
        "yAxisExpressions": [], "ignoreOutliers": False, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True,
    }  # fmt: skip


def points(title: str, x: str, y: str) -> Chart:
    """A scatter plot: one point per run, one metric against another."""
    x_axis, y_axis = ({"key": key, "type": "METRIC", "dataAccessKey": None} for key in (x, y))
    return {"type": "SCATTER", "displayName": title, "xaxis": x_axis, "yaxis": y_axis, "runsCountToCompare": 100}


def parallel(title: str, params: Sequence[str], metrics: Sequence[str]) -> Chart:
    """A parallel-coordinates chart: one line per run, one axis per parameter and metric."""
    return {"type": "PARALLEL", "displayName": title, "selectedParams": list(params), "selectedMetrics": list(metrics),
            "runsCountToCompare": 100, "showAllRuns": True}  # fmt: skip


def height_of_images(count: int) -> int:
    """Height of a chart with `count` pictures whose longer side is SHOWN_PICTURE, in pixels, without scroll bar."""
    rows = math.ceil(count / (NARROW_CHART // (SHOWN_PICTURE + PICTURE_BORDER)))
    return rows * (SHOWN_PICTURE + PICTURE_TITLE) + CHART_EDGE


def images(title: str, *keys: str) -> Chart:
    """A grid of the pictures that runs logged under these keys."""
    return {
        "type": "IMAGE", "displayName": title, "imageKeys": list(keys), "step": 0, "runsCountToCompare": 40,
        "showRunParams": False,
    }  # fmt: skip
