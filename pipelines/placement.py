"""Where the work of a command runs: checked before any of it, then one connection for all of it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

from fieldshift.cluster import ClusterConfig, check_fits, connect, has_ray
from fieldshift.cluster.reach import check_reach, is_connected
from fieldshift.console import say

if TYPE_CHECKING:
    import torch


def packages() -> tuple[ModuleType, ...]:
    """What travels to a cluster that is joined: this very code, so that its machines need only the requirements."""
    import fieldshift
    import pipelines
    import search_spaces

    return fieldshift, pipelines, search_spaces


def workers_of_trials(cluster: ClusterConfig) -> int:
    """Workers that one trial needs on Ray; 0 where trials run in this process."""
    return 0 if cluster.trials_at_once == 0 or not has_ray() else max(cluster.trial_workers, 1)


def sharing_workers(cluster: ClusterConfig) -> int:
    """Workers that share the batches of one trial, as `workers_of_trials`; does not import Ray."""
    return max(cluster.trial_workers, 1) if may_use_ray(cluster) else 0


def may_use_ray(cluster: ClusterConfig) -> bool:
    """Whether trials run on Ray as far as can be told without importing it."""
    return cluster.trials_at_once != 0 and importlib.util.find_spec("ray") is not None


def check_trials_fit(cluster: ClusterConfig) -> None:
    """Raises UserError when a trial of a comparison needs more than there is."""
    if may_use_ray(cluster):
        check_reach(cluster, max(cluster.trial_workers, 1))
    check_fits(cluster, workers_of_trials(cluster))


@contextmanager
def placed(cluster: ClusterConfig, *, on_ray: bool) -> Iterator[None]:
    """Holds one connection to Ray for the block, if it needs one, and says that it is being made: it takes seconds."""
    if not on_ray:
        yield
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    if not is_connected():
        say(f"  joining Ray at {address}" if address else "  starting Ray on this machine")
    with connect(cluster, modules=packages()):
        yield


def best_device() -> torch.device:
    """Where what runs in this process computes: on a GPU where there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
