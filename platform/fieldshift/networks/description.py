"""Describes a video network: parameters, FLOPs, inserted modules, and temporal reach."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fieldshift.networks.folded import motions_counted
from fieldshift.networks.insertion import Inserted, Placement
from fieldshift.networks.shift import MovedChannels
from fieldshift.networks.twin import twin
from fieldshift.networks.video import VideoNetwork
from fieldshift.wording import counted


def count_parameters(module: nn.Module) -> int:
    """The number of parameters of a module, each counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def flops_per_image(network: VideoNetwork, size: tuple[int, int]) -> int:
    """FLOPs of one forward pass for ONE image, including all its T frames, by torch's FlopCounterMode.

    `size` is (H, W) in pixels. A multiplication and an addition count as two; convolutions, matrix products, gates and the
    motions of a folded network are counted, other elementwise work and the computation of a video are not. Nothing is
    computed: only shapes are propagated through the network.
    """
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        try:
            return _counted(network, size, "meta")
        except (NotImplementedError, RuntimeError):  # an operation of the user's network needs values
            return _counted(network, size, next(network.parameters()).device)
    finally:
        for module, mode in training.items():
            module.training = mode


def _counted(network: VideoNetwork, size: tuple[int, int], device: torch.device | str) -> int:
    video = torch.zeros(1, network.frames, network.image_channels, *size, device=device)
    return count_flops(twin(network, device), video)


def count_flops(network: nn.Module, video: Tensor) -> int:
    """FLOPs of one forward pass, motions and gates included."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter, motions_counted(network) as moved:
        network(video)
    return int(counter.get_total_flops()) + moved()


def entry_of(placement: Placement, module: nn.Module) -> dict[str, Any]:
    """One inserted module, as plain values."""
    moved = module.moved
    assert isinstance(moved, MovedChannels)
    return {
        "module": type(module).__name__,
        "place": f"{'before' if placement.before else 'after'} {placement.path}",
        "channels": placement.channels,
        "moved": moved.width,
        "how": str(moved),
        "parameters": count_parameters(module),
    }


def describe(network: VideoNetwork, size: tuple[int, int]) -> dict[str, Any]:
    """All facts that a report gives about a network, for images of `size` (H, W) pixels, as plain values.

    Keys: name, task, temporal, frames, fusion, size, channels, classes, parameters, temporal_parameters,
    flops_per_image (all frames), flops_per_frame, temporal_reach (frames to a side, later ones only where
    sees_later_frames), feature_layer, inserted (a list of module, place, channels, moved, how, parameters), weights (one
    line, or None). `how` describes which of the channels are moved, and where the ratio had to be lowered to fit.
    """
    wrappers = [module for module in network.network.modules() if isinstance(module, Inserted)]
    temporal = {wrapper.path: wrapper.temporal for wrapper in wrappers}
    inserted = [entry_of(placement, temporal[placement.path]) for placement in network.placements]
    flops = flops_per_image(network, size)
    return {
        "name": network.name,
        "task": network.task,
        "temporal": network.temporal,
        "frames": network.frames,
        "fusion": network.fusion,
        "size": list(size),
        "channels": network.image_channels,
        "classes": network.num_classes,
        "parameters": count_parameters(network),
        "temporal_parameters": sum(entry["parameters"] for entry in inserted),
        "flops_per_image": flops,
        "flops_per_frame": flops // network.frames,
        "temporal_reach": network.temporal_reach,
        "sees_later_frames": network.sees_later_frames,
        "feature_layer": network.feature_layer,
        "inserted": inserted,
        "weights": network.weights_report.summary() if network.weights_report else None,
    }


def describe_lines(network: VideoNetwork, size: tuple[int, int]) -> list[str]:
    """`describe` as lines to print."""
    facts = describe(network, size)
    height, width = size
    side = "to either side" if facts["sees_later_frames"] else "back"
    lines = [
        f"{facts['name']} ({facts['task']}), temporal {facts['temporal']}, {counted(facts['frames'], 'frame')}, "
        f"{facts['fusion']}, {facts['classes']} classes",
        f"parameters {facts['parameters']:,}, of which temporal {facts['temporal_parameters']:,}",
        f"FLOPs per image {facts['flops_per_image'] / 1e9:.3f} G at {height} x {width} x {facts['channels']}, all frames",
        f"temporal reach {counted(facts['temporal_reach'], 'frame')} {side}, "
        f"{counted(len(facts['inserted']), 'module')} inserted",
        *(
            f"  {entry['module']} {entry['place']}, {entry['channels']} channels, {entry['how']}"
            for entry in facts["inserted"]
        ),
    ]
    if facts["weights"]:
        lines.append(f"weights {facts['weights']}")
    return lines
