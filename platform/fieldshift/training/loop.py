"""The training loop: from images to a trained network, resumable at every epoch."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fieldshift.data import Split, batches
from fieldshift.errors import UserError
from fieldshift.networks import VideoNetwork
from fieldshift.training import distributed
from fieldshift.training.batch_statistics import synchronise_batch_norm
from fieldshift.training.checkpoint import checkpoint_of_first, write_checkpoint
from fieldshift.training.clock import device_clock
from fieldshift.training.frames import FramePlan
from fieldshift.training.map_quality import MapQuality, map_quality
from fieldshift.training.objectives import Objective
from fieldshift.training.optimisation import build_optimizer, build_schedule
from fieldshift.training.recipe import Recipe

LAYERS = -1  # in place of a step: the seed of an epoch's random layers
EVALUATED_IMAGES, EVALUATED_MAPS = 256, 16  # images scored at once: maps of all frames at full size take memory
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
    resume: bool = False,
    report: Report = lambda _metrics, _step: None,
) -> TrainedNetwork:
    """Trains `network` in place on `split` and returns it with its history.

    `recipe.batch` is the global batch: with several workers each takes its slice of the same batches. With
    `checkpoint` the state is written after every epoch, and `resume` continues from there; k + k epochs equal 2k.
    Raises UserError for a loss that is not finite, naming epoch, step and the images' indices; the last checkpoint
    is kept.
    """
    device = torch.device(device)
    autocast = precision_of(recipe, device)
    network.to(device)
    use_channels_last(network, recipe.channels_last)
    if recipe.sync_batch_norm:
        synchronise_batch_norm(network)
    optimizer = build_optimizer(network, recipe)
    steps_an_epoch = count_steps(len(split), recipe.batch)
    schedule = build_schedule(optimizer, recipe, recipe.epochs * steps_an_epoch)
    trained = TrainedNetwork(network=network)
    first_epoch = 0
    state = checkpoint_of_first(checkpoint) if resume and checkpoint is not None else None
    if state is not None:
        try:
            network.load_state_dict(state["network"])
        except RuntimeError:  # torch names every tensor that does not fit
            raise UserError(f"{checkpoint} belongs to another network; delete it to train from the start.") from None
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        trained.history, trained.seconds, first_epoch = state["history"], state["seconds"], state["epoch"]
        trained.device_seconds = state.get("device_seconds", math.nan)

    model: nn.Module = network
    if distributed.is_distributed():
        model = DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
    split = split.to(device)
    if recipe.compile:
        if network.form == "folded":  # a compiler cannot compute the motions for the sizes of the maps
            images, _, _ = next(epoch_batches(split, recipe.batch, seed=seed, epoch=0, device=device))
            with torch.no_grad():
                network.eval()(plan.evaluation_video(images[:1]))
        model = torch.compile(model)  # type: ignore[assignment]

    for epoch in range(first_epoch, recipe.epochs):
        started, device_started = time.perf_counter(), device_clock(device)
        model.train()
        score, loss_sum, seen = objective.new_score(device), torch.zeros((), device=device), 0
        with layers_draw_from(draw_seed(seed, epoch, LAYERS), device):
            for step, (images, targets, indices) in enumerate(
                epoch_batches(split, recipe.batch, seed=seed, epoch=epoch, device=device)
            ):
                video, targets = plan.training_video(images, targets, draw_seed(seed, epoch, step))
                with autocast:
                    fused, auxiliary = forward(model, network, video, plan if align else None)
                    loss = objective.loss(fused, targets)
                    if auxiliary is not None:
                        loss = loss + recipe.auxiliary_weight * objective.loss(auxiliary, targets)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                if recipe.clip_norm > 0:
                    nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
                optimizer.step()
                schedule.step()
                loss_sum += loss.detach() * len(images)
                seen += len(images)
                score.update(fused.detach().float(), targets)
                if not torch.isfinite(loss_sum):
                    raise UserError(
                        f"The training loss is {loss.item()} at epoch {epoch + 1}, step {step + 1} (images "
                        f"{indices[:8].tolist()} ...); the last checkpoint is kept. Lower --recipe.learning_rate."
                    )
        device_seconds = device_clock(device) - device_started
        trained.device_seconds += device_seconds
        seconds = time.perf_counter() - started
        trained.seconds += seconds
        totals = distributed.sum_across_workers(torch.stack([loss_sum.double(), torch.tensor(seen, device=device)]))
        row = {
            "epoch": float(epoch + 1),
            "train/loss": float(totals[0] / totals[1]),
            f"train/{objective.score_name}": score.compute(),
            "learning_rate": float(schedule.get_last_lr()[0]),
            "images_per_second": float(totals[1]) / seconds,
            "device_seconds": device_seconds,
        }
        trained.history.append(row)
        if checkpoint is not None and distributed.rank() == 0:
            write_checkpoint(
                checkpoint,
                {
                    "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": plain_state(schedule.state_dict()),
                    "history": trained.history,
                    "seconds": trained.seconds,
                    "device_seconds": trained.device_seconds,
                    "epoch": epoch + 1,
                },
            )
        report(row, epoch + 1)
    return trained


def forward(
    model: nn.Module, network: VideoNetwork, video: Tensor, plan: FramePlan | None
) -> tuple[Tensor, Tensor | None]:
    """Fused logits of `video`, and those of the auxiliary head if a segmenter that has one is training."""
    matrices = None
    if network.task == "segmentation" and plan is not None:
        matrices = plan.alignment((int(video.shape[-2]), int(video.shape[-1])))
    logits = model(video)
    if isinstance(logits, tuple):
        frame_logits, auxiliary = logits
        return network.fuse(frame_logits, matrices), network.fuse(auxiliary, matrices)
    return network.fuse(logits, matrices), None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A network's score on a split: `score` for plain images; `score_tta` with test-time averaging.

    The latter is None if it was not requested, or if there are no other views to average. `loss` is the mean
    over samples, or over all counted pixels. `maps` describes every predicted map separately, in the order of the split,
    if `each_map` is set.
    """

    score: float
    loss: float
    score_tta: float | None = None
    maps: tuple[MapQuality, ...] = ()


@torch.no_grad()
def evaluate_network(
    network: VideoNetwork,
    split: Split,
    *,
    plan: FramePlan,
    objective: Objective,
    batch: int | None = None,
    device: torch.device | str = "cpu",
    align: bool = True,
    copies: int = 0,
    each_map: bool = False,
    scored: Callable[[int], None] = lambda _images: None,
) -> Evaluation:
    """Scores every sample exactly once, over all workers together.

    `copies` > 0 also scores the average of the logits over `plan.views(images, copies)`, if that is more than one view
    (classification only): at most `copies` + 1 single-frame passes, whatever the network reads.
    `each_map` also measures every predicted map separately (segmentation only). `batch` is 256 images, or 16 with maps.
    `scored` is called with the number of images in each batch of this worker.
    """
    dense = network.task == "segmentation"
    device = torch.device(device)
    network.to(device).eval()
    split = split.to(device)
    score, averaged = objective.new_score(device), objective.new_score(device)
    totals = torch.zeros(2, dtype=torch.float64, device=device)
    average_views = plan.views_for(copies) > 1 and not dense
    maps: list[MapQuality] = []
    batch = batch or max(EVALUATED_MAPS if dense else EVALUATED_IMAGES, distributed.world_size())
    parts = batches(split, batch, seed=0, epoch=0, shuffle=False, device=device, **share_of_worker())
    for images, targets, indices in parts:
        if not len(images):  # this worker's share of a last batch smaller than the number of workers
            continue
        logits, _ = forward(network, network, plan.evaluation_video(images), plan if align else None)
        score.update(logits, targets)
        totals += torch.stack([objective.loss(logits, targets, "sum").double(), objective.counted(targets).double()])
        if each_map and dense:
            answers = zip(logits.argmax(1), targets, indices.tolist(), strict=True)
            maps += [map_quality(found, truth, objective.ignore_index, index) for found, truth, index in answers]
        if average_views:
            views = [network.fuse(network(video)) for video in plan.views(images, copies)]
            averaged.update(torch.stack(views).mean(0), targets)
        scored(len(images))
    totals = distributed.sum_across_workers(totals)
    return Evaluation(
        score=score.compute(),
        loss=float(totals[0] / totals[1].clamp(min=1)),
        score_tta=averaged.compute() if average_views else None,
        maps=tuple(sorted(distributed.gather_across_workers(maps), key=lambda each: each.index)),
    )


def epoch_batches(
    split: Split, batch: int, *, seed: int, epoch: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """This worker's slices of one epoch's shuffled global batches, without a last, smaller one."""
    full = len(split) >= batch
    return batches(split, batch, seed=seed, epoch=epoch, drop_last=full, device=device, **share_of_worker())


def share_of_worker() -> dict[str, Any]:
    return {"rank": distributed.rank(), "world": distributed.world_size()}


def count_steps(samples: int, batch: int) -> int:
    """Steps per epoch: whole batches, or one smaller batch if there is less than one."""
    return max(1, samples // batch)


def draw_seed(seed: int, epoch: int, step: int) -> int:
    """A seed for the random draws of one step, different for every (seed, epoch, step, worker)."""
    mixed = (seed * 1_000_003 + epoch) * 1_000_003 + step
    return (mixed * 1_000_003 + distributed.rank()) % (2**63 - 1)


@contextmanager
def layers_draw_from(seed: int, device: torch.device) -> Iterator[None]:
    """Makes dropout and other random layers draw from a seed within the block, so that resumed training draws the same."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def precision_of(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """The precision context of a training step. Raises UserError if the device has no bf16."""
    if recipe.precision != "bf16":
        return nullcontext()
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("recipe.precision is bf16, but this GPU has no bf16; use --recipe.precision float32.")
    return torch.autocast(device.type, torch.bfloat16)


def use_channels_last(network: nn.Module, wanted: bool) -> None:
    """Applies to 2D convolutions only: five-dimensional weights do not support this memory order."""
    if not wanted:
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


def plain_state(state: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's state without the functions that some schedulers store in it."""
    return {key: value for key, value in state.items() if not callable(value)}
