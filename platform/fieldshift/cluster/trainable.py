"""Adapts a worker function to Ray Tune, and Tune's callbacks to ours."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any

from fieldshift.cluster.config import ClusterConfig
from fieldshift.cluster.context import Metrics, WorkerContext
from fieldshift.cluster.reports import describe_failure
from fieldshift.cluster.resources import Resources, worker_gpus
from fieldshift.cluster.storage import Storage, StorageLostError
from fieldshift.cluster.train import WorkerFunction, fit
from fieldshift.cluster.trials import OnDone, OnTrialReport, Trial, TrialResult
from fieldshift.cluster.variables import environment
from fieldshift.console import say
from fieldshift.termination import own_signals

TrialOf = Callable[[dict[str, Any]], Trial]

VALUE, FAILURE, SECONDS = "fieldshift_value", "fieldshift_failure", "fieldshift_seconds"
FOLDERS = "fieldshift_folders"
# Bytes that the driver of a multi-worker trial reserves: every node has memory, and no worker waits for it.
DRIVER_MEMORY = 1_000_000

_DRIVER_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    # The last report of a failed trial carries no metric, and must not end the other trials.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_TUNE_KEYS = {"config", "date", "timestamp", "trial_id", "pid", "hostname", "node_ip", "done", "training_iteration"}


def trainable_for(
    function: WorkerFunction,
    trial_of: TrialOf,
    cluster: ClusterConfig,
    held: Resources,
    storage: Path,
    shared: Storage | None = None,
) -> Any:
    """Wraps the function for Ray Tune, with the resources of one trial.

    A trial with several workers only drives them: it reserves almost nothing, so that the workers fit.

    Args:
        trial_of: Converts a Tune configuration to its trial.
        held: Resources of the cluster, so that a worker gets a GPU where available.
        storage: Absolute folder for the files of Ray Train.
        shared: As for `run_workers`.
    """
    from ray import tune
    from ray.tune import PlacementGroupFactory

    gpus = worker_gpus(cluster, held.gpus)
    alone = {"CPU": float(cluster.cpus_per_worker)} | ({"GPU": gpus} if gpus else {})
    bundle = {"memory": float(DRIVER_MEMORY)} if cluster.trial_workers else alone
    device = "cuda:0" if gpus else "cpu"

    def trainable(config: dict[str, Any]) -> None:
        _run_trial(function, trial_of(config), device, cluster, storage, shared)

    return tune.with_resources(trainable, PlacementGroupFactory([bundle]))


def _run_trial(
    function: WorkerFunction,
    trial: Trial,
    device: str,
    cluster: ClusterConfig,
    storage: Path,
    shared: Storage | None,
) -> None:
    """Reports while the trial runs; its value or failure is the last report, so that no file has to be shared."""
    from ray import tune

    last: Metrics = {}

    def tell(metrics: Metrics) -> bool:
        last.update(metrics)
        tune.report(dict(metrics))
        return False

    start = time.monotonic()
    try:
        if cluster.trial_workers:
            name, workers = f"train-{trial['key']}", cluster.trial_workers
            value, folders = fit(
                function, trial, workers, cluster=cluster, name=name, storage=storage, shared=shared, on_report=tell
            )
        else:
            import torch

            torch.set_num_threads(cluster.cpus_per_worker)
            context = WorkerContext(device=device, send=tell, storage=shared)
            value, folders = function(trial, context), context.folders
        final = {VALUE: json.dumps(value), FOLDERS: json.dumps(folders)}
    except StorageLostError:  # Tune restarts the trial
        raise
    except Exception as error:
        final = {FAILURE: json.dumps(describe_failure(error))}
    if FAILURE in final:  # Optuna takes a last report with a score for a complete sample
        last.clear()
    tune.report({**last, **final, SECONDS: time.monotonic() - start})


def trial_listener(trial_of: TrialOf, on_report: OnTrialReport | None, done: OnDone, max_failures: int = 0) -> Any:
    """The Tune callback that calls `on_report` and `done` in the driver for the reports of trials.

    Tune pickles its callbacks. `on_report` and `done` may hold objects of this process, such as a progress bar or a
    client, so it is pickled as a callback that does nothing.
    """
    from ray.tune import Callback

    # ruff: noqa: ARG002 - the signatures are Tune's
    class TrialListener(Callback):
        def __init__(self) -> None:
            self.started: dict[str, float] = {}
            self.last: dict[str, Metrics] = {}
            self.final: dict[str, dict[str, Any]] = {}
            self.callers_error: Exception | None = None

        def __reduce__(self) -> tuple[type, tuple[()]]:
            return Callback, ()

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.started.setdefault(trial.trial_id, time.monotonic())

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if VALUE in result or FAILURE in result:
                self.final[trial.trial_id] = result
                return
            self.last[trial.trial_id] = own_metrics(result)
            if on_report is not None:
                self._call(on_report, trial_of(trial.config), self.last[trial.trial_id])

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            retry = f"retry {trial.num_failures} of {max_failures}"
            self._call(
                say, f"  trial {trial_of(trial.config)['key']} ended early; resuming from its last checkpoint ({retry})"
            )

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            final = self.final.get(trial.trial_id, {})
            failure = json.loads(final[FAILURE])["text"] if FAILURE in final else None
            self._end(trial, json.loads(final[VALUE]) if VALUE in final else None, failure)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            written = ""
            with contextlib.suppress(OSError):  # it lies in the storage, which may be full or gone
                written = Path(trial.error_file or "").read_text().strip()
            last = written.splitlines()[-1][:500] if written else "the trial's process died"
            self._end(trial, None, last.removeprefix(f"{StorageLostError.__module__}.{StorageLostError.__name__}: "))

        def _end(self, trial: Any, value: dict[str, Any] | None, error: str | None) -> None:
            waited = time.monotonic() - self.started.get(trial.trial_id, time.monotonic())
            result = TrialResult(
                trial=trial_of(trial.config),
                value=value,
                error=error,
                seconds=self.final.get(trial.trial_id, {}).get(SECONDS, waited),
                metrics=self.last.get(trial.trial_id, {}),
                stopped=value is None and error is None,
                folders=tuple(json.loads(self.final.get(trial.trial_id, {}).get(FOLDERS, "[]"))),
            )
            self._call(done, result)

        def _call(self, callback: Callable[..., object], *arguments: object) -> None:
            try:
                callback(*arguments)
            except Exception as error:
                self.callers_error = error
                raise

    return TrialListener()


def own_metrics(result: dict[str, Any]) -> Metrics:
    """The metrics that the trial itself reported, without those that Tune adds to every result."""
    from ray.tune.result import AUTO_RESULT_KEYS

    added = _TUNE_KEYS | set(AUTO_RESULT_KEYS)
    return {
        name: float(value) for name, value in result.items() if name not in added and isinstance(value, int | float)
    }


def run_config(name: str, place: dict[str, Any], callback: Any, cluster: ClusterConfig) -> Any:
    """Tune's settings: files at `place`, nothing printed; a trial whose process died or lost its storage is restarted."""
    from ray import tune

    return tune.RunConfig(
        name=name,
        **place,
        callbacks=[callback],
        failure_config=tune.FailureConfig(max_failures=cluster.max_failures),
        verbose=0,
    )


def fit_quietly(tuner: Any, listener: Any, ended: Sized, trials: int) -> None:
    """Runs a tuner of `trials` trials without its own progress lines; errors are reported per trial.

    `ended` holds those that have ended, which the caller adds to. An error of our callback is raised as it is, not wrapped by
    Tune. One after all trials have ended is that of Tune's own summary, which is not used: it cannot read the files of errors
    that a full storage left empty. Raises KeyboardInterrupt where Tune returns early, as it does on Ctrl-C.
    """
    noisy = [logging.getLogger(name) for name in ("ray.tune", "ray.air")]
    levels = [logger.level for logger in noisy]
    with environment({name: value for name, value in _DRIVER_ENVIRONMENT.items() if name not in os.environ}):
        try:
            for logger in noisy:
                logger.setLevel(logging.CRITICAL)
            with own_signals():
                tuner.fit()
        except Exception:
            if listener.callers_error is not None:
                raise listener.callers_error from None
            if len(ended) < trials:
                raise
        finally:
            for logger, level in zip(noisy, levels, strict=True):
                logger.setLevel(level)
    if len(ended) < trials:
        raise KeyboardInterrupt
