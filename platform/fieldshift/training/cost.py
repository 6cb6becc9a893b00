"""The cost of a network and of a run: parameters, floating-point operations, device-hours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fieldshift.motions import Policy
from fieldshift.networks.description import count_flops, count_parameters

# One training step costs a forward pass and about twice that backwards (gradients of inputs and of weights).
BACKWARD_FACTOR = 3


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """The cost of one network on one image.

    Attributes:
        parameters: number of learned values.
        flops: floating-point operations of one forward pass over one image (all its frames), where a multiply-add counts
            as two: convolutions and matrix products by torch's FlopCounterMode, plus the multiplications and additions of
            motions (of a video or folded) and gates. A shift only moves numbers; activations, normalisation and 2D
            augmentations are not counted.
    """

    parameters: int
    flops: int


def network_cost(
    network: nn.Module, frames: int, channels: int, size: tuple[int, int], policy: Policy | None = None
) -> NetworkCost:
    """Counts on a copy-free forward pass in evaluation mode, without changing any buffer. `size` is (H, W) in pixels.

    `policy` produces the video, or the augmented image, that the network reads.
    """
    first = next(network.parameters())
    video = torch.zeros(1, frames, channels, *size, device=first.device, dtype=first.dtype)
    training = network.training
    network.eval()
    try:
        flops = count_flops(network, video)
    finally:
        network.train(training)
    return NetworkCost(
        parameters=count_parameters(network),
        flops=flops + (0 if policy is None else policy.flops(size, channels)),
    )


def equal_compute_epochs(epochs: int, flops: int, flops_to_spend: int) -> int:
    """Epochs for a network of `flops` per image to spend the compute of one of `flops_to_spend` in `epochs`."""
    return max(1, round(epochs * flops_to_spend / flops))


def images_per_epoch(samples: int, batch: int) -> int:
    """Number of images per epoch: whole batches, or all images if there are fewer than one batch."""
    return samples // batch * batch or samples


def device_hours(seconds: float, devices: int) -> float:
    """Hours of one device, summed over devices (one CPU core or one GPU is a device)."""
    return seconds * max(1, devices) / 3600
