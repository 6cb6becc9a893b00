"""The search loop: from a data set and a space to a policy, resumable at every pass and decision."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fieldshift.data import DataSet
from fieldshift.errors import UserError
from fieldshift.folding import AnyPolicy
from fieldshift.networks import VideoNetwork
from fieldshift.search.bilevel import outer_gradient
from fieldshift.search.config import SearchConfig
from fieldshift.search.cost import SearchCost
from fieldshift.search.journal import collapse_warning, decision_line, decision_metrics, pass_line, weight_metrics
from fieldshift.search.selection import Judge, decide_edges, decide_option, is_open, next_edge, next_node
from fieldshift.search.session import ALPHA, WEIGHTS, Session
from fieldshift.search.space import Space
from fieldshift.search.supernet import kept_buffers
from fieldshift.training import distributed
from fieldshift.training.batch_statistics import synchronise_batch_norm
from fieldshift.training.cost import device_hours
from fieldshift.training.loop import use_channels_last
from fieldshift.training.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The result of a search.

    Attributes:
        policy: the motions found; `policy.found` describes how.
        history: one row per pass over the halves: losses, scores, alpha.
        decisions: the decisions in order, with their margins.
        seconds: time spent, over all sessions of a resumed search.
        device_hours: the same in hours, times the number of workers.
        cost: image passes and operations.
    """

    policy: AnyPolicy
    history: list[dict[str, float]]
    decisions: list[dict[str, Any]]
    seconds: float
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
) -> SearchResult:
    """Searches a space for the motions that suit `network` best on the training set; the test set is never used.

    `network` is trained in place; `normalise` is applied to videos (B, T, C, H, W) on [0, 1]. Half of the training
    images train the network, the other half alpha, both augmented and with losses smoothed according to `config`; then
    the selection decides edge by edge (METHOD.md 3 and 4). The same seed gives the same policy. With `folder` the
    halves (halves.json) are written first, and the state (search.pt) and the current policy (policy.json) after
    every pass and decision, and `resume` continues from there. `report` is called with the numbers of each pass and of
    each decision and the count of passes, `progress` with a line to print. With several workers `config.batch` is divided
    and all ranks end with the same policy. Raises UserError for inconsistent settings, and for a loss that is not
    finite, naming the step and the images; the last state is kept.
    """
    session = Session.start(network, dataset, space, config, normalise=normalise, device=device, seed=seed)
    if resume and folder is not None:
        session.restore(folder)
    if folder is not None:
        session.write_halves(folder)
    session.synchronise()
    for line in session.missing_classes(dataset.classes):
        progress(line)
    use_channels_last(network, config.channels_last)
    if session.config.sync_batch_norm:
        synchronise_batch_norm(network)
    cell, supernet, state = session.cell, session.supernet, session.state
    edges_per_node = config.edges_per_node or space.edges_per_node
    # Decisions are measured on plain images and plain targets, as networks are scored [D].
    plain = replace(objective, label_smoothing=0.0)
    judge = Judge(supernet=supernet, batches=session.alpha_half_in_order, objective=plain, config=config, seed=seed)
    objective = replace(objective, label_smoothing=session.config.label_smoothing or objective.label_smoothing)
    tune = config.tune_epochs > 0 and config.selection == "perturbation"

    while state.phase != "done":
        started = time.perf_counter()
        decision, row = None, None
        if state.phase == "supernet" or state.tuning:
            row = learn_one_pass(session, objective)
            state.passes += 1
            if state.tuning:
                state.tuned += 1
                state.tuning = state.tuned < config.tune_epochs
            else:
                state.epoch += 1
                state.phase = "options" if state.epoch == config.epochs else "supernet"
        elif state.phase == "options" and (edge := next_edge(cell, seed)) is not None:
            decision = decide_option(edge, judge)
        elif state.phase == "edges" and (node := next_node(cell, edges_per_node)) is not None:
            decision = decide_edges(node, edges_per_node, judge)
        else:
            state.phase = "edges" if state.phase == "options" else "done"

        seconds = time.perf_counter() - started
        state.seconds += seconds
        if decision is not None:
            state.decisions.append(asdict(decision))
            if decision.whole:  # measured: the whole, and the whole without each candidate
                session.count(scored=len(session.alpha_half) * (1 + len(decision.harm)))
            state.tuning, state.tuned = tune and is_open(cell, edges_per_node), 0
            progress(decision_line(decision))
            report(decision_metrics(decision), state.passes)
        if row is not None:
            learned = session.steps_a_pass * session.batch
            session.count(weights=learned, alpha=learned if "val/loss" in row else 0)
            row |= {"pass": state.passes, "seconds": seconds}
            state.history.append(row)
            name = f"tuning {state.tuned}" if state.decisions else f"epoch {state.epoch}/{config.epochs}"
            progress(pass_line(name, row, objective.score_name))
            if not state.warned and (warning := collapse_warning(row)) is not None:
                progress(warning)
                state.warned = True
            hours = device_hours(state.seconds, distributed.world_size())
            report({**row, "cost/device_hours": hours}, state.passes)
        distributed.assert_equal_across_workers(cell.alpha, "alpha")
        if folder is not None:
            session.save(folder, edges_per_node)

    return SearchResult(
        policy=session.policy(edges_per_node),
        history=state.history,
        decisions=state.decisions,
        seconds=state.seconds,
        device_hours=device_hours(state.seconds, distributed.world_size()),
        cost=session.cost,
    )


def learn_one_pass(session: Session, objective: Objective) -> dict[str, float]:
    """Runs one pass over both halves: alternating steps of alpha and of the network, batch by batch. Returns its numbers."""
    config, state, cell, supernet = session.config, session.state, session.cell, session.supernet
    parameters = [each for each in supernet.network.parameters() if each.requires_grad]
    alpha_learns = not cell.is_decided and (state.tuning or state.epoch >= config.warmup_epochs)
    score, losses, outer_losses = objective.new_score(session.device), [], []
    supernet.train()
    for step, (batch, alpha_batch) in enumerate(session.pairs_of_batches()):
        images, targets, indices = batch
        noise = session.noise(step, WEIGHTS)
        lr = session.learning_rate(step)

        if alpha_learns:  # alpha's step, on its own half: it does not change the network
            with kept_buffers(supernet.network):
                gradients, outer_loss = outer_gradient(
                    partial(loss_at, session, objective, alpha_batch, session.noise(step, ALPHA)),
                    partial(loss_at, session, objective, batch, noise),
                    parameters,
                    cell.outer_parameters,
                    order=config.order,
                    lr=lr,
                    momentum=session.momentum(parameters) if config.order != "first" else (),
                    decay=config.weight_decay,
                )
            stop_unless_finite(outer_loss, "alpha", session, step, alpha_batch[2])
            for parameter, gradient in zip(cell.outer_parameters, gradients, strict=True):
                parameter.grad = gradient
            session.alpha_optimizer.step()
            outer_losses.append(float(outer_loss))

        logits = supernet(images, session.weights(noise), learns_cell=False)
        loss = objective.loss(logits, targets)
        slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(slopes, parameters, strict=True)]
        *gradients, loss = distributed.average_across_workers([*filled, loss.detach()])
        stop_unless_finite(loss, "weights", session, step, indices)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        if config.clip_norm > 0:
            nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        for group in session.optimizer.param_groups:
            group["lr"] = lr
        session.optimizer.step()
        losses.append(float(loss))
        score.update(logits.detach(), targets)

    row: dict[str, float] = {"train/loss": sum(losses) / len(losses), f"train/{objective.score_name}": score.compute()}
    if outer_losses:
        row["val/loss"] = sum(outer_losses) / len(outer_losses)
    return row | {"learning_rate": lr} | weight_metrics(cell)


def loss_at(
    session: Session,
    objective: Objective,
    batch: tuple[Tensor, Tensor, Tensor],
    noise: int | None,
    parameters: Sequence[Tensor],
) -> Tensor:
    """The loss of a batch with the network's learned parameters replaced by `parameters`, with a graph to alpha."""
    supernet, (images, targets, _) = session.supernet, batch
    names = [f"network.{name}" for name, each in supernet.network.named_parameters() if each.requires_grad]
    weights = session.cell.weights(noise, session.config.temperature)
    logits = functional_call(supernet, dict(zip(names, parameters, strict=True)), (images, weights))
    return objective.loss(logits, targets)


def stop_unless_finite(loss: Tensor, kind: str, session: Session, step: int, indices: Tensor) -> None:
    if not torch.isfinite(loss):
        state = session.state
        raise UserError(
            f"The {kind} loss is {loss.item()} in pass {state.passes + 1} ({state.phase}), step {step + 1}, images "
            f"{indices[:8].tolist()} ... of that half; the last state is kept. Lower --search.lr or --search.alpha_lr."
        )
