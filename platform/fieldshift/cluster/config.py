"""Configuration of the processes and machines that a run uses."""

from __future__ import annotations

from dataclasses import dataclass

from fieldshift.errors import UserError
from fieldshift.settings import accept_fields
from fieldshift.tracking.config import holds_password


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Number and size of a run's processes, and the cluster that they start on.

    Attributes:
        workers: Processes that train one model together; 0 runs it in this process, without Ray.
        min_workers: Makes the number of workers elastic: the run starts with as many as the cluster has room for, from this
            number up to `workers`, continues with fewer when nodes leave and with more when nodes join, from the last
            checkpoint each time; None needs all `workers`. Batch size and learning rate do not change, and the batch has to
            be a multiple of every number of workers.
        cpus_per_worker: CPU cores (and torch threads) of each worker.
        gpus_per_worker: GPUs of each worker, 0 to 1 (a fraction shares a GPU); None uses one where available.
        address: Cluster to join, HOST:PORT or "auto"; None starts a local one, or joins the cluster of the job it runs in.
        trials_at_once: Upper bound on concurrent trials; None runs as many as fit, 0 uses no Ray.
        trial_workers: Processes that train each trial together; 0 gives a trial one process.
        max_failures: Maximum number of restarts of workers or of a trial after a death or a failed storage, each from the last
            checkpoint.
        storage: Path or URI (s3://, gs://, file://, ... of pyarrow.fs) that every node can write to, for checkpoints and
            the workers' files, which come back to the run folder; None uses the run folder itself, which all nodes then
            have to share.
        start_timeout_s: Seconds to wait for the workers to start. If they still do not start after `max_failures`
            further attempts, the run ends with an error.
    """

    workers: int = 0
    min_workers: int | None = None
    cpus_per_worker: int = 1
    gpus_per_worker: float | None = None
    address: str | None = None
    trials_at_once: int | None = None
    trial_workers: int = 0
    max_failures: int = 3
    storage: str | None = None
    start_timeout_s: float = 180.0

    def __post_init__(self) -> None:
        accept_fields(self, "cluster")
        for name, least in (("workers", 0), ("cpus_per_worker", 1), ("trial_workers", 0), ("trials_at_once", 0),
                            ("max_failures", 0)):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"cluster.{name} is {value}, but must be {least} or more.")
        if self.trial_workers and self.trials_at_once == 0:
            raise UserError(
                f"cluster.trial_workers is {self.trial_workers}, but cluster.trials_at_once 0 trains every trial in this"
                " process; leave out one of the two."
            )
        if self.min_workers is not None and not 1 <= self.min_workers <= self.workers:
            raise UserError(
                f"cluster.min_workers is {self.min_workers}, but must be from 1 to cluster.workers, which is {self.workers}."
            )
        if self.gpus_per_worker is not None and not 0 <= self.gpus_per_worker <= 1:
            raise UserError(
                f"cluster.gpus_per_worker is {self.gpus_per_worker:g}, but a worker uses 0 to 1 GPU;"
                " raise cluster.workers to use more GPUs."
            )
        if self.start_timeout_s <= 0:
            raise UserError(f"cluster.start_timeout_s is {self.start_timeout_s:g}, but must be above 0 seconds.")
        if self.storage is not None:
            check_storage_address(self.storage)
        if self.address is not None and "://" in self.address:
            raise UserError(
                f"cluster.address is '{self.address}', but must be HOST:PORT or 'auto';"
                " to send a command to a dashboard's URL, use `fieldshift submit --address URL -- COMMAND`."
            )


def check_storage_address(storage: str) -> None:
    """Raises UserError for a storage whose address contains credentials."""
    if "://" in storage and holds_password(storage):
        raise UserError(
            "cluster.storage holds a password, which would be written into config.yaml and MLflow; leave it out of the address"
            " and use the storage's own variables or files on every node (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3)."
        )
