"""The learning of a search: passes over both halves, in which alpha and the network's weights take steps in turns."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fieldshift.data import Split, batches
from fieldshift.networks.recomputation import is_recomputed
from fieldshift.search.bilevel import outer_gradient
from fieldshift.search.journal import weight_metrics
from fieldshift.search.run import MOMENTUM, SearchRun
from fieldshift.search.supernet import restored_buffers
from fieldshift.training import distributed
from fieldshift.training.loss_log import LossLog, are_finite, check_weights
from fieldshift.training.step import layers_draw_from

WEIGHTS, ALPHA = 1, 2  # streams of random draws
AUGMENTATION = 3
ADVICE = "the last state is kept. Lower --search.learning_rate or --search.alpha_learning_rate."
Batch = tuple[Tensor, Tensor, Tensor]


def learn_one_pass(run: SearchRun) -> dict[str, float]:
    """Runs one pass over both halves, alpha's step before the network's on each pair of batches. Returns its numbers.

    Raises UserError for a loss that is not finite, naming the step and the images.
    """
    config, state, cell, supernet = run.config, run.state, run.cell, run.supernet
    parameters = [each for each in supernet.network.parameters() if each.requires_grad]
    alpha_learns = not cell.is_decided and (state.tuning or state.epoch >= config.warmup_epochs)
    score, losses = run.objective.new_score(run.device), LossLog(partial(diverged, state.passes + 1, state.phase))
    supernet.train()
    for step, (batch, alpha_batch) in enumerate(pairs_of_batches(run)):
        images, targets, indices = batch
        noise, lr = noise_seed(run, step, WEIGHTS), learning_rate(run, step)

        if alpha_learns:  # alpha's step, on its own half, before the network's: it does not change the network
            with restored_buffers(supernet.network):
                gradients, outer_loss = outer_gradient(
                    partial(loss_at, run, alpha_batch, noise_seed(run, step, ALPHA)),
                    partial(loss_at, run, batch, noise),
                    for_alpha(run, parameters),
                    cell.outer_parameters,
                    order=config.order,
                    lr=lr,
                    momentum=momentum(run, parameters) if config.order != "first" else (),
                    decay=config.weight_decay,
                )
            # Losses are read at the end of a log interval; until then magnitudes that are not finite must not be sampled with.
            sound = are_finite(gradients)
            for parameter, gradient in zip(cell.outer_parameters, gradients, strict=True):
                parameter.grad = gradient.where(sound, 0.0)
            with cell.fixed_alpha_kept():
                run.alpha_optimizer.step()
            losses.add("alpha", outer_loss.where(sound, math.nan), alpha_batch[2])

        # The network's step: a decided cell is rendered by its policy, without weights.
        weights = None if cell.is_decided else cell.weights(noise, config.temperature)
        logits = supernet(images, weights, learns_cell=False, autocast=run.autocast)
        loss = run.objective.loss(logits, targets)
        slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(slopes, parameters, strict=True)]
        *gradients, loss = distributed.average_across_workers([*filled, loss.detach()])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        if config.clip_norm > 0:
            nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        for group in run.optimizer.param_groups:
            group["lr"] = lr
        run.optimizer.step()
        losses.add("weights", loss, indices)
        score.update(logits.detach(), targets)

    numbers = losses.read()
    check_weights(parameters, f"The weights after pass {state.passes + 1} are not finite; {ADVICE}")
    row = {"train/loss": mean(numbers["weights"]), f"train/{run.objective.score_name}": score.compute()}
    if alpha_learns:
        row["val/loss"] = mean(numbers["alpha"])
    return row | {"learning_rate": lr} | weight_metrics(cell)


def for_alpha(run: SearchRun, parameters: Sequence[Tensor]) -> Sequence[Tensor]:
    """The network's parameters in alpha's step: in first order without gradients, and activations that only these need.

    A network that recomputes activations does so with its own parameters, and has to save the same tensors both times.
    """
    if run.config.order != "first" or is_recomputed(run.supernet.network):
        return parameters
    return [each.detach() for each in parameters]


def loss_at(run: SearchRun, batch: Batch, noise: int | None, parameters: Sequence[Tensor]) -> Tensor:
    """The loss of a batch with the network's learned parameters replaced by `parameters`, with a graph to alpha."""
    supernet, (images, targets, _) = run.supernet, batch
    learned = [each for each in supernet.network.parameters() if each.requires_grad]
    stand_ins = {id(each): stand_in for each, stand_in in zip(learned, parameters, strict=True)}
    replaced = {
        f"{path}.{name}": stand_ins[id(each)]
        for path, module in supernet.named_modules()
        for name, each in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(each) in stand_ins
    }  # every module once and every name in it: torch leaves a module that two names hold without its parameters
    weights = run.cell.weights(noise, run.config.temperature)
    logits = functional_call(supernet, replaced, (images, weights), {"autocast": run.autocast}, tie_weights=False)
    return run.objective.loss(logits, targets)


def diverged(number: int, phase: str, kind: str, loss: float, step: int, images: list[int]) -> str:
    """The message about a loss that is not finite."""
    return (
        f"The {kind} loss is {loss} in pass {number} ({phase}), step {step}, images {images} ... of that half; {ADVICE}"
    )


def mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def learning_rate(run: SearchRun, step: int) -> float:
    """The network's step size: a cosine over the first stage; from a tenth, another over all tuning passes."""
    config, state = run.config, run.state
    high, done, passes = config.learning_rate, state.epoch, config.epochs
    if state.tuning:
        high, done, passes = (
            max(config.learning_rate / 10, config.min_learning_rate),
            state.passes - state.epoch,
            run.tuning_passes,
        )
    share = (done + step / run.steps_per_pass) / passes
    return config.min_learning_rate + (high - config.min_learning_rate) * (1 + math.cos(math.pi * share)) / 2


def momentum(run: SearchRun, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The contribution of earlier steps to the next step of sgd."""
    buffers = [run.optimizer.state[each].get("momentum_buffer") for each in parameters]
    return [torch.zeros_like(p) if m is None else MOMENTUM * m for m, p in zip(buffers, parameters, strict=True)]


def pairs_of_batches(run: SearchRun) -> Iterator[tuple[Batch, Batch]]:
    """Yields this worker's slices of one pass over both halves: (for the network, for alpha), whole and augmented.

    During a pass, random layers such as dropout draw from a seed of this pass.
    """
    passes = run.state.passes
    on_weights, on_alpha = (
        batches_of_worker(run, half, run.batch, seed=run.seed + stream, epoch=passes, drop_last=True)
        for half, stream in ((run.weight_half, WEIGHTS), (run.alpha_half, ALPHA))
    )
    with layers_draw_from(mixed_seed(run.seed, passes, distributed.rank()), run.device):
        for step, (batch, alpha_batch) in enumerate(zip(on_weights, on_alpha, strict=False)):
            yield augmented(run, batch, step, WEIGHTS), augmented(run, alpha_batch, step, ALPHA)


def augmented(run: SearchRun, batch: Batch, step: int, stream: int) -> Batch:
    """The batch after the basic augmentation, before any motion; each image as if one worker had the whole batch."""
    images, targets, indices = batch
    masks = targets if targets.dim() > 1 else None
    seed = mixed_seed(run.seed, run.state.passes, step, stream, AUGMENTATION)
    part = (distributed.rank() * len(images), distributed.world_size() * len(images))
    images, moved = run.augmentation(images, seed, masks, part=part)
    return images, targets if moved is None else moved, indices


def alpha_half_in_order(run: SearchRun) -> Iterator[Batch]:
    """Yields this worker's part of the whole alpha half, in batches of equal size for reliable batch statistics."""
    workers = distributed.world_size()
    normed = 1 if run.config.sync_batch_norm else workers  # parts that have batch statistics of their own
    size = part_size(len(run.alpha_half), run.batch, workers, min(2 * normed, run.batch))
    return batches_of_worker(run, run.alpha_half, size, seed=0, epoch=0, shuffle=False)


def part_size(count: int, batch: int, workers: int, fewest: int) -> int:
    """The size of all parts but the last that `count` images are read in, at most `batch` where the last part allows it.

    The last part has the rest, at least `fewest` images: a single one has no batch statistics after global pooling.
    """
    for parts in range(math.ceil(count / batch), 1, -1):
        size = max(workers, math.ceil(count / parts))
        if count - size * (math.ceil(count / size) - 1) >= fewest:
            return size
    return count


def batches_of_worker(run: SearchRun, half: Split, size: int, **order: Any) -> Iterator[Batch]:
    """This worker's slices of the batches of a half."""
    return batches(half, size, rank=distributed.rank(), world=distributed.world_size(), device=run.device, **order)


def noise_seed(run: SearchRun, step: int, stream: int) -> int | None:
    """The seed of the gumbel sample of a step, the same on every worker; None for softmax."""
    gumbel = run.config.relaxation == "gumbel"
    return mixed_seed(run.seed, run.state.passes, step, stream) if gumbel else None


def mixed_seed(*numbers: int) -> int:
    """Combines several numbers into one seed, equal on every worker."""
    text = ",".join(str(number) for number in numbers)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
