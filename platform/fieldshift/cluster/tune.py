"""Runs many trials of one function: through Ray Tune, or sequentially in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fieldshift.cluster.config import ClusterConfig
from fieldshift.cluster.connect import connect, has_ray
from fieldshift.cluster.context import Metrics
from fieldshift.cluster.memory import retried
from fieldshift.cluster.resources import concurrent_trials, local_device, resources
from fieldshift.cluster.sharing import check_shared
from fieldshift.cluster.storage import Storage, bring_all, place_of_ray
from fieldshift.cluster.train import WorkerFunction
from fieldshift.cluster.trainable import fit_quietly, run_config, trainable_for, trial_listener
from fieldshift.cluster.trials import (
    OnDone,
    OnTrialReport,
    Trial,
    TrialFolder,
    TrialResult,
    checked_keys,
    run_trial_here,
    split_kept,
)


def run_trials(
    function: WorkerFunction,
    trials: Sequence[Trial],
    *,
    cluster: ClusterConfig,
    name: str,
    storage: Path,
    shared: Storage | None = None,
    on_report: OnTrialReport | None = None,
    on_done: OnDone | None = None,
    resume: bool = False,
) -> list[TrialResult]:
    """Runs `function(trial, context)` for every trial and returns the results in the order of `trials`.

    Trials run through Ray Tune, first in, first out, as many at once as fit; sequentially in this process when
    `cluster.trials_at_once` is 0 or Ray is not installed. With `cluster.trial_workers` above 0 each trial is trained by
    that many workers together (Ray Train). An error of one trial is recorded and the others continue.

    Args:
        function: As for `run_workers`; its return value must be a dict that JSON can represent.
        trials: Plain values, each with a unique "key" (letters, digits, and ._=+-) that is stable over restarts.
        name: Name of the comparison.
        storage: Finished trials are stored in `storage`/trials/KEY.json, each file written atomically.
        shared: As for `run_workers`; a trial's folders come to this machine before it is stored as finished.
        on_report: Called with (trial, metrics) in this process for every report.
        on_done: Called with each TrialResult as it ends; stored ones first.
        resume: Reads finished trials from `storage` instead of running them again.

    Raises:
        UserError: One trial exceeds the cluster, or a stored trial has another configuration.
        KeyboardInterrupt: Ctrl-C; finished trials stay in `storage`.
    """
    checked_keys(trials)
    folder = TrialFolder(storage)
    finished, missing = split_kept(trials, folder, resume)

    def done(result: TrialResult) -> None:
        finished[result.key] = result
        bring_all(shared, result.folders)
        folder.keep(result)
        if on_done is not None:
            on_done(result)

    for earlier in list(finished.values()):
        if on_done is not None:
            on_done(earlier)
    if missing and (cluster.trials_at_once == 0 or not has_ray()):
        device = local_device(cluster)

        def forward(trial: Trial, metrics: Metrics) -> bool:
            if on_report is not None:
                on_report(trial, metrics)
            return False

        for trial in missing:
            done(run_trial_here(function, trial, device=device, on_report=forward))
    elif missing:
        with connect(cluster):
            check_shared(storage.resolve(), shared)

            def run() -> None:
                left = [trial for trial in missing if str(trial["key"]) not in finished]
                if left:
                    _run_on_ray(
                        function, left, cluster=cluster, name=name, storage=storage, shared=shared, on_report=on_report,
                        done=done,
                    )  # fmt: skip

            retried(run, cluster)
    return [finished[str(trial["key"])] for trial in trials]


def _run_on_ray(
    function: WorkerFunction,
    trials: Sequence[Trial],
    *,
    cluster: ClusterConfig,
    name: str,
    storage: Path,
    shared: Storage | None,
    on_report: OnTrialReport | None,
    done: OnDone,
) -> None:
    from ray import tune

    held = resources()
    ended: set[str] = set()

    def end(result: TrialResult) -> None:
        # Only Ctrl-C ends a trial of a comparison early.
        if not result.stopped:
            ended.add(result.key)
            done(result)

    def trial_of(config: dict[str, Any]) -> Trial:
        return dict(config["trial"])

    listener = trial_listener(trial_of, on_report, end, cluster.max_failures)
    tuner = tune.Tuner(
        trainable_for(function, trial_of, cluster, held, storage.resolve(), shared),
        param_space={"trial": tune.grid_search(list(trials))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=concurrent_trials(cluster, held),
            trial_name_creator=_key,
            trial_dirname_creator=_key,
            reuse_actors=True,
        ),
        run_config=run_config(name, place_of_ray(storage, shared), listener, cluster),
    )
    fit_quietly(tuner, listener, ended, len(trials))


def _key(trial: Any) -> str:
    return str(trial.config["trial"]["key"])
