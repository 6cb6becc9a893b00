"""One function in this process, and how reports and the wish to end travel."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldshift.cluster import ClusterConfig, RunStoppedError, WorkerContext, run_workers
from fieldshift.cluster.reports import Mailbox, Resize, describe_failure, failure_text
from fieldshift.cluster.storage import StorageLostError
from fieldshift.cluster.train import _trainer_class, digest
from fieldshift.errors import UserError

HERE = ClusterConfig(gpus_per_worker=0)


def count(payload: dict, context: WorkerContext) -> dict:
    for epoch in range(payload["epochs"]):
        context.report({"epoch": epoch})
    return {"epochs": epoch + 1, "place": (context.rank, context.world, context.device)}


def test_no_workers_means_the_same_function_in_this_process(tmp_path: Path) -> None:
    heard: list[dict[str, float]] = []
    value = run_workers(count, {"epochs": 3}, cluster=HERE, name="here", storage=tmp_path, on_report=heard.append)
    assert value == {"epochs": 3, "place": (0, 1, "cpu")}
    assert heard == [{"epoch": 0.0}, {"epoch": 1.0}, {"epoch": 2.0}]
    assert list(tmp_path.iterdir()) == []


def test_a_callback_ends_the_run_at_a_report(tmp_path: Path) -> None:
    heard: list[float] = []

    def enough(metrics: dict[str, float]) -> bool:
        heard.append(metrics["epoch"])
        return metrics["epoch"] >= 1

    with pytest.raises(RunStoppedError):
        run_workers(count, {"epochs": 9}, cluster=HERE, name="here", storage=tmp_path, on_report=enough)
    assert heard == [0.0, 1.0]


def test_errors_come_out_as_they_are(tmp_path: Path) -> None:
    def fails(_payload: dict, _context: WorkerContext) -> dict:
        raise UserError("recipe.epochs is 0, but must be 1 or more.")

    with pytest.raises(UserError, match="recipe.epochs is 0"):
        run_workers(fails, {}, cluster=HERE, name="here", storage=tmp_path)


def test_reports_hold_plain_numbers_only() -> None:
    torch = pytest.importorskip("torch")
    heard: list[dict[str, float]] = []
    context = WorkerContext(send=lambda metrics: bool(heard.append(metrics)))
    context.report({"loss": math.nan, "steps": 3, "best": True})
    assert math.isnan(heard[0]["loss"])
    assert (heard[0]["steps"], heard[0]["best"]) == (3.0, 1.0)
    with pytest.raises(TypeError, match=r"'loss' is a Tensor; use \.item"):
        context.report({"loss": torch.tensor(1.0)})


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(0, 40))
def test_every_rank_is_told_to_end_at_the_same_report(order: list[int], wish: int) -> None:
    """In whatever order three ranks report and the wish arrives: one report number, and nobody is past it."""
    mailbox, numbers = Mailbox(), [0, 0, 0]
    ends: dict[int, int] = {}
    for position, rank in enumerate([*order, *(rank for _ in range(60) for rank in range(3))]):
        if position == wish:
            mailbox.end()
        if rank not in ends:
            numbers[rank] += 1
            if mailbox.post(rank, numbers[rank], {"number": float(numbers[rank])}):
                ends[rank] = numbers[rank]
    assert len(ends) == 3
    assert len(set(ends.values())) == 1


def test_the_mailbox_keeps_what_rank_0_says_until_it_is_taken() -> None:
    mailbox = Mailbox()
    mailbox.post(0, 1, {"loss": 1.0})
    mailbox.post(1, 1, {"loss": 9.0})
    mailbox.post(0, 2, {"loss": 0.5})
    assert mailbox.take() == [{"loss": 1.0}, {"loss": 0.5}]
    assert mailbox.take() == []


def test_deaths_are_told_apart_from_failures_and_late_failures_from_new_ones() -> None:
    mailbox = Mailbox()
    own, peer = ({"rank": rank, "passing": peer, "storage": False} for rank, peer in ((0, False), (1, True)))
    assert [mailbox.begin(rank, f"node{rank}", 2) for rank in (0, 1)] == [0, 0]
    mailbox.fail(peer, 0)
    assert mailbox.lost([0, 1])  # rank 1 failed because rank 0 died
    assert [loss.words() for loss in mailbox.losses()] == ["worker 0 on node0 died"]
    assert mailbox.failures() == []
    assert [mailbox.begin(rank, "node2", 2) for rank in (0, 1)] == [1, 1]
    mailbox.fail(peer, 0)  # of the attempt before
    assert mailbox.failures() == []
    mailbox.fail(own, 1)
    assert not mailbox.lost([0, 1])
    assert mailbox.failures() == [own]
    assert len(mailbox.losses()) == 1


def test_a_storage_that_failed_is_named_as_the_loss() -> None:
    mailbox = Mailbox()
    mailbox.begin(0, "node0", 1)
    mailbox.fail(describe_failure(StorageLostError("cluster.storage s3://b failed (timeout); --resume continues.")), 0)
    assert mailbox.lost([0])
    assert [loss.words() for loss in mailbox.losses()] == ["cluster.storage s3://b failed (timeout)"]


@pytest.mark.parametrize("now", [1, 3])
def test_another_number_of_workers_is_told_and_a_stop_takes_effect_at_its_reports(now: int) -> None:
    mailbox = Mailbox()
    for rank in range(2):
        mailbox.begin(rank, "node", 2)
    for number in range(1, 5):
        mailbox.post(0, number, {})
    mailbox.take()
    for rank in range(now):
        mailbox.begin(rank, "node", now)
    assert [change.words() for change in mailbox.take() if isinstance(change, Resize)] == [
        f"continuing with {now} worker{'s' * (now > 1)} instead of 2"
    ]
    mailbox.end()
    assert mailbox.post(0, 1, {})


def test_a_resize_keeps_a_stop_that_was_requested_and_forgets_failures_of_the_workers_before() -> None:
    mailbox = Mailbox()
    assert [mailbox.begin(rank, "node", 2) for rank in (0, 1)] == [0, 0]
    mailbox.post(0, 50, {})
    mailbox.end()
    peer = {"rank": 1, "passing": True, "storage": False}
    mailbox.fail(peer, 0)
    assert [mailbox.begin(rank, "node", 3) for rank in (2, 0, 1)] == [1, 1, 1]
    mailbox.fail(peer, 0)
    assert mailbox.failures() == []
    assert mailbox.post(0, 1, {})
    assert mailbox.lost([1])
    assert [loss.words() for loss in mailbox.losses()] == ["worker 1 on node died"]


def test_a_failure_is_one_line_and_plain_values() -> None:
    try:
        raise UserError("a\n  b")
    except UserError as error:
        failure = describe_failure(error, 3)
    assert (failure["rank"], failure["user"], failure["text"]) == (3, True, "a b")
    assert "test_workers.py" in failure["traceback"]
    assert failure_text(RuntimeError("x")) == "RuntimeError: x"
    assert failure_text(RuntimeError()) == "RuntimeError"
    assert failure_text(RuntimeError("n" * 9000)) == f"RuntimeError: {'n' * 500} ..."
    assert failure_text(UserError("x" * 900)) == "x" * 900


def test_a_digest_follows_every_value_and_no_order(tmp_path: Path) -> None:
    base = {"a": 1, "b": {"c": [1, 2], "d": tmp_path, "cluster": HERE}}
    assert digest(base) == digest(dict(reversed(base.items())))
    assert digest(base) != digest({**base, "a": 2})
    assert digest(base) != digest({**base, "b": {**base["b"], "cluster": ClusterConfig(workers=2)}})
    with pytest.raises(TypeError, match="plain values, but has a function"):
        digest({"a": count})


@pytest.mark.filterwarnings("ignore")  # of Ray Data, which Ray Train imports
@pytest.mark.parametrize(
    ("releases_groups", "left_out"),
    [(True, {"DatasetsCallback", "PlacementGroupCleanerCallback"}), (False, {"DatasetsCallback"})],
)
def test_the_actors_that_a_run_does_not_need_are_known_to_ray_by_these_names(
    releases_groups: bool, left_out: set[str]
) -> None:
    """A version of Ray with other names would start them again, with no other sign than the time."""
    from ray.train.v2.torch.torch_trainer import TorchTrainer

    rays, ours = (
        {type(each).__name__ for each in trainer(lambda: None)._create_default_callbacks()}
        for trainer in (TorchTrainer, _trainer_class(releases_groups=releases_groups))
    )
    assert rays - ours == left_out
    assert ours < rays
