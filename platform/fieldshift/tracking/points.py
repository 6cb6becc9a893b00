"""Points of a run's metrics that the store already has, so that a resumed run neither loses nor repeats any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class KnownPoints:
    """The points of one run by metric and step: those in the store, if the run already existed, and those sent since.

    The first value of a step is kept: an epoch that is trained or reported again adds no second point. A value at step 0,
    which has no history, is sent again if it changed.
    """

    def __init__(self, client: Any, run_id: str, *, is_new: bool) -> None:
        self._client, self._run_id = client, run_id
        self._names: set[str] | None = set() if is_new else None
        self._points: dict[str, dict[int, float]] = {}

    def missing(self, metrics: Mapping[str, float], step: int) -> dict[str, float]:
        """The metrics that have no point at this step yet."""
        return {name: value for name, value in metrics.items() if not self._has(name, value, step)}

    def add(self, metrics: Mapping[str, float], step: int) -> None:
        """Records metrics that were sent."""
        for name, value in metrics.items():
            self._points.setdefault(name, {})[step] = value

    def _has(self, name: str, value: float, step: int) -> bool:
        points = self._of(name)
        return step in points and (step > 0 or points[step] == value)

    def _of(self, name: str) -> dict[int, float]:
        if self._names is None:
            self._names = set(self._client.get_run(self._run_id).data.metrics)
        if name in self._names:
            self._names.discard(name)
            history = sorted(self._client.get_metric_history(self._run_id, name), key=lambda point: point.timestamp)
            self._points[name] = {point.step: point.value for point in history} | self._points.get(name, {})
        return self._points.setdefault(name, {})
