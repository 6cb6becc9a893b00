"""What a function knows about the worker it runs in, the same in one process and on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Metrics = dict[str, float]
Send = Callable[[Metrics], bool]


@dataclass
class WorkerContext:
    """The place a worker function runs in: which of how many workers it is, its device, and its line to the driver.

    Attributes:
        rank: Number of this worker, 0 to world - 1.
        world: Workers that run the same function together.
        device: torch's name of the device, "cpu" or "cuda:0".
        stopping: Set by `report` once the run should end here; it turns true at the same report on every worker.
    """

    rank: int = 0
    world: int = 1
    device: str = "cpu"
    stopping: bool = False
    send: Send | None = field(default=None, repr=False)

    def report(self, metrics: Mapping[str, float]) -> None:
        """Tells the driver how the run goes; the driver hears what rank 0 says, and may answer that it should end.

        Every worker calls this equally often, once per epoch or so, never once per batch: each call is a message.

        Args:
            metrics: Plain numbers by name. Non-finite values are allowed, tensors are not.

        Raises:
            TypeError: A value is not a plain number.
        """
        plain = plain_numbers(metrics)
        if self.send is not None and self.send(plain):
            self.stopping = True


def plain_numbers(metrics: Mapping[str, float]) -> Metrics:
    """Numbers as Python floats; raises TypeError that names the first value which is something else."""
    for name, value in metrics.items():
        if not isinstance(value, int | float):
            raise TypeError(f"A report holds plain numbers, but '{name}' is a {type(value).__name__}; use .item().")
    return {name: float(value) for name, value in metrics.items()}
