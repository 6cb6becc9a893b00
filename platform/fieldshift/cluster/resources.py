"""The resources of a cluster or of this machine, and whether a request fits them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fieldshift.cluster.config import ClusterConfig
from fieldshift.errors import UserError
from fieldshift.wording import counted


@dataclass(frozen=True)
class Resources:
    """The total resources of a cluster: CPU cores and GPUs."""

    cpus: float
    gpus: float


def resources() -> Resources:
    """The total resources of the connected cluster."""
    import ray

    total: dict[str, float] = ray.cluster_resources()
    return Resources(cpus=float(total.get("CPU", 0.0)), gpus=float(total.get("GPU", 0.0)))


def this_machine() -> Resources:
    """The resources that a local cluster on this machine will have, before it is started."""
    try:
        import torch
    except ImportError:
        return Resources(cpus=float(os.cpu_count() or 1), gpus=0.0)
    return Resources(cpus=float(os.cpu_count() or 1), gpus=float(torch.cuda.device_count()))


def worker_gpus(cluster: ClusterConfig, gpus: float) -> float:
    """GPUs per worker where there are `gpus` in all: the requested number, else one where available."""
    if cluster.gpus_per_worker is not None:
        return cluster.gpus_per_worker
    return 1.0 if gpus >= 1 else 0.0


def check_cores(cluster: ClusterConfig, workers: int, cores: float) -> None:
    """Raises UserError where `workers` workers need more CPU cores than available."""
    needed = workers * cluster.cpus_per_worker
    if needed > cores:
        raise _too_many(workers, needed, "CPU cores", cores, "cluster.cpus_per_worker")


def _too_many(workers: int, needed: float, what: str, there: float, field: str) -> UserError:
    return UserError(
        f"Too few {what} for {counted(workers, 'worker')}: {needed:,g} needed, but the cluster has {there:,g};"
        f" ask for fewer workers, lower {field}, or give the cluster.address of a bigger cluster."
    )


def preflight(cluster: ClusterConfig, workers: int, held: Resources) -> None:
    """Checks that `workers` workers fit on the cluster, so that no run waits for resources that do not exist.

    Raises:
        UserError: The workers need more CPU cores or GPUs than the cluster has; the message gives both numbers.
    """
    check_cores(cluster, workers, held.cpus)
    needed = workers * worker_gpus(cluster, held.gpus)
    if needed > held.gpus:
        raise _too_many(workers, needed, "GPUs", held.gpus, "cluster.gpus_per_worker")


def local_device(cluster: ClusterConfig) -> str:
    """The torch device name for a run in this process.

    Raises:
        UserError: A GPU is requested and there is none.
    """
    try:
        import torch
    except ImportError:
        return "cpu"
    available = torch.cuda.is_available()
    if cluster.gpus_per_worker and not available:
        raise UserError(
            f"cluster.gpus_per_worker is {cluster.gpus_per_worker:g}, but this machine has 0 GPUs that torch can use;"
            " leave it out or set it to 0."
        )
    return "cuda:0" if available and cluster.gpus_per_worker != 0 else "cpu"


def concurrent_trials(cluster: ClusterConfig, held: Resources) -> int:
    """The number of trials that fit on the cluster at once.

    Raises:
        UserError: Not even one fits.
    """
    workers = max(cluster.trial_workers, 1)
    preflight(cluster, workers, held)
    gpus = worker_gpus(cluster, held.gpus)
    fitting = int(held.cpus // (workers * cluster.cpus_per_worker))
    if gpus:
        fitting = min(fitting, int(held.gpus / gpus + 1e-9) // workers)
    return min(fitting, cluster.trials_at_once) if cluster.trials_at_once else fitting
