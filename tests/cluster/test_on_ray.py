"""One real local Ray cluster for all tests of this file: workers that talk, trials side by side, what cannot start."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fieldshift.cluster import ClusterConfig, RunStoppedError, WorkerContext, connect, run_trials, run_workers
from fieldshift.cluster.reach import check_reach
from fieldshift.errors import UserError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]

WORKERS = ClusterConfig(workers=2, start_timeout_s=3600)  # the tests' own deadline waits for progress


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    with connect(WORKERS):
        yield


def test_two_workers_share_a_process_group_and_a_users_mistake_comes_back(ray_cluster: None, tmp_path: Path) -> None:
    def agree(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
        import os

        import torch
        import torch.distributed as dist

        from fieldshift.errors import UserError as Mistake

        if payload["mistake"]:
            raise Mistake("The value of x is 3, but must be 4.")
        total = torch.tensor([float(context.rank + 1)])
        dist.all_reduce(total)
        context.report({"total": float(total)})
        return {"total": float(total), "rank": context.rank, "world": context.world, "niceness": os.nice(0)}

    heard: list[dict[str, float]] = []
    found = run_workers(
        agree, {"mistake": False}, cluster=WORKERS, name="agree", storage=tmp_path, on_report=lambda m: heard.append(m)
    )
    assert found == {"total": 3.0, "rank": 0, "world": 2, "niceness": os.nice(0)}
    assert [metrics["total"] for metrics in heard] == [3.0]
    with pytest.raises(UserError, match="The value of x is 3, but must be 4"):
        run_workers(agree, {"mistake": True}, cluster=WORKERS, name="mistake", storage=tmp_path)


def test_auto_does_not_join_a_cluster_that_ends_with_another_program(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a notebook or of another command; whoever gives its address means it."""
    import ray

    address = ray.get_runtime_context().gcs_address
    monkeypatch.setattr("fieldshift.cluster.reach.is_connected", lambda: False)
    monkeypatch.setattr("fieldshift.cluster.reach.found_address", lambda: address)
    with pytest.raises(
        UserError, match=rf"belongs to process {os.getpid()} and ends with it; .* give {address} to join"
    ):
        check_reach(ClusterConfig(address="auto"), 1)
    check_reach(ClusterConfig(address=address), 1)


def test_a_callback_ends_all_workers_at_one_report(ray_cluster: None, tmp_path: Path) -> None:
    def endless(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
        import torch.distributed as dist

        while True:  # a rank that went on alone would wait at the barrier until the timeout
            dist.barrier()
            context.report({"rank": context.rank})

    with pytest.raises(RunStoppedError):
        run_workers(endless, {}, cluster=WORKERS, name="end", storage=tmp_path, on_report=lambda metrics: True)


def test_trials_run_through_tune_report_and_are_kept(ray_cluster: None, tmp_path: Path) -> None:
    def halve(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
        context.report({"epoch": 1.0})
        if payload["number"] == 3:
            raise ValueError("odd")
        return {"half": payload["number"] // 2}

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    heard: list[str] = []
    asked = [{"key": f"n{number}", "number": number} for number in (2, 3, 4)]
    results = run_trials(
        halve, asked, cluster=ClusterConfig(trials_at_once=2), name="halve", storage=tmp_path,
        on_report=lambda trial, metrics: heard.append(trial["key"]),
    )  # fmt: skip
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert [result.value for result in results] == [{"half": 1}, None, {"half": 2}]
    assert "odd" in str(results[1].error)
    assert {"n2", "n4"} <= set(heard)
    kept = run_trials(
        halve, asked[::2], cluster=ClusterConfig(trials_at_once=2), name="halve", storage=tmp_path, resume=True
    )
    assert all(result.kept for result in kept)


def test_more_than_the_cluster_has_is_said_before_anything_starts(ray_cluster: None, tmp_path: Path) -> None:
    def never(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
        return {}

    with pytest.raises(UserError, match=r"Too few CPU cores for 1,000 workers: 1,000 needed, but the cluster has"):
        run_workers(never, {}, cluster=ClusterConfig(workers=1000), name="never", storage=tmp_path)
    with pytest.raises(UserError, match="GPUs for 1 worker: 1 needed, but the cluster has 0"):
        run_workers(never, {}, cluster=ClusterConfig(workers=1, gpus_per_worker=1), name="never", storage=tmp_path)


def test_an_elastic_run_starts_with_the_workers_that_there_is_room_for(ray_cluster: None, tmp_path: Path) -> None:
    """Two of three at most: the cluster has as many cores as this machine, and the third worker none."""
    import ray

    def count(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
        return {"world": context.world}

    cores = int(ray.cluster_resources()["CPU"])
    asked = ClusterConfig(workers=cores + 1, min_workers=1, start_timeout_s=3600)
    found = run_workers(count, {}, cluster=asked, name="elastic", storage=tmp_path)
    assert found == {"world": cores}
    with pytest.raises(UserError, match=f"Too few CPU cores for {cores + 1} workers: {cores + 1} needed"):
        run_workers(count, {}, cluster=ClusterConfig(workers=cores + 1), name="fixed", storage=tmp_path)
