"""Suggested settings for a user's own data, from its contents and this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil
import torch
from torch import nn

from fieldshift.data import DataSet
from fieldshift.motions import Policy
from fieldshift.networks import NetworkConfig
from fieldshift.networks.config import SMALL_SIDE
from fieldshift.training import NetworkCard, arm_named, network_card

SMALLEST_BATCH, LARGEST_BATCH = 4, 256
USED_MEMORY = 0.4  # share of the free memory that activations may take
FEW_SAMPLES = 5000
STEPS_A_PASS = 4
FRAMES = 3  # those of all studies: the cheapest video, and in the folded form the whole magnitude as one step
TINY_SIDE = 40
MOST_WITHOUT_GPU = 256


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """The settings that `fieldshift init` writes.

    Attributes:
        network, temporal: names for `video_network`.
        frames: frames of a video.
        batch: images in one step; the largest power of two whose activations fit into memory, at most what helps.
        epochs: passes that make about as many steps as a network of this kind needs.
        search_epochs: passes of the supernet, likewise.
        crop: pixels of the random crop.
        trials_at_once: trials side by side on this machine.
        free: free bytes of memory, of the GPU if there is one.
        an_image: bytes of one image's video in a training step.
    """

    network: str
    temporal: str
    frames: int
    batch: int
    epochs: int
    search_epochs: int
    crop: int
    trials_at_once: int
    free: int
    an_image: int


def suggest(dataset: DataSet, network: str | None = None) -> Suggestion:
    """Settings for this data on this machine; a `network` that is named is kept."""
    on_gpu = torch.cuda.is_available()
    network = network or network_for(dataset, len(dataset.train), on_gpu=on_gpu)
    trials = 1 if on_gpu else max(1, min(2, os.cpu_count() or 1))
    free = free_memory()
    an_image = activation_bytes(dataset, network, FRAMES)
    fitting = int(USED_MEMORY * free / trials / max(an_image, 1))
    wanted = LARGEST_BATCH if on_gpu else 64
    batch = min(power_of_two(fitting), wanted, power_of_two(len(dataset.train) // STEPS_A_PASS))
    steps = 20_000 if on_gpu else 1_500
    epochs = passes(steps, len(dataset.train), batch, 5, 60)
    return Suggestion(
        network=network,
        temporal="tsm",
        frames=FRAMES,
        batch=max(SMALLEST_BATCH, batch),
        epochs=epochs,
        search_epochs=passes(steps // 2, len(dataset.train) // 2, batch, 5, 50),
        crop=min(dataset.size) // 8 if max(dataset.size) <= SMALL_SIDE else 0,
        trials_at_once=trials,
        free=free,
        an_image=an_image,
    )


def size_for(dataset: DataSet) -> tuple[int, int]:
    """The height and width to work at: the data set's own, but without a GPU scenes of at most 256 px."""
    height, width = dataset.size
    if dataset.task != "segmentation" or torch.cuda.is_available() or max(height, width) <= MOST_WITHOUT_GPU:
        return height, width
    scale = MOST_WITHOUT_GPU / max(height, width)
    return max(2, round(height * scale)), max(2, round(width * scale))


def network_for(dataset: DataSet, samples: int, *, on_gpu: bool) -> str:
    side = max(dataset.size)
    if dataset.task == "segmentation":
        return "deeplabv3_resnet50" if on_gpu and side > SMALL_SIDE else "tiny-resnet-fcn"
    if (side <= TINY_SIDE and (samples <= FEW_SAMPLES or not on_gpu)) or (side <= SMALL_SIDE and not on_gpu):
        return "tiny-resnet"
    return "resnet50" if on_gpu and side > SMALL_SIDE else "resnet18"


def passes(steps: int, samples: int, batch: int, least: int, most: int) -> int:
    return max(least, min(most, round(steps * max(batch, 1) / max(samples, 1))))


def power_of_two(value: int) -> int:
    return 1 << max(value, 1).bit_length() - 1


def free_memory() -> int:
    """Bytes that are free on the GPU, else on this machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def video_card(dataset: DataSet, network: str, frames: int) -> NetworkCard:
    """The network of a video of replicated frames, which costs as much as one of moved frames."""
    return network_card(
        dataset,
        dataset.name,
        arm_named("replicate"),
        network=network,
        temporal="tsm",
        policy=Policy.replicate(frames),
        architecture=NetworkConfig(),
    )


def activation_bytes(dataset: DataSet, network: str, frames: int) -> int:
    """Bytes of float32 that the layers of a video network put out for one image, and their gradients; an estimate.

    Nothing is computed: shapes alone go through the network.
    """
    card = video_card(dataset, network, frames)
    counted = 0

    def count(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal counted
        if isinstance(output, torch.Tensor):
            counted += 4 * output.numel()

    built = card.build_without_memory().eval().to("meta")
    with torch.device("meta"):
        hooks = [module.register_forward_hook(count) for module in built.modules() if not list(module.children())]
        with torch.no_grad():
            built(torch.empty(1, frames, card.channels, *card.size))
    for hook in hooks:
        hook.remove()
    return 2 * counted
