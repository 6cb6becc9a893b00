"""A video network and its folded form with the same weights."""

from __future__ import annotations

import torch
from torch import Tensor

from fieldshift.folding import motions_of
from fieldshift.motions import Policy
from fieldshift.networks import VideoNetwork, video_network


def pair(policy: Policy, temporal: str = "tsm", **options: object) -> tuple[VideoNetwork, VideoNetwork]:
    """A video network and the folded one with the same weights, batch statistics and open gates, in float64."""
    torch.manual_seed(0)
    settings = {"temporal": temporal, "num_classes": 5, **options}
    video = video_network("tiny-resnet", frames=policy.frames, **settings).double().eval()  # type: ignore[arg-type]
    for name, tensor in video.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if "running_var" in name else tensor.normal_(0, 0.3)
    folded = video_network("tiny-resnet", frames=1, motions=motions_of(policy), **settings)  # type: ignore[arg-type]
    folded.double().eval().load_state_dict(video.state_dict())
    return video, folded


def last_map(network: VideoNetwork, video: Tensor) -> Tensor:
    """The last map of every frame, (T, C, H, W)."""
    maps: list[Tensor] = []
    handle = network.get_submodule(network.feature_layer).register_forward_hook(lambda *call: maps.append(call[2]))
    with torch.no_grad():
        network(video)
    handle.remove()
    return maps[0]
