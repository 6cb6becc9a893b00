"""The worker's view of a run, the same in one process and on a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fieldshift.cluster.storage import Storage, WorkingCopy

Metrics = dict[str, float]
Send = Callable[[Metrics], bool]


class RunStoppedError(Exception):
    """The driver asked the run to stop; raised by `WorkerContext.report` at the same report on every worker."""


@dataclass
class WorkerContext:
    """The context of a worker function: its rank, its device and its channel to the driver.

    Attributes:
        rank: Rank of this worker, 0 to world - 1.
        world: Number of workers that run the same function together.
        device: torch device name, "cpu" or "cuda:0".
        storage: The run's place in the storage of the cluster, where it has one.
        folders: The folders of the run that came to the storage, one after another.
    """

    rank: int = 0
    world: int = 1
    device: str = "cpu"
    send: Send | None = field(default=None, repr=False)
    storage: Storage | None = field(default=None, repr=False)
    folders: list[str] = field(default_factory=list, repr=False)
    _copies: list[WorkingCopy] = field(default_factory=list, repr=False)

    @contextlib.contextmanager
    def folder(self, path: str | Path) -> Iterator[Path]:
        """The folder `path` of the run, as this worker reads and writes its files.

        That is `path` itself, or with `cluster.storage` a copy: the first worker's is stored at each report and when the
        block ends. A checkpoint has to be written before its report.
        """
        if self.storage is None:
            yield Path(path)
            return
        with self.storage.working_copy(Path(path), first=self.rank == 0) as copy:
            self._copies.append(copy)
            try:
                yield copy.local
            finally:
                self._copies.remove(copy)
        self.folders.append(str(path))

    def report(self, metrics: Mapping[str, float]) -> None:
        """Reports metrics to the driver, which uses those of rank 0.

        Every worker must call this equally often, about ten times per epoch and never once per batch: each call is a message.

        Args:
            metrics: Plain numbers by name. Non-finite values are allowed, tensors are not.

        Raises:
            RunStoppedError: The driver answers that the run should stop.
            TypeError: A value is not a plain number.
        """
        plain = plain_numbers(metrics)
        for copy in self._copies:
            copy.store()
        if self.send is not None and self.send(plain):
            raise RunStoppedError


def plain_numbers(metrics: Mapping[str, float]) -> Metrics:
    """Numbers as Python floats; raises TypeError that names the first value of another type."""
    for name, value in metrics.items():
        if not isinstance(value, int | float):
            raise TypeError(
                f"A report must contain plain numbers, but '{name}' is a {type(value).__name__}; use .item()."
            )
    return {name: float(value) for name, value in metrics.items()}
