"""Commands whose workers' files go through a storage; the workers are calls in this process."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

import pipelines
from fieldshift.cluster import ClusterConfig, WorkerContext
from fieldshift.cluster.storage import Storage, bring_all
from fieldshift.data import LoadingConfig
from fieldshift.errors import UserError
from fieldshift.search import SearchConfig
from fieldshift.tracking import TrackingConfig
from fieldshift.training import Recipe

UNTRACKED = TrackingConfig(enabled=False)
LOADING = LoadingConfig(train_limit=64, test_limit=32)


@pytest.fixture
def worker_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(function: Any, payload: dict[str, Any], *, shared: Storage, on_report: Any, **_: Any) -> dict[str, Any]:
        context = WorkerContext(send=on_report, storage=shared)
        value: dict[str, Any] = function(payload, context)
        bring_all(shared, context.folders)
        return value

    for module in ("pipelines.training", "pipelines.searching"):
        monkeypatch.setattr(f"{module}.run_workers", run)
        monkeypatch.setattr(f"{module}.placed", lambda *_, **__: contextlib.nullcontext())


def cluster_of(tmp_path: Path, stored: bool) -> ClusterConfig:
    where: dict[str, Any] = {"workers": 1, "storage": f"file://{tmp_path}/bucket"} if stored else {}
    return ClusterConfig(gpus_per_worker=0, **where)


def test_a_training_with_a_storage_equals_one_without(worker_here: None, tmp_path: Path) -> None:
    def trained(name: str, *, stored: bool, resume: bool = False) -> Path:
        return pipelines.train(
            recipe=Recipe(epochs=1, batch=16), loading=LOADING, tracking=UNTRACKED, cluster=cluster_of(tmp_path, stored),
            out=str(tmp_path / name), resume=resume,
        ).folder  # fmt: skip

    with pytest.MonkeyPatch.context() as own:
        own.setattr("pipelines.training.run_workers", lambda f, payload, **_: f(payload, WorkerContext()))
        plain = trained("plain", stored=False)
    there = trained("stored", stored=True)
    for name in ("weights.safetensors", "network.json"):
        assert (there / name).read_bytes() == (plain / name).read_bytes()
    assert json.loads((there / "result.json").read_text())["row"]["folder"] == str(there)
    (place,) = (tmp_path / "bucket").iterdir()
    assert {path.name for path in place.iterdir()} == {"weights.safetensors", "network.json"}
    with pytest.raises(UserError, match=r"has its checkpoints in file://.*; give --cluster.storage file://"):
        trained("stored", stored=False, resume=True)
    with pytest.raises(UserError, match=r"has its checkpoints in the folder itself, .*; leave it out"):
        trained("plain", stored=True, resume=True)


def test_a_search_with_a_storage_equals_one_without(worker_here: None, tmp_path: Path) -> None:
    def searched(name: str, *, stored: bool) -> Path:
        return pipelines.search(
            search=SearchConfig(epochs=1, tune_epochs=0, batch=16), loading=LOADING,
            cluster=cluster_of(tmp_path, stored), out=str(tmp_path / name),
        ).folder  # fmt: skip

    with pytest.MonkeyPatch.context() as own:
        own.setattr("pipelines.searching.run_workers", lambda f, payload, **_: f(payload, WorkerContext()))
        plain = searched("plain", stored=False)
    there = searched("stored", stored=True)
    for name in ("policy.json", "halves.json", "search.pt"):
        assert (there / name).exists()
    held = [json.loads((folder / "policy.json").read_text()) for folder in (plain, there)]
    assert held[0]["edges"] == held[1]["edges"]


@pytest.mark.parametrize("given", ["storage", "address"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_study_uses_a_cluster_also_for_its_searches_alone(
    workers: int, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From two workers on its searches are on Ray, where its trials are in this process."""
    for name in ("check_reach", "check_fits"):  # whether the cluster answers is not asked here
        monkeypatch.setattr(f"pipelines.study_plan.{name}", lambda *_: None)

    def prepared(_plan: object) -> None:
        raise InterruptedError("checked")

    monkeypatch.setattr("pipelines.studying.prepare_study", prepared)
    where = {"storage": str(tmp_path), "address": "127.0.0.1:6379"}[given]
    cluster = ClusterConfig(gpus_per_worker=0, workers=workers, trials_at_once=0, **{given: where})
    with pytest.raises(UserError if workers == 1 else InterruptedError, match=f"cluster.{given} is|checked"):
        pipelines.study(cluster=cluster, tracking=UNTRACKED, out=str(tmp_path / "out"))
