"""Reports from workers to the driver, and stop requests from the driver to the workers."""

from __future__ import annotations

import contextlib
import re
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fieldshift.cluster.context import Metrics
from fieldshift.cluster.storage import StorageLostError
from fieldshift.errors import UserError, one_line
from fieldshift.termination import is_terminated
from fieldshift.wording import counted

POLL_S = 0.25
# A mailbox that died answers with an error at once; on a busy machine a living one may be slow.
ANSWER_DEADLINE_S, ENDING_DEADLINE_S = 600.0, 2.0
LONGEST_FAILURE = 500  # torch names every kernel of an operation that a device lacks: 9,000 characters

_LOST_PEER = re.compile(r"gloo|NCCL|Connection (?:reset|closed|refused)|Broken pipe|Socket Timeout", re.IGNORECASE)

OnReport = Callable[[Metrics], bool | None]


class Mailbox:
    """An actor that holds rank 0's reports for the driver, the first failure of every rank, and the ranks that died.

    A stop request takes effect at one report number, the first that no rank has reached when it arrives; so all ranks
    stop at the same report without communicating with each other. When workers died, all ranks restart and number their
    reports from 1 again.
    """

    def __init__(self) -> None:
        self._reports: list[Metrics | Loss | Resize] = []
        self._failures: list[dict[str, Any]] = []
        self._places: dict[int, str] = {}
        self._losses: list[Loss] = []
        self._attempt = 0
        self._world = 0
        self._latest = 0
        self._end_at: int | None = None

    def begin(self, rank: int, place: str, world: int) -> int:
        """Registers a rank of `world` that starts on that node; returns how often all ranks have restarted before."""
        self._places[rank] = place
        if self._world not in (0, world):
            self._reports.append(Resize(before=self._world, now=world))
            self._restart()
        self._world = world
        return self._attempt

    def post(self, rank: int, number: int, metrics: Metrics) -> bool:
        """Takes report `number` (1, 2, ...) of a rank and returns whether the run should stop there."""
        if rank == 0:
            self._reports.append(metrics)
        self._latest = max(self._latest, number)
        return self._end_at is not None and number >= self._end_at

    def fail(self, failure: dict[str, Any], attempt: int) -> None:
        """Takes a rank's failure, unless it is the late one of an attempt that a death or a resize has ended."""
        if attempt == self._attempt:
            self._failures.append(failure)

    def lost(self, ranks: list[int]) -> bool:
        """Whether the run may restart after these ranks ended: by deaths, by others' deaths, or by a storage that failed."""
        if any(not failure["passing"] for failure in self._failures):
            return False
        reported = {failure["rank"] for failure in self._failures}
        dead = tuple((rank, self._places.get(rank, "")) for rank in ranks if rank not in reported)
        storage = next((failure["text"] for failure in self._failures if failure["storage"]), "")
        self._losses.append(Loss(number=len(self._losses) + 1, dead=dead, storage=storage))
        self._reports.append(self._losses[-1])
        self._restart()
        return True

    def _restart(self) -> None:
        """Prepares for ranks that number their reports from 1 again; a stop that was requested is at the first one."""
        self._attempt += 1
        self._failures, self._latest = [], 0
        self._end_at = None if self._end_at is None else 1

    def take(self) -> list[Metrics | Loss | Resize]:
        """Returns the reports, losses and resizes since the last call, in order."""
        reports, self._reports = self._reports, []
        return reports

    def failures(self) -> list[dict[str, Any]]:
        return list(self._failures)

    def losses(self) -> list[Loss]:
        return list(self._losses)

    def end(self) -> None:
        """Stops the run at the next report of every rank."""
        if self._end_at is None:
            self._end_at = self._latest + 1


@dataclass(frozen=True)
class Loss:
    """Workers that ended: the number of losses so far, the (rank, node) of those known to be dead, a storage's failure."""

    number: int
    dead: tuple[tuple[int, str], ...]
    storage: str = ""

    def words(self) -> str:
        """Describes what was lost, in one phrase."""
        if self.storage:
            return self.storage.partition(";")[0]
        named = [f"worker {rank}{f' on {place}' if place else ''}" for rank, place in self.dead]
        if not named:
            return "the workers lost their connection to each other"
        return f"{', '.join(named)} died"


@dataclass(frozen=True)
class Resize:
    """Another number of workers, after a loss or because the cluster has room for more."""

    before: int
    now: int

    def words(self) -> str:
        """Describes the change, in one phrase."""
        return f"continuing with {counted(self.now, 'worker')} instead of {self.before}"


def start_mailbox() -> Any:
    """Starts a mailbox actor on the driver's own node; it needs no CPU and ends with the driver's last handle to it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(Mailbox).options(scheduling_strategy=here).remote()


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
    """A failure as plain values, which can be sent between processes whatever the exception contains."""
    return {
        "rank": rank,
        "user": isinstance(error, UserError),
        "passing": is_lost_peer(error) or isinstance(error, StorageLostError),
        "storage": isinstance(error, StorageLostError),
        "text": failure_text(error),
        "traceback": "".join(traceback.format_exception(error)),
    }


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error is torch.distributed's report of another worker that went away."""
    import torch.distributed as dist

    if isinstance(error, UserError) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError) or _LOST_PEER.search(str(error)) is not None


def failure_text(error: BaseException) -> str:
    """A failure as one line: a user error as its own message, any other error with its type, cut after LONGEST_FAILURE."""
    text, kind = one_line(error), type(error).__name__
    if isinstance(error, UserError | StorageLostError) or text == kind:
        return text
    return f"{kind}: {text[:LONGEST_FAILURE] + ' ...' if len(text) > LONGEST_FAILURE else text}"


class Listener:
    """Passes reports to a callback in a separate thread while the calling thread waits for the workers.

    Use as a context manager; an error of the callback is raised again when the block ends. A callback that returns True
    stops the run at the workers' next report.
    """

    def __init__(self, mailbox: Any, on_report: OnReport | None, on_change: Callable[[Loss | Resize], object]) -> None:
        self._mailbox = mailbox
        self._on_report = on_report
        self._on_change = on_change
        self._over = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._listen, name="fieldshift-reports", daemon=True)

    def _drain(self) -> None:
        import ray

        for metrics in ray.get(self._mailbox.take.remote(), timeout=ANSWER_DEADLINE_S):
            if isinstance(metrics, Loss | Resize):
                self._on_change(metrics)
            elif self._on_report is not None and self._error is None and self._on_report(metrics):
                self._mailbox.end.remote()

    def _listen(self) -> None:
        while not self._over.wait(POLL_S):
            try:
                self._drain()
            except Exception as error:
                self._error = error
                with contextlib.suppress(Exception):  # the connection has ended
                    self._mailbox.end.remote()
                return

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=ENDING_DEADLINE_S if is_terminated() else ANSWER_DEADLINE_S)
        if kind is None and self._error is None:
            self._drain()
        if self._error is not None and (kind is None or issubclass(kind, Exception)):
            raise self._error
