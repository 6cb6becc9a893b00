"""Parts of a training step that evaluation and search share: batches of this worker, the forward pass, seeds, precision."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fieldshift.data import Split, batches
from fieldshift.errors import UserError
from fieldshift.networks import Inserted, VideoNetwork
from fieldshift.networks.twin import twin
from fieldshift.training import distributed
from fieldshift.training.frames import FramePlan
from fieldshift.training.objectives import Objective

KNOWN = ("torchvision.", "timm.", "fieldshift.")
"""Packages whose networks read maps in channels-last order."""

_log = logging.getLogger("fieldshift.training")


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


def share_of_loss(
    objective: Objective, fused: Tensor, auxiliary: Tensor | None, targets: Tensor, counted: Tensor, weight: float
) -> Tensor:
    """The part of a batch's mean loss that these logits contribute, where the batch has `counted` targets.

    `weight` is that of the auxiliary head, if there is one.
    """
    share = objective.loss(fused, targets, "sum") / counted
    return share if auxiliary is None else share + weight * objective.loss(auxiliary, targets, "sum") / counted


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


def precision_of(section: str, precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context of a learning step in float32 or bf16, the value of the option `section`.precision.

    Raises UserError if the device has no bf16.
    """
    if precision != "bf16":
        return nullcontext()
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError(f"{section}.precision is bf16, but this GPU has no bf16; use --{section}.precision float32.")
    return torch.autocast(device.type, torch.bfloat16)


def use_channels_last(network: VideoNetwork, wanted: bool, split: Split) -> None:
    """Keeps the 2D convolutions in channels-last memory order, unless the network cannot read images of the split then.

    That is so where it takes its maps for contiguous memory, as `x.view(len(x), -1)` does. Five-dimensional weights do not
    support this order.
    """
    if not wanted:
        return
    if not _reads_channels_last(network, split):
        _log.warning(
            "channels_last is off: the network reads contiguous maps (x.view; x.flatten would read both orders)"
        )
        return
    order_channels_last(network)


def order_channels_last(network: nn.Module) -> None:
    """Keeps the weights of the 2D convolutions in channels-last memory order."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


def _reads_channels_last(network: VideoNetwork, split: Split) -> bool:
    """False where a view of a map fails in channels-last order; any other error of the network has another cause.

    Networks of known packages read both orders. Others read one blank image, as convolutions on "meta" do not tell.
    """
    if type(network.network).__module__.startswith(KNOWN):
        return True
    device = next(network.parameters()).device
    size = split.gather(torch.zeros(1, dtype=torch.int64))[0].shape[-2:]
    try:
        copied = twin(network, device).eval()
        for module in copied.modules():
            if isinstance(module, Inserted):
                module.temporal = nn.Identity()  # keeps the order, and may need the motions of a search
        order_channels_last(copied)
        with torch.no_grad():
            copied(torch.zeros(1, network.frames, network.image_channels, *size, device=device))
    except Exception as error:  # any error of the user's network
        return not (isinstance(error, (RuntimeError, ValueError)) and "view" in str(error))
    return True
