"""Joining or starting a Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from fieldshift.cluster.config import ClusterConfig
from fieldshift.cluster.local_cluster import disconnect, local_cluster
from fieldshift.cluster.reach import check_reach, is_connected
from fieldshift.cluster.resources import Resources, local_device, preflight, resources, this_machine
from fieldshift.cluster.storage import given_storage, shown, try_storage
from fieldshift.cluster.tokens import TOKEN_ADVICE
from fieldshift.cluster.variables import environment
from fieldshift.cluster.watch import loss_said
from fieldshift.errors import MissingFeatureError, RunFailedError, UserError, one_line
from fieldshift.termination import own_signals

# Read by Ray in the driver and, through the local cluster's first process, in every worker.
_QUIET = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

# Read by the raylet of a cluster that starts here: with Ray's 15, workers get 3 % of a core that another process wants.
NICENESS = {"RAY_worker_niceness": "0"}

# A worker's death is reported by `run_workers` and `run_trials`. Ray reads this when it is first imported.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed while executing a task")


def has_ray() -> bool:
    """Whether Ray with Train and Tune can be imported."""
    try:
        import ray.train
        import ray.tune  # noqa: F401
    except ImportError:
        return False
    return True


def require_ray(feature: str) -> None:
    """Raises MissingFeatureError in one line where Ray is not installed."""
    if not has_ray():
        raise MissingFeatureError(
            f"{feature} needs Ray, which is not installed: pip install 'ray[default,train,tune]', or use no workers."
        )


@contextlib.contextmanager
def connect(cluster: ClusterConfig, modules: Sequence[ModuleType] = ()) -> Iterator[Resources]:
    """Joins the cluster, or starts a local one with its dashboard; at the end it stops only what it started.

    Where this process is already connected, that connection is used and left open, so that several runs within an outer
    `connect` share one cluster. A process inside a submitted job joins the job's cluster.

    Args:
        cluster: Which cluster; `address=None` starts a local one unless RAY_ADDRESS names another.
        modules: Packages that a joined cluster's workers receive (`py_modules`); local workers import what this
            process can import, and a job's workers received theirs with the job.

    Raises:
        UserError: The address does not answer, or refuses this process.
        RunFailedError: The cluster failed during the block.
    """
    require_ray("cluster.address" if cluster.address else "Starting workers")
    import ray

    if ray.is_initialized():
        yield resources()
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet = {name: value for name, value in (_QUIET | NICENESS).items() if name not in os.environ}
    with (
        environment(quiet),
        _session(cluster, modules),
        _failures_in_one_line(),
        loss_said(ray.get_runtime_context().gcs_address if ray.is_initialized() else None),
    ):
        yield resources()


@contextlib.contextmanager
def _failures_in_one_line() -> Iterator[None]:
    """Raises RunFailedError in place of Ray's errors about the cluster itself, such as one whose head has gone."""
    import ray

    try:
        yield
    except ray.exceptions.RayTaskError:  # of a function that ran there
        raise
    except ray.exceptions.RayError as error:
        raise RunFailedError(
            f"The Ray cluster failed ({one_line(error, 160)}); the same command with --resume resumes from the last checkpoint."
        ) from error


def check_fits(cluster: ClusterConfig, workers: int) -> None:
    """Checks before any work that `workers` workers fit; 0 means a run in this process. Starts no local cluster.

    Raises:
        UserError: The workers need more CPU cores or GPUs than available, the cluster does not answer, or its storage cannot
            be written, or one of the two is given but not used because the run is in this process.
        MissingFeatureError: Workers are requested and Ray is not installed.
    """
    if workers == 0:
        local_device(cluster)
        for name, given in (("address", cluster.address), ("storage", cluster.storage and shown(cluster.storage))):
            if given is not None:
                raise UserError(
                    f"cluster.{name} is {given}, but a run in this process does not use it; leave it out, or give "
                    "--cluster.workers 1 or more (train, search), or --cluster.trials_at_once above 0."
                )
        return
    check_reach(cluster, workers)
    if cluster.storage is not None:
        try_storage(given_storage(cluster.storage))
    require_ray("cluster.address" if cluster.address else "Starting workers")
    if cluster.address is None and "RAY_ADDRESS" not in os.environ and not is_connected():
        preflight(cluster, workers, this_machine())
        return
    with connect(cluster) as held:
        preflight(cluster, workers, held)


@contextlib.contextmanager
def _session(cluster: ClusterConfig, modules: Sequence[ModuleType]) -> Iterator[None]:
    check_reach(cluster, 0)
    inherited = os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.address is None and not inherited:
        with local_cluster(_reason, **quiet):
            yield
        return
    try:
        with own_signals():
            if cluster.address is None:
                travelling: dict[str, Any] = {"env_vars": _QUIET | {"RAY_ADDRESS": inherited}}
                _join(f"RAY_ADDRESS {inherited}", runtime_env=travelling, **quiet)
            else:
                travelling = {"env_vars": dict(_QUIET), "py_modules": list(modules)}
                _join(f"cluster.address {cluster.address}", address=cluster.address, runtime_env=travelling, **quiet)
        yield
    finally:
        disconnect()


def _join(place: str, **settings: Any) -> None:
    import ray

    try:
        ray.init(**settings)
    except Exception as error:
        raise UserError(f"No Ray cluster answers at {place}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = one_line(error)
    if "auth" in text.lower():
        return f"it rejects this process's token; {TOKEN_ADVICE}. {text[:160]}"
    if text.startswith("Failed to connect") and "RAY_AUTH_TOKEN" not in os.environ:
        text += f"; if it requires a token, {TOKEN_ADVICE}"
    return text[:300]
