"""The trials of a comparison, for every arm, reading and seed, and their tables and verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.console import say
from fieldshift.errors import UserError
from fieldshift.experiment.budget import TUNED, Budget
from fieldshift.experiment.cards import arm_card, card_cost, video_cost
from fieldshift.experiment.dataset import constant_notes
from fieldshift.experiment.options import Experiment
from fieldshift.experiment.session import FailsWithTrials, Session, say_failed
from fieldshift.readings import READINGS, SEARCH_INCLUDED, UNMOVED
from fieldshift.training import Recipe, arm_named
from pipelines.builtin_data import notes_on
from pipelines.policies import ArmPolicies

if TYPE_CHECKING:
    import pandas as pd

    from fieldshift.data import DataSet
    from fieldshift.experiment.trial import Trial
    from fieldshift.report import Sheet
    from fieldshift.search import Space
    from fieldshift.training import NetworkCard


@dataclass(frozen=True)
class Comparison(FailsWithTrials):
    """The results of a comparison.

    Attributes:
        folder: the run folder.
        rows: one row per trial and reading: arm, seed, score in [0, 1], parameters, FLOPs per image, seconds.
        summary: one row per arm and reading: mean, 95 % interval, paired difference to the best baseline.
        verdict: the conclusions on `das`, `das-folded` and their joins, one line per reading and method.
        answers: the verdict as a table, one row per reading and method.
        claims: the comparisons behind the verdict, one row each, with p corrected for their number.
        failed: the trials that failed and why; the tables are without them.
    """

    folder: Path
    rows: pd.DataFrame
    summary: pd.DataFrame
    verdict: str
    answers: Sheet
    claims: pd.DataFrame
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def trained(self) -> dict[str, Path]:
        """The folder of one trained network of each arm, that of the first seed."""
        first = self.rows.drop_duplicates("arm")
        return {str(row["arm"]): Path(str(row["folder"])) for row in first.to_dict("records")}


@dataclass(frozen=True, kw_only=True)
class ComparisonPlan:
    """The settings of a comparison's trials.

    Attributes:
        arms: arms to train.
        readings: readings to report, each with its budget of epochs for every arm.
        seeds: seeds of every arm.
        recipe: the training recipe; its epochs are those of the first reading.
        copies: augmented copies of test-time augmentation.
        tuning_samples: samples of the search for RandAugment's N and M; 0 does not tune.
    """

    arms: list[str]
    readings: list[str]
    seeds: list[int]
    recipe: Recipe
    copies: int
    tuning_samples: int = 0


def run_comparison(
    session: Session,
    experiment: Experiment,
    dataset: DataSet,
    plan: ComparisonPlan,
    policies: ArmPolicies,
    space: Space,
    searches: list[dict[str, Any]],
) -> Comparison:
    """Trains every (arm, reading, seed), or takes them from the finished run; summarises and prints the tables.

    The result has one row per trial and reading.
    """
    finished = session.folder.finished_result()
    if finished is not None:
        return shown_comparison(session, finished)
    from fieldshift.experiment.training_runs import run_training_trials

    cards = {
        (name, seed): arm_card(experiment.with_seed(seed), dataset, name, policies.policy(name, seed), space)
        for name in plan.arms
        for seed in plan.seeds
    }
    budget = budget_of(experiment, dataset, plan, policies, {name: cards[name, plan.seeds[0]] for name in plan.arms})
    planned, tuned = plan_trials(session, experiment, dataset, plan, budget, cards)
    shown_in = {each.trial.key: each.readings for each in planned}
    trained = run_training_trials(
        session,
        [each.trial for each in planned],
        [each.operations for each in planned],
        experiment.cluster,
        "comparison",
        shown_in,
    )
    results = {row["key"]: row for row in trained}
    rows = [
        {
            **results[each.trial.key],
            "reading": reading,
            "search_operations": budget.charged(each.trial.arm, reading),
            **search_columns(policies, each.trial.arm, each.trial.seed),
            "policy": digest_of(cards[each.trial.arm, each.trial.seed]),
        }
        for each in planned
        if each.trial.key in results
        for reading in each.readings
    ]
    result = session.folder.write_result(
        {
            "rows": rows,
            "baselines": [name for name in plan.arms if arm_named(name).kind == "baseline"],
            "searches": searches,
            "randaugment": tuned,
            "budget": budget.record(plan.readings),
            "data": dataset.record(),
            "failed": session.failed,
        }
    )
    return shown_comparison(session, result)


@dataclass(frozen=True)
class PlannedTrial:
    """A trial of a comparison, its relative cost, and the readings that show it."""

    trial: Trial
    operations: float
    readings: list[str]


def plan_trials(
    session: Session,
    experiment: Experiment,
    dataset: DataSet,
    plan: ComparisonPlan,
    budget: Budget,
    cards: dict[tuple[str, int], NetworkCard],
) -> tuple[list[PlannedTrial], dict[str, dict[str, Any]]]:
    """The trials of every arm, reading and seed, and RandAugment's tuned numbers by reading, which are searched here.

    Readings at which an arm trains for as many epochs share one trial, named by the first of them.
    """
    from fieldshift.experiment.training_runs import training_trial, with_epochs
    from fieldshift.experiment.tuning import tune_randaugment

    possible = READINGS if SEARCH_INCLUDED in plan.readings else READINGS[:2]
    planned: list[PlannedTrial] = []
    tuned: dict[str, dict[str, Any]] = {}
    for name in plan.arms:
        alike: dict[int, list[str]] = {}
        for reading in possible:
            alike.setdefault(budget.epochs_at(name, reading), []).append(reading)
        for epochs, same in alike.items():
            shown = [reading for reading in same if reading in plan.readings]
            if not shown:
                continue
            own, numbers = with_epochs(plan.recipe, epochs), {}
            if budget.is_tuned(name):
                tuned[same[0]] = tune_randaugment(
                    session, experiment, dataset, own, plan.tuning_samples, reading=same[0]
                )
                numbers = {key: tuned[same[0]][key] for key in ("num_ops", "magnitude")}
            for seed in plan.seeds:
                seeded = experiment.with_seed(seed)
                trial = training_trial(session, seeded, cards[name, seed], own, reading=same[0], data=dataset.digest)
                trial = replace(trial, copies=plan.copies, augmentation=numbers)
                planned.append(PlannedTrial(trial, float(epochs * budget.flops[name]), shown))
    return planned, tuned


def shown_comparison(session: Session, result: dict[str, Any]) -> Comparison:
    """Prints the tables, each with the notes on the data, and the verdict of a comparison's result."""
    import pandas as pd

    from fieldshift.report import answers, claims, comparison_sheets, cost_sheets, show, summarise, verdict
    from pipelines.summing import record_arms

    rows = pd.DataFrame(result["rows"]).drop(columns=["history"])
    config = session.folder.config
    score_name, notes = str(rows["score_name"].iloc[0]), notes_on(config["data"])
    rows = rows.assign(temporal=config["temporal"], dilated=bool(config["architecture"].get("dilated")))
    summary = summarise(rows, baseline_arms=result["baselines"])
    notes += constant_notes(result.get("data", {}).get("most_frequent"), best_scores(summary))
    for sheet in (*comparison_sheets(summary, score_name, notes), *cost_sheets(summary)):
        say()
        show(sheet)
    say()
    asked = claims(summary)
    sentence = verdict(summary, asked, score_name)
    say(sentence)
    say()
    answered = answers(summary, asked, score_name)
    if answered.rows:
        show(answered)
    say(f"  {session.path / 'result.json'}")
    record_arms(session, rows, summary)
    failed = result.get("failed", {})
    say_failed(failed)
    return Comparison(session.path, rows, summary, sentence, answered, asked, failed)


def best_scores(summary: pd.DataFrame) -> dict[str, float]:
    """The highest of an arm's judged means over the budgets."""
    return {str(arm): float(score) for arm, score in summary.groupby("arm", sort=False)["judged_mean"].max().items()}


def budget_of(
    experiment: Experiment, dataset: DataSet, plan: ComparisonPlan, policies: ArmPolicies, cards: dict[str, NetworkCard]
) -> Budget:
    """The budget of the arms. Raises UserError where a reading needs the cost of a search that was not counted."""
    from fieldshift.training import images_per_epoch

    searches = {name: policies.operations(name, plan.seeds) for name in cards}
    if SEARCH_INCLUDED in plan.readings and None in searches.values():
        raise UserError(
            f"The searches of this run are of a version that did not count their operations, which the reading at "
            f"'{SEARCH_INCLUDED}' needs; leave search-included out of --budgets, or start again with another --out."
        )
    tuning = None
    if plan.tuning_samples > 0 and TUNED in cards:
        from fieldshift.experiment.tuning import tuning_cost

        tuning = tuning_cost(dataset, plan.recipe, plan.tuning_samples)
    return Budget(
        epochs=plan.recipe.epochs,
        images=images_per_epoch(len(dataset.train), plan.recipe.batch),
        video=video_cost(experiment, dataset).flops,
        flops={name: card_cost(card).flops for name, card in cards.items()},
        searches={name: math.nan if spent is None else spent for name, spent in searches.items()},
        tuning=tuning,
    )


def digest_of(card: NetworkCard) -> str:
    """The digest of the motions that a network is trained under; "" without."""
    if card.motions is None:
        return ""
    steps = [step for part in card.motions.parts for edge in part.edges for step in edge.steps]
    return UNMOVED if all(step.op == "identity" for step in steps) else card.motions.digest()


def search_columns(policies: ArmPolicies, arm: str, seed: int) -> dict[str, Any]:
    """The columns of a row's search: the source of its motions, and their search's seconds (on both clocks) and devices."""
    found = policies.of(arm, seed)
    return {
        "search_seconds": 0.0 if found is None else found.seconds,
        "search_device_seconds": 0.0 if found is None else found.device_seconds,
        "search_devices": 1 if found is None else found.devices,
        "motions": "" if found is None else found.source,
    }
