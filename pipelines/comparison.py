"""The trials of a comparison: every arm at every reading with every seed, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.cluster import ClusterConfig
from fieldshift.console import say
from fieldshift.errors import UserError
from fieldshift.readings import READINGS, SEARCH_INCLUDED
from fieldshift.training import Recipe, arm_named
from pipelines.builtin_data import notes_on
from pipelines.policies import ArmPolicies
from pipelines.problem import Problem
from pipelines.readings import TUNED, Budget, card_cost, video_cost
from pipelines.session import FailsWithTrials, Session, say_failed

if TYPE_CHECKING:
    import pandas as pd

    from fieldshift.data import DataSet
    from fieldshift.search import Space
    from fieldshift.training import NetworkCard
    from pipelines.trials import Trial


@dataclass(frozen=True)
class Comparison(FailsWithTrials):
    """What a comparison found.

    Attributes:
        folder: the run folder.
        rows: one row per trial and reading: arm, seed, score in [0, 1], parameters, FLOPs per image, seconds.
        summary: one row per arm and reading: mean, 95 % interval, paired difference to the best baseline.
        verdict: what may be said of `das`, `das-folded` and their joins, a line per reading and method.
        claims: the comparisons that the verdict speaks of, one row each, with p corrected for their number.
        failed: the trials that failed and why; the tables are without them.
    """

    folder: Path
    rows: pd.DataFrame
    summary: pd.DataFrame
    verdict: str
    claims: pd.DataFrame
    failed: dict[str, str] = field(default_factory=dict)


def run_comparison(
    session: Session,
    problem: Problem,
    dataset: DataSet,
    policies: ArmPolicies,
    space: Space,
    *,
    arms: list[str],
    readings: list[str],
    seeds: list[int],
    recipe: Recipe,
    cluster: ClusterConfig,
    copies: int,
    tune_randaugment: int = 0,
    searches: list[dict[str, Any]] | None = None,
) -> Comparison:
    """Trains every (arm, reading, seed), or takes them from the finished run; summarises and prints the tables.

    The result has one row per trial and reading.
    """
    finished = session.folder.finished_result()
    if finished is not None:
        return shown_comparison(session, finished, notes_on(problem.data))
    from pipelines.running import run_training_trials, training_trial, with_epochs
    from pipelines.tuning import tune_randaugment as tuned_numbers

    cards = {
        (name, seed): problem.card(dataset, name, policies.policy(name, seed), space, seed)
        for name in arms
        for seed in seeds
    }
    budget = budget_of(
        problem, dataset, policies, {name: cards[name, seeds[0]] for name in arms}, readings, seeds=seeds, recipe=recipe,
        samples=tune_randaugment,
    )  # fmt: skip
    possible = READINGS if SEARCH_INCLUDED in readings else READINGS[:2]
    trials: list[Trial] = []
    weights: list[float] = []
    shown_as: list[list[str]] = []
    tuned: dict[str, dict[str, Any]] = {}
    for name in arms:
        alike: dict[int, list[str]] = {}  # readings at which the arm trains as long have one trial, named by the first
        for reading in possible:
            alike.setdefault(budget.epochs_at(name, reading), []).append(reading)
        for epochs, same in alike.items():
            shown = [reading for reading in same if reading in readings]
            if not shown:
                continue
            own, numbers = with_epochs(recipe, epochs), {}
            if budget.is_tuned(name):
                tuned[same[0]] = tuned_numbers(
                    session, problem, dataset, own, cluster, tune_randaugment, reading=same[0]
                )
                numbers = {key: tuned[same[0]][key] for key in ("num_ops", "magnitude")}
            for seed in seeds:
                trials.append(
                    training_trial(
                        session, problem, cards[name, seed], own, reading=same[0], seed=seed, data=dataset.digest,
                        copies=copies, augmentation=numbers,
                    )
                )  # fmt: skip
                weights.append(float(epochs * budget.flops[name]))
                shown_as.append(shown)
    readings_of = {trial.key: shown for trial, shown in zip(trials, shown_as, strict=True)}
    trained = run_training_trials(session, trials, weights, cluster, "comparison", readings_of)
    results = {row["key"]: row for row in trained}
    rows = [
        {
            **results[trial.key],
            "reading": reading,
            "search_operations": budget.charged(trial.arm, reading),
            **search_columns(policies, trial.arm, trial.seed),
        }
        for trial, shown in zip(trials, shown_as, strict=True)
        if trial.key in results
        for reading in shown
    ]
    result = session.folder.write_result(
        {
            "rows": rows,
            "baselines": [name for name in arms if arm_named(name).kind == "baseline"],
            "searches": searches or [],
            "randaugment": tuned,
            "budget": budget.record(readings),
            "data": dataset.record(),
            "failed": session.failed,
        }
    )
    return shown_comparison(session, result, notes_on(problem.data))


def shown_comparison(session: Session, result: dict[str, Any], notes: Sequence[str]) -> Comparison:
    """Prints the tables, each with the notes, and the verdict of a comparison's result."""
    import pandas as pd

    from fieldshift.report import claims, comparison_sheets, cost_sheets, show, summarise, verdict
    from pipelines.summing import record_arms

    rows = pd.DataFrame(result["rows"]).drop(columns=["history"])
    score_name = str(rows["score_name"].iloc[0])
    summary = summarise(rows.assign(temporal=session.folder.config["temporal"]), baseline_arms=result["baselines"])
    for sheet in (*comparison_sheets(summary, score_name, notes), *cost_sheets(summary)):
        say()
        show(sheet)
    say()
    sentence = verdict(summary, score_name)
    say(sentence)
    say(f"  {session.path / 'result.json'}")
    record_arms(session, rows, summary)
    failed = result.get("failed", {})
    say_failed(failed)
    return Comparison(session.path, rows, summary, sentence, claims(summary), failed)


def budget_of(
    problem: Problem,
    dataset: DataSet,
    policies: ArmPolicies,
    cards: dict[str, NetworkCard],
    readings: Sequence[str],
    *,
    seeds: Sequence[int],
    recipe: Recipe,
    samples: int,
) -> Budget:
    """What the arms may spend. Raises UserError where a reading needs the cost of a search that was not counted."""
    from fieldshift.training import images_per_epoch

    searches = {name: policies.operations(name, seeds) for name in cards}
    if SEARCH_INCLUDED in readings and None in searches.values():
        raise UserError(
            f"The searches of this run are of a version that did not count their operations, which the reading at "
            f"'{SEARCH_INCLUDED}' needs; leave it out of --readings, or start anew with another --out."
        )
    tuning = None
    if samples > 0 and TUNED in cards:
        from pipelines.tuning import tuning_cost

        tuning = tuning_cost(dataset, recipe, samples)
    return Budget(
        epochs=recipe.epochs,
        images=images_per_epoch(len(dataset.train), recipe.batch),
        video=video_cost(problem, dataset).flops,
        flops={name: card_cost(card).flops for name, card in cards.items()},
        searches={name: math.nan if spent is None else spent for name, spent in searches.items()},
        tuning=tuning,
    )


def search_columns(policies: ArmPolicies, arm: str, seed: int) -> dict[str, Any]:
    """Where the motions of a row are from, and the seconds of the search that found them."""
    found = policies.of(arm, seed)
    return {"search_seconds": 0.0 if found is None else found.seconds, "motions": "" if found is None else found.source}
