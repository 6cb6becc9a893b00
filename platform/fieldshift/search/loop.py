"""The search: from a data set and a space to a policy, in three stages, resumable at every pass and decision."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from fieldshift.data import DataSet
from fieldshift.folding import AnyPolicy
from fieldshift.motions.policy_file import FINISHED
from fieldshift.networks import VideoNetwork
from fieldshift.search.config import SearchConfig
from fieldshift.search.cost import SearchCost
from fieldshift.search.journal import collapse_warning, decision_line, decision_metrics, pass_line
from fieldshift.search.learning import alpha_half_in_order, learn_one_pass
from fieldshift.search.run import SearchRun
from fieldshift.search.selection import Decision, Selector, is_open, next_edge, next_node
from fieldshift.search.space import Space
from fieldshift.training import distributed
from fieldshift.training.batch_statistics import synchronise_batch_norm
from fieldshift.training.clock import device_clock
from fieldshift.training.cost import device_hours
from fieldshift.training.objectives import Objective
from fieldshift.training.step import use_channels_last

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class FoundPolicy:
    """The result of a search.

    Attributes:
        policy: the motions found; `policy.found` describes how.
        history: one row per pass over the halves: losses, scores, alpha.
        decisions: the decisions in order, with their margins.
        seconds: time spent, over all sessions of a resumed search.
        device_seconds: the same on the device's own clock (`device_clock`), of this worker; NaN if an earlier version began
            the search.
        device_hours: the same in hours, times the number of workers.
        cost: image passes and operations.
    """

    policy: AnyPolicy
    history: list[dict[str, float]]
    decisions: list[dict[str, Any]]
    seconds: float
    device_seconds: float
    device_hours: float
    cost: SearchCost


def search(
    network: VideoNetwork,
    dataset: DataSet,
    space: Space,
    config: SearchConfig,
    *,
    objective: Objective,
    normalise: Callable[[Tensor], Tensor],
    device: torch.device | str = "cpu",
    seed: int = 0,
    folder: Path | None = None,
    report: Callable[[dict[str, float], int], None] = lambda _metrics, _step: None,
    progress: Callable[[str], None] = lambda _line: None,
    resume: bool = False,
) -> FoundPolicy:
    """Searches a space for the motions that suit `network` best on the training set; the test set is never used.

    `network` is trained in place; `normalise` is applied to videos (B, T, C, H, W) on [0, 1]. Half of the training
    images train the network, the other half alpha, both augmented and with losses smoothed according to `config`; then
    the selection decides edge by edge (METHOD.md 3 and 4). The same seed gives the same policy. With `folder` the
    halves (halves.json) are written first, and the state (search.pt) and the current policy (policy.json) after
    every pass and decision, and `resume` continues from there. `report` is called with the numbers of each pass and of
    each decision and the count of passes, `progress` with a line to print. With several workers `config.batch` is divided
    and all ranks end with the same policy. Raises UserError for inconsistent settings, and for a loss that is not
    finite, naming the step and the images, at the end of the log interval; the last state is kept.
    """
    run = SearchRun.start(
        network, dataset, space, config, objective=objective, normalise=normalise, device=device, seed=seed
    )
    if resume and folder is not None:
        run.restore(folder)
    if folder is not None:
        run.write_halves(folder)
    run.synchronise()
    for line in run.missing_classes(dataset.classes):
        progress(line)
    use_channels_last(network, config.channels_last, dataset.train)
    if run.config.sync_batch_norm:
        synchronise_batch_norm(network)

    if run.state.phase != FINISHED:
        stages = Stages(run, folder, report, progress)
        stages.learn()
        stages.choose_operations()
        stages.choose_edges()

    return FoundPolicy(
        policy=run.policy(),
        history=run.state.history,
        decisions=run.state.decisions,
        seconds=run.state.seconds,
        device_seconds=run.state.device_seconds,
        device_hours=device_hours(run.state.seconds, distributed.world_size()),
        cost=run.cost,
    )


class Stages:
    """The three stages of a search, each of which continues where the stored state ends.

    After every pass and decision the state is saved, and its numbers are reported.
    """

    def __init__(
        self,
        run: SearchRun,
        folder: Path | None,
        report: Callable[[dict[str, float], int], None],
        progress: Callable[[str], None],
    ) -> None:
        self.run, self.folder, self.report, self.progress = run, folder, report, progress
        self.selector = Selector(
            supernet=run.supernet,
            batches=partial(alpha_half_in_order, run),
            objective=run.plain_objective,
            config=run.config,
            seed=run.seed,
        )

    def learn(self) -> None:
        """Stage 1: the network's weights and alpha learn in turns, for `epochs` passes."""
        state, epochs = self.run.state, self.run.config.epochs
        while state.epoch < epochs:
            row, seconds = self.timed(partial(learn_one_pass, self.run))
            state.epoch += 1
            if state.epoch == epochs:
                state.phase = "options"
            self.record_pass(row, seconds, f"epoch {state.epoch}/{epochs}")

    def choose_operations(self) -> None:
        """Stage 2: every edge keeps one operation, in a random order; the network is tuned after each decision."""
        self.tune()
        while (edge := next_edge(self.run.cell, self.run.seed)) is not None:
            self.record_decision(self.timed(partial(self.selector.choose_operation, edge))[0])
            self.tune()
        self.finish("edges")

    def choose_edges(self) -> None:
        """Stage 3: every node keeps `edges_per_node` incoming edges, from the output back, with tuning as before."""
        kept = self.run.edges_per_node
        self.tune()
        while (node := next_node(self.run.cell, kept)) is not None:
            self.record_decision(self.timed(partial(self.selector.choose_edges, node, kept))[0])
            self.tune()
        self.finish(FINISHED)

    def tune(self) -> None:
        """Learning between two decisions, for `tune_epochs` passes, where the selection rule measures the network."""
        state = self.run.state
        while state.tuning:
            row, seconds = self.timed(partial(learn_one_pass, self.run))
            state.tuned += 1
            state.tuning = state.tuned < self.run.config.tune_epochs
            self.record_pass(row, seconds, f"tuning {state.tuned}")

    def record_pass(self, row: dict[str, float], seconds: float, name: str) -> None:
        """Stores and reports the numbers of a pass."""
        run, state = self.run, self.run.state
        learned = run.steps_per_pass * run.batch
        run.count(weights=learned, alpha=learned if "val/loss" in row else 0)
        state.passes += 1
        hours = device_hours(state.seconds, distributed.world_size())
        row |= {"pass": state.passes, "seconds": seconds, "cost/device_hours": hours}
        state.history.append(row)
        self.progress(pass_line(name, row, run.objective.score_name))
        if not state.warned and (warning := collapse_warning(row)) is not None:
            self.progress(warning)
            state.warned = True
        run.save(self.folder)
        self.report(row, state.passes)

    def record_decision(self, decision: Decision) -> None:
        """Stores and reports a decision, after which the network is tuned if decisions are left."""
        run, state = self.run, self.run.state
        state.decisions.append({**asdict(decision), "pass": state.passes})
        if decision.whole:  # measured: the whole, and the whole without each alternative
            run.count(scored=len(run.alpha_half) * (1 + len(decision.harm)))
        tunes = run.config.tune_epochs > 0 and self.selector.rule.measures
        state.tuning, state.tuned = tunes and is_open(run.cell, run.edges_per_node), 0
        self.progress(decision_line(decision))
        run.save(self.folder)
        self.report(decision_metrics(state.decisions[-1]), state.passes)

    def timed(self, action: Callable[[], T]) -> tuple[T, float]:
        """The result of an action and the seconds that it took, which are added to the search's."""
        state, device = self.run.state, self.run.device
        started, device_started = time.perf_counter(), device_clock(device)
        result = action()
        state.device_seconds += device_clock(device) - device_started
        seconds = time.perf_counter() - started
        state.seconds += seconds
        return result, seconds

    def finish(self, phase: str) -> None:
        """Enters the next phase of the stored state."""
        if self.run.state.phase != phase:
            self.run.state.phase = phase
            self.run.save(self.folder)
