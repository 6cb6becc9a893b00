"""A split, a network and a plan small enough to be trained in a test."""

from __future__ import annotations

import torch

from fieldshift.data import TensorSplit
from fieldshift.motions import Policy
from fieldshift.networks import VideoNetwork, video_network
from fieldshift.training import FramePlan

CLASSES = 3


def toy_split(count: int = 48, masks: bool = False) -> TensorSplit:
    """Bright squares whose place is the class: something that a network can learn in a few steps."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 40, (count, 1, 20, 20), generator=generator, dtype=torch.uint8)
    targets = torch.arange(count) % CLASSES
    dense = torch.zeros(count, 20, 20, dtype=torch.uint8)
    for index, target in enumerate(targets):
        columns = slice(6 * int(target), 6 * int(target) + 5)
        images[index, 0, 6:12, columns] = 230
        dense[index, 6:12, columns] = int(target)
    return TensorSplit(images, targets, dense) if masks else TensorSplit(images, targets)


def toy_network(frames: int, temporal: str = "tsm", seed: int = 0) -> VideoNetwork:
    torch.manual_seed(seed)
    return video_network("tiny-resnet", temporal=temporal, frames=frames, num_classes=CLASSES, in_channels=1)


def plan_of(policy: Policy | None = None, **settings: object) -> FramePlan:
    return FramePlan(policy=policy, mean=(0.2,), std=(0.2,), **settings)  # type: ignore[arg-type]


MOVED = Policy.single("translate_x", 0.3, frames=3)
