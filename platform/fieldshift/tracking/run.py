"""A run in MLflow: messages go to the store, or to the spool while the store is down."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from fieldshift.errors import one_line
from fieldshift.tracking.points import KnownPoints
from fieldshift.tracking.refusals import is_refused
from fieldshift.tracking.sending import perform
from fieldshift.tracking.spool import Spool

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Status = Literal["FINISHED", "FAILED", "KILLED"]

_FORBIDDEN = re.compile(r"[^\w\-. :/]", re.ASCII)
_SLASHES = re.compile(r"/{2,}")
_log = logging.getLogger("fieldshift.tracking")


def metric_name(name: str) -> str:
    """A metric's name in the form that MLflow accepts: letters, digits, and _-. :/ stay, other characters become _.

    The part before the last "/" is the section of charts that shows the metric.
    """
    return _SLASHES.sub("/", _FORBIDDEN.sub("_", name)).strip("/ ")[:250] or "_"


class Run:
    """A run that logs nothing, used when tracking is disabled; the base class of `TrackedRun`.

    As a context manager a run closes itself: FINISHED, FAILED after an error, KILLED after Ctrl-C.
    """

    @property
    def id(self) -> str:
        """The run's id; "" if tracking is disabled."""
        return ""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs the run's configuration; nested mappings become dotted names. A logged parameter cannot change."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Logs numbers at a step in batches; a step that a metric already has is not overwritten."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags, by which tables and charts can be filtered and grouped."""

    def log_dataset(self, name: str, digest: str, counts: Mapping[str, int]) -> None:
        """Logs the data that the run read: name, digest, and number of images per part."""

    def tag_experiment(self, tags: Mapping[str, str]) -> None:
        """Sets tags of the experiment that the run belongs to."""

    def log_image(self, key: str, array: np.ndarray, step: int = 0, *, shown: int | None = None) -> None:
        """Logs a (height, width, 3) or (height, width) uint8 picture; pictures with one key form a series over steps.

        `shown` is the length of the picture's longer side in MLflow's image grids, in pixels; None leaves MLflow's own, 256.
        A click opens the picture at its own size.
        """

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        """Logs a pandas table as NAME.json, replacing an earlier one; shown in MLflow's compare view."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copies a file into the run's artifacts, into `folder` if given."""

    def log_model(self, folder: Path, register: str | None = None) -> bool:  # noqa: ARG002
        """Copies an MLflow model, a folder, into the run's artifacts and registers it under a name if one is given.

        Returns whether it was sent; messages to a store that is down wait in the spool.
        """
        return False

    def close(self, status: Status = "FINISHED") -> None:
        """Ends the run; later calls do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close("FINISHED")
        else:
            self.close("FAILED" if issubclass(kind, Exception) else "KILLED")


class TrackedRun(Run):
    """A run in an MLflow store. Tracking errors never end a training: messages that cannot be sent go to the spool."""

    def __init__(self, run_id: str, client: Any, spool: Spool, *, is_new: bool = True) -> None:
        self._id = run_id
        self._client = client
        self._spool = spool
        self._points = KnownPoints(client, run_id, is_new=is_new)
        self._closed = False

    @property
    def id(self) -> str:
        return self._id

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._send("params", {"params": {name: str(value) for name, value in flat(params).items()}})

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        plain = {metric_name(name): float(value) for name, value in metrics.items()}
        if len(plain) < len(metrics):
            raise ValueError(f"Two of these metrics get the same name in MLflow: {', '.join(sorted(metrics))}.")
        if self._client is not None and not self._spool.is_open_for(self._id):
            try:
                plain = self._points.missing(plain, int(step))
            except Exception as error:
                if self._is_dropped("metrics", error):
                    return
        if plain:
            self._points.add(plain, int(step))
            self._send("metrics", {"metrics": plain, "step": int(step), "time": int(time.time() * 1000)})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._send("tags", {"tags": {name: str(value) for name, value in tags.items()}})

    def log_dataset(self, name: str, digest: str, counts: Mapping[str, int]) -> None:
        self._send("dataset", {"name": name, "digest": digest[:36], "counts": dict(counts)})

    def tag_experiment(self, tags: Mapping[str, str]) -> None:
        self._send("experiment", {"tags": dict(tags)})

    def log_image(self, key: str, array: np.ndarray, step: int = 0, *, shown: int | None = None) -> None:
        if (
            array.dtype.name != "uint8"
            or array.ndim not in {2, 3}
            or (array.ndim == 3 and array.shape[2] not in {1, 3, 4})
        ):
            raise ValueError(f"A picture is uint8 (H, W, 3) or (H, W), but '{key}' is {array.dtype} {array.shape}.")
        name = metric_name(key).replace(":", "_")  # which MLflow takes in the names of metrics only
        self._send("image", {"key": name, "step": int(step), "time": int(time.time() * 1000), "shown": shown}, array)

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        try:
            text = table.to_json(orient="split", index=False)
        except (ValueError, TypeError, OverflowError) as error:
            self._is_dropped("table", error)
            return
        self._send("table", {"file": f"{metric_name(name)}.json", "text": text})

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        if not path.exists():
            raise FileNotFoundError(f"There is no file {path} to log.")
        self._send("artifact", {"path": str(path.resolve()), "folder": folder})

    def log_model(self, folder: Path, register: str | None = None) -> bool:
        self.log_artifact(folder)
        return register is None or self._send("register", {"name": register, "folder": folder.name})

    def close(self, status: Status = "FINISHED") -> None:
        if not self._closed:
            self._closed = True
            self._send("close", {"status": status, "time": int(time.time() * 1000)})

    def _send(self, what: str, message: dict[str, Any], array: np.ndarray | None = None) -> bool:
        """Sends a message, or saves it in the spool; returns whether it was sent and accepted."""
        if self._client is not None and not self._spool.is_open_for(self._id):
            try:
                perform(self._client, self._id, what, message, array)
            except Exception as error:
                if self._is_dropped(what, error):
                    return False
            else:
                return True
        self._spool.write(self._id, what, message, array)
        return False

    def _is_dropped(self, what: str, error: Exception) -> bool:
        """Whether a message is left out after an error, with a warning; otherwise the store is down, and it is to be saved."""
        if is_refused(error):
            _log.warning("MLflow refused %s of run %s: %s", what, self._id, one_line(error, 300))
            return True
        self._spool.server_is_down(error)
        return False


def flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested mappings; names are joined by dots."""
    result: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[metric_name(f"{prefix}{name}")] = value
    return result
