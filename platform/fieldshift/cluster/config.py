"""What a run asks of the machines it runs on."""

from __future__ import annotations

from dataclasses import dataclass

from fieldshift.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """How many processes a run uses, how big each is, and on which cluster they start.

    Attributes:
        workers: Processes that train one model together; 0 runs it inside this process, without Ray.
        cpus_per_worker: CPU cores (and torch threads) of each worker.
        gpus_per_worker: GPUs of each worker, 0 to 1 (a fraction shares a GPU); None takes one wherever there is any.
        address: Cluster to join, HOST:PORT or "auto"; None starts a local one, or joins the one a job was sent to.
        trials_at_once: Upper bound on trials at the same time; None fits as many as there is room for, 0 uses no Ray.
        trial_workers: Processes that train each trial together; 0 gives a trial one process.
        max_failures: How often workers or a trial that died are started again, from their last checkpoint.
        start_timeout_s: Seconds that workers have to start before the run ends with an error.
    """

    workers: int = 0
    cpus_per_worker: int = 1
    gpus_per_worker: float | None = None
    address: str | None = None
    trials_at_once: int | None = None
    trial_workers: int = 0
    max_failures: int = 3
    start_timeout_s: float = 180.0

    def __post_init__(self) -> None:
        for name, least in (("workers", 0), ("cpus_per_worker", 1), ("trial_workers", 0), ("trials_at_once", 0),
                            ("max_failures", 0)):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"cluster.{name} is {value}, but must be {least} or more.")
        if self.gpus_per_worker is not None and not 0 <= self.gpus_per_worker <= 1:
            raise UserError(
                f"cluster.gpus_per_worker is {self.gpus_per_worker:g}, but a worker drives 0 to 1 GPU;"
                " raise cluster.workers to use more GPUs."
            )
        if self.start_timeout_s <= 0:
            raise UserError(f"cluster.start_timeout_s is {self.start_timeout_s:g}, but must be above 0 seconds.")
        if self.address is not None and "://" in self.address:
            raise UserError(
                f"cluster.address is '{self.address}', but a run joins a cluster as HOST:PORT or 'auto';"
                " send a command to a dashboard's URL with `fieldshift submit --address URL -- COMMAND`."
            )
