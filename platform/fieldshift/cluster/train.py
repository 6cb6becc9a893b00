"""Runs one function on several workers through Ray Train, or in this process when no workers are requested."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from fieldshift.cluster.config import ClusterConfig
from fieldshift.cluster.connect import connect
from fieldshift.cluster.context import Metrics, RunStoppedError, WorkerContext
from fieldshift.cluster.local_cluster import is_own_cluster
from fieldshift.cluster.memory import WorkersLostError, retried
from fieldshift.cluster.reports import (
    ANSWER_DEADLINE_S,
    Listener,
    Loss,
    OnReport,
    Resize,
    describe_failure,
    sender,
    start_mailbox,
)
from fieldshift.cluster.resources import local_device, preflight, resources, worker_gpus
from fieldshift.cluster.sharing import check_shared
from fieldshift.cluster.storage import Storage, bring_all, place_of_ray
from fieldshift.cluster.variables import environment
from fieldshift.console import say
from fieldshift.errors import RunFailedError, UserError, reason_of
from fieldshift.termination import is_terminated, own_signals
from fieldshift.wording import counted

_STOPPED = "fieldshift: stopped"
RESIZE_INTERVAL_S = 30.0
"""Seconds between two looks for room for more workers."""
LOOK_INTERVAL_S = 0.5
"""Seconds between two looks at the workers; with Ray's 2, a run ends up to 2 s after its function."""

WorkerFunction = Callable[[dict[str, Any], WorkerContext], dict[str, Any]]

_LAUNCHED = threading.Event()
"""In a worker: Ray has launched the function on every worker of the group."""


class WorkerFailedError(RuntimeError):
    """A worker ended with an error other than a user error; the message contains the worker's traceback."""


def run_workers(
    function: WorkerFunction,
    payload: dict[str, Any],
    *,
    cluster: ClusterConfig,
    name: str,
    storage: Path,
    shared: Storage | None = None,
    on_report: OnReport | None = None,
) -> dict[str, Any]:
    """Runs `function(payload, context)` on every worker and returns the return value of rank 0.

    With `cluster.workers` 0 the same function runs in this process, with no process group. Otherwise Ray Train starts
    the workers with torch.distributed joined (gloo on CPUs and on shared GPUs, NCCL where every worker has its own).
    When a worker or its node dies, all of them are restarted, up to `cluster.max_failures` times, and the function is
    called again: it must resume from its files on disk. An error of the function itself ends the run at once.

    Args:
        function: Importable by the workers, or defined where it can be pickled.
        payload: Plain values, the configuration of the run; a digest of it is part of the run's name.
        name: Name of the run, letters, digits, and ._=-
        storage: Folder for Ray's own files; without `shared` all nodes of the cluster have to see it.
        shared: Place in the cluster's storage for these, and for the folders that the function takes from its context; they
            have come to this machine when this function returns.
        on_report: Called with rank 0's reports in this process (on a cluster in a separate thread); returning True
            stops the run at the workers' next report.

    Raises:
        RunStoppedError: `on_report` returned True.
        UserError: The request exceeds the cluster, a node does not see the storage, or a worker raised UserError.
        WorkerFailedError: A worker raised anything else.
        WorkersLostError: Workers died more often than `cluster.max_failures` allows.
    """
    if cluster.workers == 0:
        return run_here(function, payload, device=local_device(cluster), on_report=on_report)
    with connect(cluster):
        check_shared(storage.resolve(), shared)

        def run() -> tuple[dict[str, Any], list[str]]:
            with own_groups_released():
                return fit(
                    function, payload, cluster.workers, least=cluster.min_workers, cluster=cluster, name=name,
                    storage=storage, shared=shared, on_report=on_report, releases_groups=is_own_cluster(),
                )  # fmt: skip

        value, folders = retried(run, cluster)
        bring_all(shared, folders)
        return value


@contextlib.contextmanager
def own_groups_released() -> Iterator[None]:
    """Removes the placement groups that a failed run has left on a cluster of its own.

    Ray Train sometimes keeps those of workers that were lost. They would hold their cores, and the next run on the same cluster
    would wait for ever. On a cluster that others use, Ray removes them when this process ends.
    """
    from ray._raylet import PlacementGroupID
    from ray.util import placement_group_table, remove_placement_group
    from ray.util.placement_group import PlacementGroup

    if not is_own_cluster():
        yield
        return

    def groups() -> set[str]:
        return {key for key, row in placement_group_table().items() if row["state"] != "REMOVED"}

    before = groups()
    try:
        yield
    except BaseException:
        if is_terminated():  # the cluster ends with this process, or has ended
            raise
        for left in groups() - before:
            remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(left)))
        raise


def run_here(
    function: WorkerFunction, payload: dict[str, Any], *, device: str, on_report: OnReport | None = None
) -> dict[str, Any]:
    """Runs the function as the only worker, in this process."""

    def send(metrics: Metrics) -> bool:
        return bool(on_report(metrics)) if on_report is not None else False

    return function(payload, WorkerContext(device=device, send=send))


def fit(
    function: WorkerFunction,
    payload: dict[str, Any],
    workers: int,
    *,
    least: int | None = None,
    cluster: ClusterConfig,
    name: str,
    storage: Path,
    shared: Storage | None = None,
    on_report: OnReport | None = None,
    releases_groups: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Implements `run_workers` on the connected cluster (a trial calls it too); with `least` the number is elastic.

    `releases_groups`: the caller removes placement groups that are left; a trial that Tune stops could not.
    Also returns the folders of the run that rank 0 has stored in `shared`.
    """
    from ray import train
    from ray.train.torch import TorchConfig
    from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig

    held = resources()
    preflight(cluster, least or workers, held)
    gpus = worker_gpus(cluster, held.gpus)
    mailbox = start_mailbox()
    per_worker = {"CPU": float(cluster.cpus_per_worker)} | ({"GPU": gpus} if gpus else {})
    trainer = _trainer_class(releases_groups=releases_groups)(
        _work,
        train_loop_config={
            "function": function,
            "payload": payload,
            "mailbox": mailbox,
            "storage": shared,
            "threads": cluster.cpus_per_worker,
        },
        torch_config=TorchConfig(backend="nccl" if gpus == 1 else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers if least is None else (least, workers),
            use_gpu=gpus > 0,
            resources_per_worker=per_worker,
            elastic_resize_monitor_interval_s=RESIZE_INTERVAL_S,
        ),
        run_config=RunConfig(
            name=f"{name}-{digest(payload)}",
            **place_of_ray(storage, shared),
            failure_config=FailureConfig(
                max_failures=cluster.max_failures,
                # Workers that died during their start, or did not start.
                controller_failure_limit=cluster.max_failures,
                max_preemption_failures=cluster.max_failures,
            ),
            callbacks=[_watcher(mailbox), _launch_gate()],
            logging_config=train.LoggingConfig(log_level="ERROR"),
        ),
    )
    times = {
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(cluster.start_timeout_s),
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(LOOK_INTERVAL_S),
    }

    def tell(change: Loss | Resize) -> None:
        if isinstance(change, Resize):
            say(f"  {change.words()}, from the last checkpoint")
        elif change.number <= cluster.max_failures:
            retry = f"retry {change.number} of {cluster.max_failures}"
            say(f"  {change.words()}; resuming from the last checkpoint ({retry})")

    with Listener(mailbox, on_report, tell), environment(times), own_signals():
        value = _outcome(trainer, mailbox, workers, cluster)
    if value == _STOPPED:
        raise RunStoppedError
    returned, folders = value
    if not isinstance(returned, dict):
        raise TypeError(f"A worker function must return a dict, but '{name}' returned a {type(returned).__name__}.")
    return returned, folders


def digest(payload: dict[str, Any]) -> str:
    """Eight hexadecimal digits that depend on every value of a configuration."""

    def plain(value: object) -> object:
        if is_dataclass(value) and not isinstance(value, type):
            return asdict(value)
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, set | frozenset):
            return sorted(value, key=repr)
        raise TypeError(f"A payload must contain plain values, but has a {type(value).__name__}.")

    text = json.dumps(payload, sort_keys=True, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _work(config: dict[str, Any]) -> Any:
    """Entry point of every Ray Train worker: sets up threads and device, then calls the function; reports failures."""
    import ray
    import torch
    from ray import train

    torch.set_num_threads(config["threads"])
    place = train.get_context()
    rank = place.get_world_rank()
    context = WorkerContext(
        rank=rank,
        world=place.get_world_size(),
        device=str(train.torch.get_device()),
        send=sender(config["mailbox"], rank),
        storage=config["storage"],
    )
    node = ray.util.get_node_ip_address()
    _LAUNCHED.wait(ANSWER_DEADLINE_S)
    attempt = ray.get(config["mailbox"].begin.remote(rank, node, context.world), timeout=ANSWER_DEADLINE_S)
    try:
        value = config["function"](config["payload"], context)
    except RunStoppedError:
        return _STOPPED
    except Exception as error:
        ray.get(config["mailbox"].fail.remote(describe_failure(error, rank), attempt), timeout=ANSWER_DEADLINE_S)
        raise
    return (value, context.folders) if rank == 0 else None


def _trainer_class(*, releases_groups: bool) -> Any:
    """Ray's TorchTrainer without actors that have nothing to do here; each takes a process and about a second to start.

    One hands out datasets of Ray Data, which no run has. Another removes placement groups after a controller that died, which
    is not needed where the caller does.
    """
    from ray.train.v2.torch.torch_trainer import TorchTrainer

    idle = {"DatasetsCallback", *(["PlacementGroupCleanerCallback"] if releases_groups else [])}

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            return [each for each in super()._create_default_callbacks() if type(each).__name__ not in idle]

    return Trainer


def _watcher(mailbox: Any) -> Any:
    """The callback that lets Ray Train restart dead workers, and ends a run whose function failed."""
    from ray.train import UserCallback

    class Watcher(UserCallback):
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
            import ray

            if not ray.get(mailbox.lost.remote(sorted(worker_exceptions)), timeout=ANSWER_DEADLINE_S):
                raise RuntimeError("A worker's own error ends the run.")

    return Watcher()


def _begin() -> None:
    """Lets the function of this worker begin."""
    _LAUNCHED.set()


def _launch_gate() -> Any:
    """The callback that lets the workers begin once Ray has launched the function on all of them.

    Ray Train ends a run, without a retry, when a worker dies while others are still being launched.
    """
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback

    class Gate(WorkerGroupCallback):
        def after_worker_group_training_start(self, worker_group: Any) -> None:
            worker_group.execute_async(_begin)  # not waited for: the next look at the workers finds a dead one

    return Gate()


def _outcome(trainer: Any, mailbox: Any, workers: int, cluster: ClusterConfig) -> Any:
    import ray
    from ray.train import TrainingFailedError

    try:
        return trainer.fit().return_value
    except SystemExit:
        # Ray's own SIGINT handler aborts the workers, then exits.
        raise KeyboardInterrupt from None
    except (TrainingFailedError, ray.exceptions.RayError) as error:
        # A rank that lost its connection to a dead one reports that as its own failure.
        failures = [
            failure
            for failure in ray.get(mailbox.failures.remote(), timeout=ANSWER_DEADLINE_S)
            if not failure["passing"]
        ]
        if not failures:
            losses = ray.get(mailbox.losses.remote(), timeout=ANSWER_DEADLINE_S)
            raise _without_own_failure(error, losses, workers, cluster) from error
        # The first one to fail is the cause; the other ranks fail because it went away.
        first = next((failure for failure in failures if failure["user"]), failures[0])
        if first["user"]:
            raise UserError(first["text"]) from None
        raise WorkerFailedError(f"Worker {first['rank']} of {workers}: {first['text']}\n{first['traceback']}") from None


def _without_own_failure(error: Exception, losses: list[Loss], workers: int, cluster: ClusterConfig) -> Exception:
    """The error of a run that ended though its function reported no failure of its own."""
    import ray
    from ray.train import ControllerError

    cause = error.controller_failure if isinstance(error, ControllerError) else None
    limit = f"cluster.max_failures is {cluster.max_failures}"
    resume = "the same command with --resume resumes from the last checkpoint."
    times = counted(1 + cluster.max_failures, "time")
    if "WorkerGroupStartupTimeout" in type(cause).__name__:
        return UserError(
            f"{counted(workers, 'worker')} did not start in {cluster.start_timeout_s:g} seconds (cluster.start_timeout_s), "
            f"{times}; wait for other runs on the cluster to end, or allow more time."
        )
    if "WorkerGroupStartupFailed" in type(cause).__name__:
        return WorkersLostError(f"The run's workers died {times} while they started ({limit}); {resume}", is_final=True)
    if isinstance(cause, ray.exceptions.RayActorError):
        return WorkersLostError(f"A worker died while the function was launched, which Ray does not retry; {resume}")
    if losses:
        lost = f"The run's workers were lost {counted(len(losses), 'time')} ({limit})"
        is_final = len(losses) > cluster.max_failures
        return WorkersLostError(f"{lost}, most recently: {losses[-1].words()}; {resume}", is_final=is_final)
    return RunFailedError(
        f"The workers could not run ({reason_of(error)}); the same command with --resume tries again."
    )
