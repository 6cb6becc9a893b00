"""The load of the machine in MLflow: MLflow's own names, at seconds since the run began, and never a reason to end a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from fieldshift.tracking import Run, TrackingConfig, open_store
from fieldshift.tracking.store import client_for
from fieldshift.tracking.system import measured

pytestmark = pytest.mark.filterwarnings("ignore")

SOON_S = 60.0


class Counted(Run):
    """Keeps what it is sent, and says when it was sent something twice."""

    id = "counted"

    def __init__(self) -> None:
        self.sent: list[tuple[Mapping[str, float], int]] = []
        self.twice = threading.Event()

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        self.sent.append((metrics, step))
        if len(self.sent) == 2:
            self.twice.set()


class Refused(Run):
    id = "refused"

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        raise RuntimeError("a fault\nof two lines")


def test_a_short_run_has_one_value_of_each_and_a_resumed_one_adds_to_them(tmp_path: Path) -> None:
    store = open_store(TrackingConfig(), tmp_path)
    began = time.time() - 100
    for seconds in (0, 1000):
        run = store.run("fieldshift", "run", key="run")
        with measured(run, began=began - seconds):
            pass
    client = client_for(store.uri)
    metrics = client.get_run(run.id).data.metrics
    assert {
        "system/cpu_utilization_percentage",
        "system/disk_usage_percentage",
        "system/network_receive_megabytes",
    } <= set(metrics)
    memory = psutil.virtual_memory()
    assert metrics["system/system_memory_usage_percentage"] == pytest.approx(100 * memory.used / memory.total, abs=25)
    first, second = sorted(
        point.step for point in client.get_metric_history(run.id, "system/cpu_utilization_percentage")
    )
    assert 100 <= first < 1000
    assert second >= 1100


def test_it_is_measured_at_every_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.system_metrics.metrics import gpu_monitor
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor

    class OneGPU(CPUMonitor):
        def collect_metrics(self) -> None:
            self._metrics["gpu_0_utilization_percentage"].append(40.0)

    monkeypatch.setattr(gpu_monitor, "GPUMonitor", OneGPU)
    run = Counted()
    with measured(run, began=time.time(), interval=0.01):
        assert run.twice.wait(SOON_S)
    assert all(metrics["system/gpu_0_utilization_percentage"] == 40.0 for metrics, _ in run.sent)
    assert not [thread for thread in threading.enumerate() if thread.name == "fieldshift-system-metrics"]


def test_a_fault_is_one_line_and_the_run_continues(caplog: pytest.LogCaptureFixture) -> None:
    with measured(Refused(), began=time.time(), interval=0.01):
        pass
    (line,) = [record.getMessage() for record in caplog.records]
    assert "no longer logged" in line
    assert "\n" not in line


def test_a_run_without_tracking_is_not_measured() -> None:
    with measured(Run(), began=0.0):
        assert "fieldshift-system-metrics" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(("value", "wanted"), [("true", True), ("1", True), ("false", False), (None, False)])
def test_the_option_or_mlflows_own_variable_asks_for_it(
    value: str | None, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", raising=False)
    if value is not None:
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", value)
    assert TrackingConfig().wants_system_metrics == wanted
    assert TrackingConfig(system_metrics=True).wants_system_metrics
