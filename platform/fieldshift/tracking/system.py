"""System metrics of a run: load of the CPU, memory, disk, network and GPUs, measured by MLflow and sent like other metrics."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

from fieldshift.background import beside
from fieldshift.errors import one_line
from fieldshift.tracking.run import Run

SECTION = "system"

_log = logging.getLogger("fieldshift.tracking")


@contextlib.contextmanager
def measured(run: Run, *, began: float, interval: float | None = None) -> Iterator[None]:
    """Logs the load of this machine to a run within the block: one value per metric and interval, and one at the end.

    The names are MLflow's own (system/cpu_utilization_percentage, ...), so its pages show them under "System metrics". GPUs
    need the package nvidia-ml-py. Messages go the way of all others, so a store that is down loses none.

    Args:
        run: The run to log to; one that logs nothing is not measured.
        began: Time at which the run began, in seconds since 1970; steps are whole seconds since then, also after a resume.
        interval: Seconds between two values; None uses MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL, or 10.
    """
    if not run.id:
        yield
        return
    from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL

    pause = interval or float(MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or 10)
    monitors = _monitors()

    def log_until(over: threading.Event) -> None:
        try:
            _values(monitors)  # psutil gives the CPU's load since the call before
            is_last = False
            while not is_last:
                is_last = over.wait(pause)
                run.log_metrics(_values(monitors), step=max(0, int(time.time() - began)))
        except Exception as error:
            _log.warning("System metrics are no longer logged (%s); the run continues.", one_line(error, 200))

    with beside(log_until, "fieldshift-system-metrics"):
        yield


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(ImportError, RuntimeError):  # no nvidia-ml-py, or no GPU
        monitors.append(GPUMonitor())
    return monitors


def _values(monitors: list[Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for monitor in monitors:
        monitor.clear_metrics()
        monitor.collect_metrics()
        found |= {f"{SECTION}/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
    return found
