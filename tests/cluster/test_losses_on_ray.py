"""Workers and trials that die on a real local Ray cluster: they start again where they were, and the person is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fieldshift.cluster import ClusterConfig, WorkerContext, connect, run_trials, run_workers
from fieldshift.cluster.memory import WorkersLostError
from fieldshift.cluster.train import WorkerFunction

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180), pytest.mark.filterwarnings("ignore")]

WORKERS = ClusterConfig(workers=2, max_failures=1, start_timeout_s=3600)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    with connect(WORKERS):
        yield


def counting() -> WorkerFunction:
    """A function that Ray pickles by value: its workers do not import this file."""

    def count_to_four(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
        """Counts to 4 in a file, all workers together; rank `payload["victim"]` is killed at 2 as often as it may be."""
        import os
        import signal

        import torch
        import torch.distributed as dist

        folder = Path(payload["folder"])
        state, deaths = folder / "state", folder / "deaths"
        begun = int(state.read_text()) if state.exists() else 0
        count = begun
        for count in range(begun + 1, 5):
            if count == 2 and context.rank == payload["victim"]:
                died = len(deaths.read_text()) if deaths.exists() else 0
                if died < payload["deaths"]:
                    deaths.write_text("x" * (died + 1))
                    os.kill(os.getpid(), signal.SIGKILL)
            if context.world > 1:
                dist.all_reduce(torch.ones(1))
            if context.rank == 0:
                state.write_text(str(count))
            context.report({"count": float(count), "begun": float(begun)})
        return {"count": count}

    return count_to_four


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_costs_no_more_than_what_followed_the_last_checkpoint(
    ray_cluster: None, tmp_path: Path, victim: int, capfd: pytest.CaptureFixture[str]
) -> None:
    heard: list[dict[str, float]] = []
    payload = {"folder": str(tmp_path), "victim": victim, "deaths": 1}
    found = run_workers(
        counting(),
        payload,
        cluster=WORKERS,
        name="loss",
        storage=tmp_path,
        on_report=lambda metrics: heard.append(metrics),
    )
    assert found == {"count": 4}
    assert [metrics["count"] for metrics in heard] == [1, 2, 3, 4]
    assert heard[-1]["begun"] == 1
    printed = capfd.readouterr().out
    assert f"worker {victim} on " in printed
    assert "resuming from the last checkpoint (retry 1 of 1)" in printed


def test_workers_that_die_too_often_end_the_run_in_one_line(ray_cluster: None, tmp_path: Path) -> None:
    payload = {"folder": str(tmp_path), "victim": 0, "deaths": 9}
    with pytest.raises(WorkersLostError, match=r"lost 2 times .* worker 0 on .* died; the same command with --resume"):
        run_workers(counting(), payload, cluster=WORKERS, name="lost", storage=tmp_path)
    assert (tmp_path / "state").read_text() == "1"


def at_launch(folder: Path, act: str) -> WorkerFunction:
    """A function that acts while Ray launches it: rank 1 waits for a file of rank 0, or rank 0 is killed."""

    class Acting:
        def __init__(self) -> None:
            self.folder, self.act = folder, act

        def __setstate__(self, state: dict[str, Any]) -> None:
            import os
            import signal
            import time

            from ray import train

            self.__dict__.update(state)
            try:
                rank = train.get_context().get_world_rank()
            except RuntimeError:  # not a worker, but the controller
                return
            if self.act == "kill" and rank == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            end = time.monotonic() + 1.0
            while self.act == "wait" and rank == 1 and time.monotonic() < end:
                if (self.folder / "begun").exists():
                    (self.folder / "early").touch()
                    return
                time.sleep(0.02)

        def __call__(self, payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
            if context.rank == 0:
                (self.folder / "begun").touch()
            return {}

    return Acting()


def test_no_worker_begins_before_all_are_launched(ray_cluster: None, tmp_path: Path) -> None:
    run_workers(at_launch(tmp_path, "wait"), {}, cluster=WORKERS, name="gate", storage=tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["begun"]


def test_a_worker_that_dies_at_its_launch_is_told_in_one_line(ray_cluster: None, tmp_path: Path) -> None:
    with pytest.raises(WorkersLostError, match=r"^A worker died while the function was launched.* --resume resumes"):
        run_workers(at_launch(tmp_path, "kill"), {}, cluster=WORKERS, name="launch", storage=tmp_path)


def test_a_killed_trial_starts_again_and_the_others_go_on(
    ray_cluster: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trials = []
    for key, deaths in (("well", 0), ("once", 1), ("always", 9)):
        (tmp_path / key).mkdir()
        trials.append({"key": key, "folder": str(tmp_path / key), "victim": 0, "deaths": deaths})
    well, once, always = run_trials(
        counting(), trials, cluster=ClusterConfig(trials_at_once=2, max_failures=1), name="trials", storage=tmp_path
    )
    assert well.value == once.value == {"count": 4}
    assert once.metrics["begun"] == 1
    assert always.value is None
    assert always.error is not None
    assert "trial once ended early; resuming from its last checkpoint (retry 1 of 1)" in capfd.readouterr().out


def test_what_a_failed_run_reserved_is_free_for_the_next_but_stays_where_others_may_have_reserved_it(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray.util import placement_group, placement_group_table, remove_placement_group

    from fieldshift.cluster import local_cluster, train

    made = []

    def leaving(*_arguments: Any, **_options: Any) -> dict[str, Any]:
        made.append(placement_group([{"CPU": 1}]))
        ray.get(made[-1].ready())
        raise WorkersLostError("left")

    def created() -> set[str]:
        return {key for key, row in placement_group_table().items() if row["state"] == "CREATED"}

    before = created()
    monkeypatch.setattr(train, "fit", leaving)
    with pytest.raises(WorkersLostError, match="left"):
        run_workers(counting(), {}, cluster=WORKERS, name="left", storage=tmp_path)
    assert created() == before
    monkeypatch.setattr(local_cluster, "_started", set())  # as where the caller has joined a cluster with `ray.init`
    try:
        with pytest.raises(WorkersLostError, match="left"):
            run_workers(counting(), {}, cluster=WORKERS, name="left", storage=tmp_path)
        assert created() == before | {made[-1].id.hex()}
    finally:
        remove_placement_group(made[-1])
