"""Runs that Ray ends for want of memory are called again, as often as is allowed."""

from __future__ import annotations

import pytest

from fieldshift.cluster import ClusterConfig
from fieldshift.cluster.memory import WorkersLostError, is_out_of_memory, retried


class Run:
    """Fails a number of times for want of memory, directly or as the cause of another error."""

    def __init__(self, failures: int, *, wrapped: bool = False) -> None:
        self.failures, self.wrapped, self.calls = failures, wrapped, 0

    def __call__(self) -> str:
        from ray.exceptions import OutOfMemoryError

        self.calls += 1
        if self.calls > self.failures:
            return "done"
        if not self.wrapped:
            raise OutOfMemoryError("Memory on the node was used up")
        try:
            raise OutOfMemoryError("Memory on the node was used up")
        except OutOfMemoryError as error:
            raise RuntimeError("the controller died") from error


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("failures", "allowed"), [(0, 0), (1, 1), (2, 3)])
def test_a_run_is_called_again_as_often_as_is_allowed(wrapped: bool, failures: int, allowed: int) -> None:
    run = Run(failures, wrapped=wrapped)
    assert retried(run, ClusterConfig(max_failures=allowed)) == "done"
    assert run.calls == failures + 1


def test_more_often_than_is_allowed_ends_the_run_in_one_line() -> None:
    run = Run(9)
    with pytest.raises(
        WorkersLostError, match=r"full 3 times \(cluster.max_failures is 2\).*--resume goes on"
    ) as caught:
        retried(run, ClusterConfig(max_failures=2))
    assert run.calls == 3
    assert "\n" not in str(caught.value)


def test_workers_that_were_started_again_as_often_as_is_allowed_are_not_retried_once_more() -> None:
    calls: list[int] = []

    def fail() -> None:
        from ray.exceptions import OutOfMemoryError

        calls.append(1)
        raise WorkersLostError("lost 3 times", is_final=len(calls) == 2) from OutOfMemoryError("full")

    with pytest.raises(WorkersLostError, match="lost 3 times"):
        retried(fail, ClusterConfig(max_failures=5))
    assert len(calls) == 2


def test_any_other_error_is_raised_at_once() -> None:
    def fail() -> None:
        raise RuntimeError("of the function")

    assert not is_out_of_memory(RuntimeError())
    with pytest.raises(RuntimeError, match="of the function"):
        retried(fail, ClusterConfig(max_failures=5))
