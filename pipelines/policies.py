"""The policies that the arms of a comparison read: given in files, or found by searches of its own, which are trials."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import ClusterConfig, TrialResult
from fieldshift.console import duration, progress, say
from fieldshift.errors import RunFailedError, UserError, unknown_name
from fieldshift.experiment.labels import run_name
from fieldshift.experiment.options import Experiment
from fieldshift.experiment.placement import placed, workers_of_trials
from fieldshift.experiment.policy_source import (
    PolicySource,
    is_searched,
    operations_of,
    plain_policy,
    read_policy,
    say_other_use,
)
from fieldshift.experiment.search_trial import (
    SearchResult,
    describe_space,
    number_of_passes,
    pass_note,
    run_search_trial,
    search_of,
    search_payload,
)
from fieldshift.forms import Form
from fieldshift.readings import GIVEN, UNSEARCHED
from fieldshift.search import SearchConfig
from fieldshift.training import arm_named
from pipelines.pages import search_view
from pipelines.search_records import metrics_of, pass_metrics, record_found, search_labels

if TYPE_CHECKING:
    from fieldshift.experiment.session import Session
    from fieldshift.folding import AnyPolicy
    from fieldshift.search import Space
    from fieldshift.tracking import Run

SEARCHES = ("per-seed", "one")
"""per-seed: a search for each training seed; intervals include the variation of searches. one: the first seed's for all."""

FOLDER = "searches"


@dataclass(frozen=True)
class ArmPolicy:
    """A policy that an arm reads, its source in words, and the seconds, operations and devices of its search.

    `operations` is None, and seconds are NaN, where they are not known.
    """

    policy: AnyPolicy
    source: str
    seconds: float = 0.0
    operations: float | None = None
    device_seconds: float = 0.0
    devices: int = 1


@dataclass(frozen=True)
class ArmPolicies:
    """The policies of a comparison by form and training seed."""

    found: dict[tuple[Form, int], ArmPolicy]

    @staticmethod
    def given(
        given: dict[Form, AnyPolicy], sources: Mapping[Form, PolicySource], seeds: Sequence[int], frames: int
    ) -> ArmPolicies:
        """The same given policy for every seed; reports one that was found with another number of frames, or in another form.

        `sources`: what the policies were read from, for the seconds of their searches.
        """
        for policy in {id(each): each for each in given.values()}.values():
            say_other_use(policy, frames, [form for form, each in given.items() if each is policy])
        found = {form: _given(policy, sources[form]) for form, policy in given.items()}
        return ArmPolicies({(form, seed): each for form, each in found.items() for seed in seeds})

    @staticmethod
    def searched(results: dict[tuple[Form, int], SearchResult], seeds: Sequence[int]) -> ArmPolicies:
        """For every seed the policy of its own search, or of the only search."""
        found = {}
        for form in dict.fromkeys(form for form, _ in results):
            own = [seed for each, seed in results if each == form]
            alone = f"one search, of seed {own[0]}, for all seeds"
            for seed in seeds:
                result = results[form, seed if seed in own else own[0]]
                source = "one search per seed" if len(seeds) == len(own) else alone
                found[form, seed] = ArmPolicy(
                    result.policy,
                    source,
                    result.seconds,
                    operations_of(result.policy),
                    result.device_seconds,
                    result.devices,
                )
        return ArmPolicies(found)

    def __or__(self, other: ArmPolicies) -> ArmPolicies:
        return ArmPolicies(self.found | other.found)

    def of(self, arm: str, seed: int) -> ArmPolicy | None:
        """The policy that the arm reads with that seed; None for an arm without."""
        chosen = arm_named(arm)
        return self.found[chosen.form, seed] if chosen.needs_policy else None

    def policy(self, arm: str, seed: int) -> AnyPolicy | None:
        found = self.of(arm, seed)
        return None if found is None else found.policy

    def operations(self, arm: str, seeds: Sequence[int]) -> float | None:
        """Floating-point operations of the search for the arm's policy, mean over seeds; 0 without, None where unknown."""
        spent = [0.0 if found is None else found.operations for found in (self.of(arm, seed) for seed in seeds)]
        known = [each for each in spent if each is not None]
        return sum(known) / len(known) if len(known) == len(spent) else None


def _given(policy: AnyPolicy, source: PolicySource) -> ArmPolicy:
    words, operations = GIVEN if is_searched(policy) else UNSEARCHED, operations_of(policy)
    if not policy.found:  # written by hand
        return ArmPolicy(policy, words, operations=operations)
    search = search_of(source)
    if search is None:
        return ArmPolicy(policy, words, math.nan, operations, math.nan)
    return ArmPolicy(policy, words, search.seconds, operations, search.device_seconds, search.devices)


def given_policies(policy: PolicySource, folded_policy: PolicySource) -> dict[Form, AnyPolicy]:
    """The policies that were given, by the form whose arms read them; `policy` serves both where it is alone."""
    everywhere, folded = read_policy(policy), read_policy(folded_policy)
    found: dict[Form, AnyPolicy | None] = {"video": everywhere, "folded": folded or everywhere}
    return {form: each for form, each in found.items() if each is not None}


def check_searches(searches: str | None, search: SearchConfig, forms: Sequence[Form]) -> str | None:
    """The way of searching, None without searches. Raises UserError for options that would have no effect."""
    if searches is not None and searches not in SEARCHES:
        raise unknown_name("way of searching", searches, SEARCHES)
    if forms:
        return searches or SEARCHES[0]
    for name, asked in (("searches", searches is not None), ("search", search != SearchConfig())):
        if asked:
            raise UserError(
                f"--{name} is given, but there is no search: no arm needs a policy, or --policy gives it; leave one out."
            )
    return None


def run_searches(
    session: Session,
    experiment: Experiment,
    space: Space,
    config: SearchConfig,
    *,
    space_name: str,
    edges: dict[Form, int],
    seeds: Sequence[int],
    digest: str,
) -> dict[tuple[Form, int], SearchResult]:
    """Searches with every seed in every form of `edges` (the decisions of each), as trials below the session's folder.

    Finished searches are kept there, so that a resumed run executes only missing ones. Raises RunFailedError where a
    search failed.
    """
    from fieldshift.search.explain import close_decisions

    finished = session.folder.finished_result()
    keys = {(form, seed): f"{form}-seed{seed}" for form in edges for seed in seeds}
    if finished is None:
        payloads, passes = [], {}
        for (form, seed), key in keys.items():
            own = replace(experiment, form=form, seed=seed)
            payload = search_payload(own, space_name, config, digest=digest, folder=session.path / key)
            payloads.append({"key": key, "form": form, **payload})
            passes[key] = number_of_passes(config, space, edges[form])
        say(f"  {space.name}: {describe_space(space)}")
        finished = session.folder.write_result(
            {"searches": search_trials(session, payloads, passes, experiment.cluster)}
        )
    rows = {row["key"]: row for row in finished["searches"]}
    results = {}
    for (form, seed), key in keys.items():
        row, path = rows[key], session.path / key
        results[form, seed] = SearchResult.from_row(path, row)
        policy = results[form, seed].policy
        words = "; ".join(policy.describe()) or "no motion"
        close = (
            f"; a close choice, see `fieldshift explain {shlex.quote(str(path))}`" if close_decisions(policy) else ""
        )
        say(f"  {form}, seed {seed}, found in {duration(row['seconds'])}: {words}{close}")
        for warning in row["warnings"]:
            say(f"  note: {warning}")
    return results


def search_trials(
    session: Session, payloads: list[dict[str, Any]], passes: dict[str, int], cluster: ClusterConfig
) -> list[dict[str, Any]]:
    """Runs the searches as trials: progress, one MLflow run and one row for each."""
    from fieldshift.experiment.training_runs import last_line

    runs: dict[str, Run] = {}

    def run_of(trial: dict[str, Any]) -> Run:
        key = trial["key"]
        if key not in runs:
            labels = search_labels(trial)
            runs[key] = session.child(
                f"search-{key}", labels, stage="search", name=run_name(labels), folder=session.path / key
            )
            runs[key].log_params({f"search.{name}": str(value) for name, value in trial["search"].items()})
        return runs[key]

    with placed(cluster, on_ray=workers_of_trials(cluster) > 0), progress("search", sum(passes.values())) as bar:

        def reported(trial: dict[str, Any], metrics: dict[str, float]) -> None:
            key, step = trial["key"], int(metrics.get("pass", 0))
            run_of(trial).log_metrics(pass_metrics(metrics), step=step)
            if "train/loss" in metrics:
                bar.show_part(key, step, f"{key}: {pass_note(metrics)}", unit=1)

        def finished(result: TrialResult) -> None:
            run = run_of(result.trial)
            if result.value is not None:
                record_found(run, result.value)
            run.close("FAILED" if result.value is None else "FINISHED")
            note = f"{'failed' if result.value is None else 'done'}: {result.key}"
            bar.show_part(result.key, passes[result.key], note)

        results = session.run_trials(run_search_trial, payloads, cluster, on_report=reported, on_done=finished)
    for result in results:
        if result.value is None:
            raise RunFailedError(
                f"The search {result.key} failed: {last_line(result.error)}; --resume keeps the others."
            )
    session.keep(search_view(session.mark, metrics_of(result.value for result in results)))
    return [
        {"key": result.key, "form": result.trial["form"], "seed": result.trial["seed"], **(result.value or {})}
        for result in results
    ]


def search_cluster(cluster: ClusterConfig) -> ClusterConfig:
    """The cluster settings of a study's searches: several --cluster.workers share each search."""
    if cluster.workers < 2:
        return cluster
    at_once = cluster.trials_at_once
    return replace(cluster, trial_workers=cluster.workers, trials_at_once=1 if at_once == 0 else at_once)


def record_of(results: dict[tuple[Form, int], SearchResult]) -> list[dict[str, Any]]:
    """The searches as a result file holds them."""
    return [
        {
            "form": form,
            "seed": seed,
            "policy": plain_policy(result.policy),
            "words": result.policy.describe(),
            "seconds": result.seconds,
            "device_seconds": result.device_seconds,
            "folder": str(result.folder),
        }
        for (form, seed), result in results.items()
    ]


def settings_of(searches: str | None, search: SearchConfig) -> dict[str, Any]:
    """The searches' part of a configuration; without searches only None as their way."""
    return {"searches": searches, **({} if searches is None else {"search": search.record()})}
