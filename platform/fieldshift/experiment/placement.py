"""Placement of a command's work: checked before any work begins, then one connection for all of it."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

from fieldshift.cluster import ClusterConfig, check_fits, connect, has_ray
from fieldshift.cluster.reach import check_reach, found_address, is_connected
from fieldshift.console import say
from fieldshift.errors import UserError

if TYPE_CHECKING:
    import torch


def packages() -> tuple[ModuleType, ...]:
    """The packages that workers of a joined cluster receive, so that its machines need only the requirements."""
    import fieldshift
    import search_spaces

    return fieldshift, search_spaces


def workers_of_trials(cluster: ClusterConfig) -> int:
    """Number of workers that one trial needs on Ray; 0 where trials run in this process."""
    return 0 if cluster.trials_at_once == 0 or not has_ray() else max(cluster.trial_workers, 1)


def sharing_workers(cluster: ClusterConfig) -> int:
    """Number of workers that share the batches of one trial, as `workers_of_trials`, without importing Ray."""
    return max(cluster.trial_workers, 1) if may_use_ray(cluster) else 0


def may_use_ray(cluster: ClusterConfig) -> bool:
    """Returns whether trials may run on Ray, without importing it."""
    return cluster.trials_at_once != 0 and importlib.util.find_spec("ray") is not None


def check_elastic(cluster: ClusterConfig, batch: int, option: str, accumulate: int = 1) -> None:
    """Raises UserError where the batch cannot be shared equally by every number of workers of an elastic run.

    Each worker divides its part into `accumulate` micro-batches.
    """
    if cluster.min_workers is None:
        return
    shared = math.lcm(*range(cluster.min_workers, cluster.workers + 1)) * accumulate
    if batch % shared:
        parts = f" into {accumulate} micro-batches each" if accumulate > 1 else ""
        raise UserError(
            f"{option} is {batch}, but every number of workers from {cluster.min_workers} (cluster.min_workers) to "
            f"{cluster.workers} has to divide it{parts}; give a multiple of {shared}, such as {option} "
            f"{max(shared, batch - batch % shared)}."
        )


def check_trials_fit(cluster: ClusterConfig) -> None:
    """Raises UserError when a trial of a comparison needs more cores or GPUs than there are, or workers that it cannot have."""
    for name in ("min_workers", "workers"):
        if getattr(cluster, name):
            raise UserError(
                f"cluster.{name} is for search and train; the workers that share each trial are cluster.trial_workers."
            )
    if may_use_ray(cluster):
        check_reach(cluster, max(cluster.trial_workers, 1))
    check_fits(cluster, workers_of_trials(cluster))


@contextmanager
def placed(cluster: ClusterConfig, *, on_ray: bool) -> Iterator[None]:
    """Holds one connection to Ray for the block, where it needs one, and reports that it is being made, which takes seconds."""
    if not on_ray:
        yield
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    if not is_connected():
        if address == "auto":
            address = f"{found_address()}, which 'auto' found"
        say(f"  joining Ray at {address}" if address else "  starting Ray on this machine")
    with connect(cluster, modules=packages()):
        yield


def best_device() -> torch.device:
    """The device of work in this process: the GPU where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
