"""Saved views of MLflow's comparison pages: which runs, which charts in which sections, as MLflow 3.17 keeps them."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

TAG = "mlflow.sharedViewState."
LONGEST = 5000
"""Characters that the tag of an experiment may have in MLflow's SQL stores."""

Chart = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Section:
    """Charts under one heading; a folded one takes the charts that MLflow adds of itself to the prefix of its name.

    Attributes:
        columns: How many charts stand side by side.
        height: Of a chart, in pixels.
    """

    name: str
    charts: Sequence[Chart] = ()
    folded: bool = False
    columns: int = 3
    height: int = 360


@dataclass(frozen=True, kw_only=True)
class View:
    """A page of MLflow's comparison as people save it.

    Attributes:
        key: What the page is opened by; unique in the experiment.
        name: What it is called in the list of saved views.
        runs: The filter of the runs, in MLflow's search language.
        order: The column that runs are sorted by, such as metrics.`accuracy/mean_percent`.
        ascending: Whether the least comes first.
        columns: Columns of the table of runs, beside their names.
        sections: The charts.
    """

    key: str
    name: str
    runs: str
    order: str
    ascending: bool = False
    columns: Sequence[str] = ()
    sections: Sequence[Section] = field(default_factory=tuple)

    def state(self) -> dict[str, Any]:
        """The state of the page: every run shown, nothing grouped, these sections in this order."""
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
            "compareRunCharts": charts,
            "compareRunSections": sections,
            "isAccordionReordered": True,
            "hideEmptyCharts": True,
            "groupBy": None,
        }

    def tag(self, now: int) -> tuple[str, str]:
        """Name and value of the experiment's tag that keeps the view; `now` in milliseconds.

        Raises ValueError where it is longer than MLflow keeps: leave charts out.
        """
        packed = base64.b64encode(zlib.compress(json.dumps(self.state(), separators=(",", ":")).encode(), 9)).decode()
        value = json.dumps({"name": self.name, "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"})
        if len(value) > LONGEST:
            raise ValueError(f"The view {self.name} has {len(value)} characters, but MLflow keeps {LONGEST}.")
        return f"{TAG}{self.key}", value


def link(url: str, experiment_id: str, key: str) -> str:
    """Where MLflow's server at `url` shows a saved view: its charts beside the table of runs."""
    query = {"workflowType": "machine_learning", "compareRunsMode": "CHART", "viewStateShareKey": key}
    return f"{url}/#/experiments/{experiment_id}/runs?{urlencode(query, quote_via=quote)}"


def links(url: str, experiment_id: str, tags: Mapping[str, str]) -> dict[str, str]:
    """The links to the saved views among the tags of an experiment, by the views' names and in the order of their keys."""
    views = {key.removeprefix(TAG): json.loads(value)["name"] for key, value in tags.items() if key.startswith(TAG)}
    return {str(views[key]): link(url, experiment_id, key) for key in sorted(views)}


@cache
def are_known() -> bool:
    """Whether the pages of the MLflow that is installed open saved views."""
    import mlflow

    pages = Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js"
    return any(TAG.encode() in file.read_bytes() for file in pages.glob("main.*.js"))


def bars(title: str, *metrics: str, runs: int = 40) -> Chart:
    """A bar for each run, in the order of the table; with several metrics as many bars a run."""
    chart = {"type": "BAR", "displayName": title, "metricKey": metrics[0], "runsCountToCompare": runs}
    return chart | ({"selectedMetricKeys": list(metrics)} if len(metrics) > 1 else {})


def lines(title: str, *metrics: str, runs: int = 40) -> Chart:
    """A line for each run and metric against the step."""
    return {
        "type": "LINE", "displayName": title, "metricKey": metrics[0], "selectedMetricKeys": list(metrics),
        "runsCountToCompare": runs, "lineSmoothness": 0, "xAxisScaleType": "linear", "scaleType": "linear", "range": {},
        "xAxisKey": "step", "selectedXAxisMetricKey": "", "displayPoints": True, "yAxisKey": "metric",
        "yAxisExpressions": [], "ignoreOutliers": False, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True,
    }  # fmt: skip


def points(title: str, x: str, y: str, runs: int = 100) -> Chart:
    """A point for each run: one metric against another."""
    x_axis, y_axis = ({"key": key, "type": "METRIC", "dataAccessKey": None} for key in (x, y))
    return {"type": "SCATTER", "displayName": title, "xaxis": x_axis, "yaxis": y_axis, "runsCountToCompare": runs}


def parallel(title: str, params: Sequence[str], metrics: Sequence[str], runs: int = 100) -> Chart:
    """A line for each run through an axis for each parameter and metric."""
    return {"type": "PARALLEL", "displayName": title, "selectedParams": list(params), "selectedMetrics": list(metrics),
            "runsCountToCompare": runs, "showAllRuns": True}  # fmt: skip


def images(title: str, *keys: str, step: int = 0, runs: int = 40) -> Chart:
    """The pictures that runs logged under these keys, side by side."""
    return {
        "type": "IMAGE", "displayName": title, "imageKeys": list(keys), "step": step, "runsCountToCompare": runs,
        "showRunParams": False,
    }  # fmt: skip
