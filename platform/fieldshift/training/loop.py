"""The training loop: from images to a trained network, resumable at every epoch."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler

from fieldshift.data import Split
from fieldshift.errors import UserError
from fieldshift.networks import VideoNetwork
from fieldshift.training import distributed
from fieldshift.training.accumulation import gradients_shared, micro_batch_count, micro_batches
from fieldshift.training.batch_statistics import synchronise_batch_norm
from fieldshift.training.checkpoint import checkpoint_of_first, write_checkpoint
from fieldshift.training.clock import device_clock
from fieldshift.training.frames import FramePlan
from fieldshift.training.loss_log import READ_EVERY, LossLog, check_weights
from fieldshift.training.objectives import Objective
from fieldshift.training.optimisation import build_optimizer, build_schedule
from fieldshift.training.recipe import Recipe
from fieldshift.training.step import (
    count_steps,
    draw_seed,
    epoch_batches,
    forward,
    layers_draw_from,
    precision_of,
    share_of_loss,
    use_channels_last,
)

MOST_MOVES = 10  # of a progress bar within an epoch
LAYERS = -1  # in place of a step: the seed of an epoch's random layers
ADVICE = "; the last checkpoint is kept. Lower --recipe.learning_rate."
Report = Callable[[dict[str, float], int], None]


@dataclass(kw_only=True)
class TrainedNetwork:
    """The result of a training run.

    Attributes:
        network: the trained network, on the device it was trained on.
        history: one row per epoch: training loss and score, learning rate, images per second.
        seconds: time spent in training, over all sessions of a resumed run, evaluation not counted.
        device_seconds: the same on the device's own clock (`device_clock`), of this worker; NaN if an earlier version
            began the run.

    The first epoch of a process includes one-time costs of loading and caching, which `usual_device_seconds` excludes with
    three epochs or more. With two it is the mean, with one that epoch itself.
    """

    network: VideoNetwork
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    device_seconds: float = 0.0

    @property
    def usual_device_seconds(self) -> float:
        """The median over epochs of one epoch's device seconds; NaN if any is unknown (from an earlier version)."""
        seconds = [row.get("device_seconds", math.nan) for row in self.history]
        return math.nan if any(map(math.isnan, seconds)) else statistics.median(seconds)


def train_network(
    network: VideoNetwork,
    split: Split,
    *,
    plan: FramePlan,
    recipe: Recipe,
    objective: Objective,
    seed: int,
    device: torch.device | str = "cpu",
    align: bool = True,
    checkpoint: Path | None = None,
    fingerprint: str = "",
    resume: bool = False,
    report: Report = lambda _metrics, _step: None,
    progress: Callable[[float], None] = lambda _epochs: None,
) -> TrainedNetwork:
    """Trains `network` in place on `split` and returns it with its history.

    `recipe.batch` is the global batch: with several workers each takes its slice of the same batches, and computes it in
    `recipe.accumulate` micro-batches. Without BatchNorm the update does not depend on their number, up to rounding. With
    `checkpoint` the state is written after every epoch, and `resume` continues from there; k + k epochs equal 2k. A state with
    another `fingerprint` belongs to another run, and is refused.
    Raises UserError for a loss that is not finite, naming epoch, step and the images' indices, at the end of the log
    interval (`loss_log.READ_EVERY` steps, or the epoch); the last checkpoint is kept. `report` is called after every epoch,
    `progress` at most ten times within one, at the end of a log interval, with the epochs so far, such as 2.4.
    """
    device = torch.device(device)
    autocast = precision_of("recipe", recipe.precision, device)
    network.to(device)
    use_channels_last(network, recipe.channels_last, split)
    if recipe.sync_batch_norm:
        synchronise_batch_norm(network)
    optimizer = build_optimizer(network, recipe)
    trained, first_epoch, steps = TrainedNetwork(network=network), 0, count_steps(len(split), recipe.batch)
    schedule = build_schedule(optimizer, recipe, recipe.epochs * steps)
    if resume and checkpoint is not None:
        first_epoch = restore(checkpoint, trained, optimizer, schedule, fingerprint)
    split = split.to(device)
    model = wrapped(network, recipe, device)
    pieces = micro_batch_count(len(split), recipe.batch, recipe.accumulate)

    for epoch in range(first_epoch, recipe.epochs):
        started, device_started = time.perf_counter(), device_clock(device)
        model.train()
        score, losses = objective.new_score(device), LossLog(partial(diverged, epoch + 1))
        loss_sum, images_seen = torch.zeros((), device=device), 0
        with layers_draw_from(draw_seed(seed, epoch, LAYERS), device):
            for step, (images, targets, indices) in enumerate(
                epoch_batches(split, recipe.batch, seed=seed, epoch=epoch, device=device)
            ):
                video, targets = plan.training_video(images, targets, draw_seed(seed, epoch, step))
                optimizer.zero_grad(set_to_none=True)
                loss, counted = torch.zeros((), device=device), objective.counted(targets).clamp(min=1)
                for number, (part, labels) in enumerate(micro_batches(video, targets, pieces), start=1):
                    with gradients_shared(model, number == pieces):
                        with autocast:
                            fused, auxiliary = forward(model, network, part, plan if align else None)
                            share = share_of_loss(objective, fused, auxiliary, labels, counted, recipe.auxiliary_weight)
                        share.backward()
                    loss = loss + share.detach()
                    score.update(fused.detach().float(), labels)
                if recipe.clip_norm > 0:
                    nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
                optimizer.step()
                schedule.step()
                loss_sum, images_seen = loss_sum + loss * len(images), images_seen + len(images)
                losses.add("training", loss, indices)
                move(progress, epoch, step + 1, steps)
        losses.read()
        check_weights(network.parameters(), f"The weights after epoch {epoch + 1} are not finite{ADVICE}")
        # Every worker scores with the statistics that are saved; DistributedDataParallel only copies them before a step.
        distributed.broadcast_from_first(network.buffers())

        device_seconds, seconds = device_clock(device) - device_started, time.perf_counter() - started
        trained.device_seconds += device_seconds
        trained.seconds += seconds
        seen = torch.full((), images_seen, dtype=torch.float64, device=device)
        total, count = distributed.sum_across_workers(torch.stack([loss_sum.double(), seen])).tolist()
        row = {
            "epoch": float(epoch + 1),
            "train/loss": total / count,
            f"train/{objective.score_name}": score.compute(),
            "learning_rate": float(schedule.get_last_lr()[0]),
            "images_per_second": count / seconds,
            "device_seconds": device_seconds,
        }
        trained.history.append(row)
        if checkpoint is not None and distributed.rank() == 0:
            write_checkpoint(
                checkpoint, state_of(trained, optimizer, schedule, epoch + 1) | {"fingerprint": fingerprint}
            )
        report(row, epoch + 1)
    return trained


def move(progress: Callable[[float], None], epoch: int, done: int, steps: int) -> None:
    """Reports the progress after `done` steps of an epoch, at most MOST_MOVES times, at the end of a log interval."""
    if done < steps and done % (READ_EVERY * math.ceil(steps / (READ_EVERY * MOST_MOVES))) == 0:
        progress(epoch + done / steps)


def diverged(epoch: int, kind: str, loss: float, step: int, images: list[int]) -> str:
    """The message about a loss that is not finite."""
    return f"The {kind} loss is {loss} at epoch {epoch}, step {step} (images {images} ...){ADVICE}"


def wrapped(network: VideoNetwork, recipe: Recipe, device: torch.device) -> nn.Module:
    """The network as the steps call it: with gradients averaged over workers, and compiled if the recipe asks for it."""
    model: nn.Module = network
    if distributed.is_distributed():
        model = DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
    return torch.compile(model) if recipe.compile else model  # type: ignore[return-value]


def restore(
    checkpoint: Path, trained: TrainedNetwork, optimizer: torch.optim.Optimizer, schedule: LRScheduler, fingerprint: str
) -> int:
    """Restores the state in the file, if there is one, and returns the number of finished epochs.

    Raises UserError for the state of another network, or of a run with another fingerprint; earlier versions wrote none.
    """
    state = checkpoint_of_first(checkpoint)
    if state is None:
        return 0
    if state.get("fingerprint", fingerprint) != fingerprint:
        raise UserError(f"{checkpoint} belongs to another run; restore its own, or delete it to train from the start.")
    try:
        trained.network.load_state_dict(state["network"])
    except RuntimeError:  # torch names every tensor that does not fit
        raise UserError(f"{checkpoint} belongs to another network; delete it to train from the start.") from None
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    trained.history, trained.seconds = state["history"], state["seconds"]
    trained.device_seconds = state.get("device_seconds", math.nan)
    return int(state["epoch"])


def state_of(
    trained: TrainedNetwork, optimizer: torch.optim.Optimizer, schedule: LRScheduler, epoch: int
) -> dict[str, Any]:
    """The contents of a checkpoint after that many epochs."""
    # Some schedulers store functions, which a checkpoint cannot.
    plain = {key: value for key, value in schedule.state_dict().items() if not callable(value)}
    return {
        "network": trained.network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": plain,
        "history": trained.history,
        "seconds": trained.seconds,
        "device_seconds": trained.device_seconds,
        "epoch": epoch,
    }
