"""A node whose memory is full, on a real local Ray cluster: trials and workers go on where they were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fieldshift.cluster import ClusterConfig, WorkerContext, connect, run_trials, run_workers
from fieldshift.cluster.train import WorkerFunction

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180), pytest.mark.filterwarnings("ignore")]

CLUSTER = ClusterConfig(workers=1, trials_at_once=2, max_failures=8, gpus_per_worker=0)
FREE, TAKEN = 3_000_000_000, 6_000_000_000
"""Bytes that Ray's monitor leaves free, and those that a greedy function takes."""


@pytest.fixture(scope="module")
def small_node() -> Iterator[None]:
    """A cluster of this machine whose memory Ray takes for full when FREE more bytes of it are used."""
    memory = psutil.virtual_memory()
    if memory.available < 1.5 * TAKEN:
        pytest.skip(f"{memory.available / 1e9:.1f} GB are free, and the test fills {TAKEN / 1e9:.0f}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_memory_usage_threshold", f"{(memory.total - memory.available + FREE) / memory.total:.4f}")
        patch.setenv("RAY_memory_monitor_refresh_ms", "50")
        with connect(CLUSTER):
            yield


def greedy() -> WorkerFunction:
    """A function that Ray pickles by value: its workers do not import this file."""

    def take(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
        """Takes `payload["bytes"]` at its first call, and counts its calls in a file."""
        calls = Path(payload["folder"]) / f"calls-{payload['key']}"
        number = len(calls.read_text()) if calls.exists() else 0
        calls.write_text("x" * (number + 1))
        context.report({"epoch": 1.0})
        taken = [bytearray(b"x") * 100_000_000 for _ in range(payload["bytes"] // 100_000_000) if number == 0]
        context.report({"epoch": 2.0})
        return {"calls": number + 1, "taken": len(taken)}

    return take


@pytest.mark.parametrize("kind", ["trials", "workers"])
def test_what_a_full_memory_ended_goes_on(
    kind: str, small_node: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    payload = {"key": "one", "folder": str(tmp_path), "bytes": TAKEN}
    if kind == "workers":
        found = run_workers(greedy(), payload, cluster=CLUSTER, name="memory", storage=tmp_path)
        assert found["taken"] == 0
        assert found["calls"] >= 2
        return
    trials = [payload, {**payload, "key": "two", "bytes": 0}, {**payload, "key": "three", "bytes": 0}]
    results = run_trials(greedy(), trials, cluster=CLUSTER, name="memory", storage=tmp_path)
    assert [(result.key, result.error) for result in results] == [("one", None), ("two", None), ("three", None)]
    assert [result.value["taken"] for result in results if result.value] == [0, 0, 0]
    assert results[0].value is not None
    assert results[0].value["calls"] >= 2
    assert "going on (retry 1 of 8)" in capfd.readouterr().out
