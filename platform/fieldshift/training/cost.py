"""What a network and a run cost: parameters, floating-point operations, device-hours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fieldshift.networks.folded import motions_counted

# One training step costs a forward pass and about twice that backwards (gradients of inputs and of weights).
BACKWARD_FACTOR = 3


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """The cost of one network on one image.

    Attributes:
        parameters: number of learned values.
        flops: floating-point operations of one forward pass over one image (all its frames), a multiply-add counted
            as two, by torch's FlopCounterMode: convolutions, matrix products and the motions of a folded network; a video's
            motions and shifts are not in it.
    """

    parameters: int
    flops: int


def network_cost(network: nn.Module, frames: int, channels: int, size: tuple[int, int]) -> NetworkCost:
    """Counts on a copy-free forward pass in evaluation mode, without touching any buffer. `size` is (H, W) in pixels."""
    first = next(network.parameters())
    video = torch.zeros(1, frames, channels, *size, device=first.device, dtype=first.dtype)
    training = network.training
    counter = FlopCounterMode(display=False)
    network.eval()
    try:
        with torch.no_grad(), counter, motions_counted(network) as moved:
            network(video)
    finally:
        network.train(training)
    return NetworkCost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        flops=counter.get_total_flops() + moved(),
    )


def equal_compute_epochs(epochs: int, flops: int, flops_to_spend: int) -> int:
    """How many epochs a network of `flops` an image trains to spend what one of `flops_to_spend` does in `epochs`."""
    return max(1, round(epochs * flops_to_spend / flops))


def device_hours(seconds: float, devices: int) -> float:
    """Hours of one device, summed over devices (one CPU core or one GPU is a device)."""
    return seconds * max(1, devices) / 3600
