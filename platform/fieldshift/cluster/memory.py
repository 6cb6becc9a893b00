"""Nodes whose memory was full: Ray then ends processes, also those that direct a run, which it does not start again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fieldshift.cluster.config import ClusterConfig
from fieldshift.console import say
from fieldshift.errors import RunFailedError
from fieldshift.wording import counted

Outcome = TypeVar("Outcome")


class WorkersLostError(RunFailedError):
    """Workers died more often than `cluster.max_failures` allows (`is_final`), or in a way that Ray does not retry."""

    def __init__(self, text: str, *, is_final: bool = False) -> None:
        super().__init__(text)
        self.is_final = is_final


def retried(run: Callable[[], Outcome], cluster: ClusterConfig) -> Outcome:
    """The outcome of `run`, which is called again where the memory of a node was full: it has to go on where it was.

    Raises WorkersLostError where that happens more than `cluster.max_failures` times.
    """
    number = 0
    while True:
        try:
            return run()
        except Exception as error:
            number += 1
            if (isinstance(error, WorkersLostError) and error.is_final) or not is_out_of_memory(error):
                raise
            if number > cluster.max_failures:
                raise WorkersLostError(
                    f"The memory of a node was full {counted(number, 'time')} (cluster.max_failures is "
                    f"{cluster.max_failures}), and Ray ended processes of this run; use smaller batches or fewer "
                    "trials at once (--cluster.trials_at_once), or end other programs. The same command with --resume goes on."
                ) from error
            retry = f"retry {number} of {cluster.max_failures}"
            say(f"  the memory of a node was full, and Ray ended processes of this run; going on ({retry})")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, is Ray's of a process that it ended for want of memory."""
    from ray.exceptions import OutOfMemoryError

    while error is not None:
        if isinstance(error, OutOfMemoryError):
            return True
        error = getattr(error, "controller_failure", None) or error.__cause__
    return False
