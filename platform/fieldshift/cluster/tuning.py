"""Hyperparameter search: Optuna proposes samples, successive halving stops the worst ones early."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.cluster.config import ClusterConfig
from fieldshift.cluster.connect import connect, require_ray
from fieldshift.cluster.context import Metrics
from fieldshift.cluster.memory import retried
from fieldshift.cluster.resources import concurrent_trials, local_device, resources
from fieldshift.cluster.sharing import check_shared
from fieldshift.cluster.storage import Storage, bring_all, place_of_ray
from fieldshift.cluster.train import WorkerFunction
from fieldshift.cluster.trainable import fit_quietly, run_config, trainable_for, trial_listener
from fieldshift.cluster.trials import OnDone, OnTrialReport, Trial, TrialFolder, TrialResult, agrees, run_trial_here
from fieldshift.errors import UserError, reason_of

if TYPE_CHECKING:
    import optuna

HALVING = 3

_NUMBER, _KEY = "fieldshift_number", "key"
_SAMPLE = re.compile(r"sample-(\d+)")


@dataclass(frozen=True)
class Tuning:
    """The result of a tuning run: all samples, and the best of those that ran to their end."""

    results: list[TrialResult]
    best: TrialResult | None


@dataclass(frozen=True, kw_only=True)
class _Task:
    function: WorkerFunction
    space: Mapping[str, Any]
    fixed: Mapping[str, Any]
    metric: str
    reports: int
    seed: int
    name: str
    study: str | None

    def sampler_seed(self, first: int) -> int:
        """The seed of a sampler that begins with sample `first`; Optuna's have 32 bits."""
        return (self.seed + first) % 2**32

    def trial(self, sampled: Mapping[str, Any], number: int) -> Trial:
        return {**self.fixed, **sampled, "key": f"sample-{number:03d}"}


def tune_trials(
    function: WorkerFunction,
    space: Mapping[str, Any],
    *,
    metric: str,
    samples: int,
    reports: int,
    cluster: ClusterConfig,
    name: str,
    storage: Path,
    shared: Storage | None = None,
    fixed: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_report: OnTrialReport | None = None,
    on_done: OnDone | None = None,
    resume: bool = False,
    study: str | None = None,
) -> Tuning:
    """Searches `space` for the values that optimise `metric`: Optuna's TPE proposes samples, ASHA stops bad ones early.

    For tuning only: stopping trials early is unfair in a comparison. A third of the samples that reach a rung (1, 3, 9,
    ... reports) continues. With `cluster.trials_at_once` 0 Optuna does both in this process, one sample after another.

    Args:
        function: Called with {**fixed, **sampled, "key": "sample-000"}; reports `metric` once per epoch.
        space: Ray Tune's domains by name (tune.randint, tune.uniform, tune.choice, ...); not nested, no grid_search.
        metric: Name of a reported number; higher is better.
        samples: Number of configurations to try, including those that an earlier run finished.
        reports: Number of reports of a trial that runs to its end.
        shared: As for `run_trials`.
        fixed: Values passed unchanged to every trial.
        seed: Seed of Optuna's sampler.
        on_done: Called with each TrialResult as it ends; stored ones first.
        resume: Reads finished samples from `storage` and lets Optuna learn from them.
        study: URL of a database that Optuna keeps the study `name` in, such as sqlite:////path/optuna.db; None keeps it in
            memory.

    Raises:
        UserError: As `run_trials`; also when `space` cannot be searched, or the stored samples belong to another search.
    """
    require_ray("Tuning")
    if samples < 1 or reports < 1:
        raise UserError(f"Tuning asks for {samples} samples of {reports} reports, but both must be 1 or more.")
    task = _Task(
        function=function,
        space=space,
        fixed=fixed or {},
        metric=metric,
        reports=reports,
        seed=seed,
        name=name,
        study=study,
    )
    folder = TrialFolder(storage)
    finished = {result.key: result for result in _earlier(task, folder, resume)}

    def done(result: TrialResult) -> None:
        finished[result.key] = result
        bring_all(shared, result.folders)
        folder.keep(result)
        if on_done is not None:
            on_done(result)

    kept = list(finished.values())
    for earlier in kept:
        if on_done is not None:
            on_done(earlier)
    missing = samples - len(kept)
    if missing > 0 and cluster.trials_at_once == 0:
        _tune_here(task, kept, missing, cluster=cluster, on_report=on_report, done=done)
    elif missing > 0:
        with connect(cluster):
            check_shared(storage.resolve(), shared)

            def run() -> None:
                known = [result for result in finished.values() if task.metric in result.metrics]
                if len(finished) < samples:
                    number = _next_number(list(finished.values()))
                    _tune_on_ray(
                        task, known, samples - len(finished), number, cluster=cluster, storage=storage, shared=shared,
                        on_report=on_report, done=done,
                    )  # fmt: skip

            retried(run, cluster)
    results = [finished[key] for key in sorted(finished)]
    complete = [
        result for result in results if result.value is not None and not result.stopped and metric in result.metrics
    ]
    return Tuning(results, max(complete, key=lambda result: result.metrics[metric], default=None))


def _earlier(task: _Task, folder: TrialFolder, resume: bool) -> list[TrialResult]:
    samples = [result for result in folder.all() if _SAMPLE.fullmatch(result.key)]
    if not resume:
        for sample in samples:
            folder.forget(sample.trial)
        return []
    samples = [sample.at(task.fixed) for sample in samples]
    for sample in samples:
        known = {name: value for name, value in sample.trial.items() if name not in task.space and name != "key"}
        if not agrees(known, json.loads(json.dumps(task.fixed))) or not task.space.keys() <= sample.trial.keys():
            raise UserError(
                f"{folder.path}/{sample.key}.json belongs to another search;"
                " give another --out, or leave out --resume to start again."
            )
    return [sample for sample in samples if task.metric in sample.metrics]


def _next_number(kept: Sequence[TrialResult]) -> int:
    return max((int(result.key.removeprefix("sample-")) for result in kept), default=-1) + 1


def _distributions(space: Mapping[str, Any]) -> dict[str, Any]:
    from ray.tune.search.optuna import OptunaSearch

    try:
        found = dict(OptunaSearch.convert_search_space(dict(space)))
    except ValueError as error:
        raise UserError(f"This space cannot be tuned: {error}") from error
    plain = sorted(space.keys() - found.keys())
    if plain:
        raise UserError(
            f"{', '.join(plain)} of the space is not a Ray Tune domain; use tune.choice([...]) or another domain."
        )
    return found


def _study(task: _Task, kept: Sequence[TrialResult], distributions: Mapping[str, Any], **settings: Any) -> optuna.Study:
    """Optuna's study with the samples that ended: a new one, or the one in the database, whose interrupted samples fail."""
    import optuna
    from optuna.trial import TrialState

    try:
        study = optuna.create_study(
            storage=task.study,
            study_name=task.study and task.name,
            load_if_exists=True,
            direction="maximize",
            **settings,
        )
    except Exception as error:
        if task.study is None:
            raise
        raise UserError(f"Optuna cannot use the database {task.study} ({reason_of(error)}); name another.") from error
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    held = {trial.user_attrs.get(_KEY) for trial in study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))}
    for result in kept:
        if result.key not in held:
            study.add_trial(
                optuna.trial.create_trial(
                    params={name: result.trial[name] for name in task.space},
                    distributions=dict(distributions),
                    value=result.metrics[task.metric],
                    user_attrs={_KEY: result.key},
                )
            )
    return study


def _tune_here(
    task: _Task,
    kept: Sequence[TrialResult],
    missing: int,
    *,
    cluster: ClusterConfig,
    on_report: OnTrialReport | None,
    done: OnDone,
) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = _distributions(task.space)
    study = _study(
        task, kept, distributions, sampler=optuna.samplers.TPESampler(seed=task.sampler_seed(_next_number(kept))),
        pruner=optuna.pruners.SuccessiveHalvingPruner(reduction_factor=HALVING),
    )  # fmt: skip
    device = local_device(cluster)
    for number in range(_next_number(kept), _next_number(kept) + missing):
        asked = study.ask(distributions)
        asked.set_user_attr(_KEY, task.trial({}, number)["key"])
        step = 0

        def forward(trial: Trial, metrics: Metrics, asked: optuna.Trial = asked) -> bool:
            nonlocal step
            step += 1
            if on_report is not None:
                on_report(trial, metrics)
            asked.report(metrics[task.metric], step)
            return step < task.reports and asked.should_prune()

        result = run_trial_here(task.function, task.trial(asked.params, number), device=device, on_report=forward)
        if result.error is None and task.metric in result.metrics:
            study.tell(asked, result.metrics[task.metric])
        else:
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        done(result)


def _tune_on_ray(
    task: _Task,
    kept: Sequence[TrialResult],
    missing: int,
    first: int,
    *,
    cluster: ClusterConfig,
    storage: Path,
    shared: Storage | None,
    on_report: OnTrialReport | None,
    done: OnDone,
) -> None:
    import optuna
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    held = resources()
    ended: set[str] = set()

    class NumberedSearch(OptunaSearch):
        """Optuna's proposals, each with the number that forms its key."""

        proposed = 0

        def suggest(self, trial_id: str) -> dict[str, Any] | None:
            sampled: dict[str, Any] | None = super().suggest(trial_id)
            if sampled is not None:
                number = first + self.proposed
                self._ot_trials[trial_id].set_user_attr(_KEY, task.trial({}, number)["key"])
                sampled = {**sampled, _NUMBER: number}
                self.proposed += 1
            return sampled

    def trial_of(config: dict[str, Any]) -> Trial:
        return task.trial({name: config[name] for name in task.space}, config[_NUMBER])

    def end(result: TrialResult) -> None:
        ended.add(result.key)
        done(result)

    points = [{field: result.trial[field] for field in task.space} for result in kept]
    distributions = _distributions(task.space)
    known: dict[str, Any] = {
        "points_to_evaluate": points or None,
        "evaluated_rewards": [result.metrics[task.metric] for result in kept] or None,
    }
    if task.study is not None:
        _study(task, kept, distributions)
        known = {"storage": optuna.storages.RDBStorage(task.study), "study_name": task.name}
    search = NumberedSearch(space=distributions, metric=task.metric, mode="max", seed=task.sampler_seed(first), **known)
    listener = trial_listener(trial_of, on_report, end, cluster.max_failures)
    tuner = tune.Tuner(
        trainable_for(task.function, trial_of, cluster, held, storage.resolve(), shared),
        tune_config=tune.TuneConfig(
            metric=task.metric,
            mode="max",
            num_samples=missing,
            search_alg=search,
            # The value is sent as one more report, so a full trial must stay below max_t.
            scheduler=ASHAScheduler(max_t=task.reports + 2, grace_period=1, reduction_factor=HALVING),
            max_concurrent_trials=concurrent_trials(cluster, held),
            reuse_actors=True,
        ),
        run_config=run_config(task.name, place_of_ray(storage, shared), listener, cluster),
    )
    fit_quietly(tuner, listener, ended, missing)
