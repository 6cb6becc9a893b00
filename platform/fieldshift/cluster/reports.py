"""How reports travel from workers to the driver, and the wish to end travels back."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any

from fieldshift.cluster.context import Metrics
from fieldshift.errors import UserError

POLL_S = 0.25
# A mailbox that died answers with an error at once; on a machine that is busy with other things a living one is slow.
ANSWER_DEADLINE_S = 600.0

OnReport = Callable[[Metrics], bool | None]


class Mailbox:
    """An actor that keeps rank 0's reports until the driver takes them, and the first failure of every rank.

    A wish to end takes effect at one report number, the first that no rank has reached when the wish arrives; so all
    ranks learn of it at the same report, without talking to each other.
    """

    def __init__(self) -> None:
        self._reports: list[Metrics] = []
        self._failures: list[dict[str, Any]] = []
        self._latest = 0
        self._end_at: int | None = None

    def post(self, rank: int, number: int, metrics: Metrics) -> bool:
        """Takes report `number` (1, 2, ...) of a rank and answers whether the run should end there."""
        if rank == 0:
            self._reports.append(metrics)
        self._latest = max(self._latest, number)
        return self._end_at is not None and number >= self._end_at

    def fail(self, failure: dict[str, Any]) -> None:
        self._failures.append(failure)

    def take(self) -> list[Metrics]:
        """Reports that came since the last call, in order."""
        reports, self._reports = self._reports, []
        return reports

    def failures(self) -> list[dict[str, Any]]:
        return list(self._failures)

    def end(self) -> None:
        """Lets the run end at the next report of every rank."""
        if self._end_at is None:
            self._end_at = self._latest + 1


def start_mailbox() -> Any:
    """Starts a mailbox actor; it needs no CPU and ends with the driver's last handle on it."""
    import ray

    return ray.remote(num_cpus=0)(Mailbox).remote()


def sender(mailbox: Any, rank: int) -> Callable[[Metrics], bool]:
    """A worker's `WorkerContext.send`: numbers its reports and waits for the mailbox's answer."""
    import ray

    number = 0

    def send(metrics: Metrics) -> bool:
        nonlocal number
        number += 1
        return bool(ray.get(mailbox.post.remote(rank, number, metrics), timeout=ANSWER_DEADLINE_S))

    return send


def describe_failure(error: BaseException, rank: int = 0) -> dict[str, Any]:
    """A failure as plain values: survives every trip between processes, whatever the exception holds."""
    return {
        "rank": rank,
        "user": isinstance(error, UserError),
        "text": failure_text(error),
        "traceback": "".join(traceback.format_exception(error)),
    }


def failure_text(error: BaseException) -> str:
    """One line about a failure: a user's mistake in its own words, anything else with its type."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Listener:
    """Hands reports to a callback from a thread of its own while the calling thread waits for the workers.

    Use as a context manager; what the callback raised is raised again when the block ends. A callback that returns True
    lets the run end at the workers' next report.
    """

    def __init__(self, mailbox: Any, on_report: OnReport | None) -> None:
        self._mailbox = mailbox
        self._on_report = on_report
        self._over = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._listen, name="fieldshift-reports", daemon=True)

    def _drain(self) -> None:
        import ray

        for metrics in ray.get(self._mailbox.take.remote(), timeout=ANSWER_DEADLINE_S):
            if self._on_report is not None and self._error is None and self._on_report(metrics):
                self._mailbox.end.remote()

    def _listen(self) -> None:
        while not self._over.wait(POLL_S):
            try:
                self._drain()
            except Exception as error:
                self._error = error
                self._mailbox.end.remote()
                return

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=ANSWER_DEADLINE_S)
        if kind is None and self._error is None:
            self._drain()
        if self._error is not None and (kind is None or issubclass(kind, Exception)):
            raise self._error
