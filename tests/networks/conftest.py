"""The temporal modules written out as loops over samples, frames and channels: slow and independent."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldshift.networks import GSF, GSM, TSM, TemporalConv


def slow_tsm(features: Tensor, frames: int, fold: int, both: bool) -> Tensor:
    """C // 8 channels from t + 1, C // 8 from t - 1 (only the latter where one-sided), zeros at the ends."""
    result = torch.zeros_like(features)
    for b in range(features.shape[0] // frames):
        for t in range(frames):
            for c in range(features.shape[1]):
                if both and c < fold:
                    source = t + 1
                elif c < (2 * fold if both else fold):
                    source = t - 1
                else:
                    source = t
                if 0 <= source < frames:
                    result[b * frames + t, c] = features[b * frames + source, c]
    return result


def slow_gate(module: GSM, gated: Tensor) -> Tensor:
    """tanh(Conv3d(ReLU(BatchNorm3d(x)))) by 3D operators on (B, F, T, H, W); the result is (B, T, 2, H, W)."""
    volume = gated.transpose(1, 2)
    norm = module.gate.norm
    running = (norm.running_mean, norm.running_var)
    volume = functional.batch_norm(
        volume,
        *((None, None) if module.training else running),
        norm.weight,
        norm.bias,
        training=module.training,
        eps=norm.eps,
    )
    weight = torch.zeros(2, module.width // 2, 3, 3, 3, dtype=gated.dtype)
    for half in range(2):
        for tap in range(3):
            weight[half, :, tap] = module.gate.taps.weight[3 * half + tap]
    volume = functional.conv3d(torch.relu(volume), weight, module.gate.bias, padding=1, groups=2)
    return torch.tanh(volume).transpose(1, 2)


def slow_gsm(module: GSM, features: Tensor) -> Tensor:
    """GSM and GSF by the definition in METHOD: every channel of every frame by itself."""
    frames, width = module.frames, module.width
    video = features.unflatten(0, (-1, frames))
    gates = slow_gate(module, video[:, :, :width])
    batch = video.shape[0]
    y, r = torch.zeros_like(video[:, :, :width]), torch.zeros_like(video[:, :, :width])
    for b in range(batch):
        for t in range(frames):
            for c in range(width):
                y[b, t, c] = gates[b, t, 0 if c < width // 2 else 1] * video[b, t, c]
                r[b, t, c] = video[b, t, c] - y[b, t, c]
    moved = torch.zeros_like(y)
    for b in range(batch):
        for t in range(frames):
            for c in range(width):
                source = t + 1 if c < width // 2 else t - 1
                if 0 <= source < frames:
                    moved[b, t, c] = y[b, source, c]
    mixed = moved + r
    if isinstance(module, GSF):
        mixed = slow_weighting(module, moved, r)
    result = video.clone()
    quarter = width // 4
    for c in range(width):
        half, within = divmod(c, width // 2)
        target = half * (width // 2) + 2 * (within % quarter) + within // quarter if module.interleave else c
        result[:, :, target] = mixed[:, :, c]
    return result.flatten(0, 1)


def slow_weighting(module: GSF, moved: Tensor, r: Tensor) -> Tensor:
    """w * moved + (1 - w) * r, w from the (channel x time) map of means of the pair, for each half by itself."""
    batch, frames, width = moved.shape[:3]
    mixed = torch.zeros_like(moved)
    for half in range(2):
        kernel, bias = module.weigh.weight[half : half + 1], module.weigh.bias[half : half + 1]
        for b in range(batch):
            plane = torch.zeros(2, width // 2, frames, dtype=moved.dtype)
            for c in range(width // 2):
                for t in range(frames):
                    plane[0, c, t] = moved[b, t, half * width // 2 + c].mean()
                    plane[1, c, t] = r[b, t, half * width // 2 + c].mean()
            weight = torch.sigmoid(functional.conv2d(plane[None], kernel, bias, padding=1))[0, 0]
            for c in range(width // 2):
                channel = half * width // 2 + c
                for t in range(frames):
                    mixed[b, t, channel] = weight[c, t] * moved[b, t, channel] + (1 - weight[c, t]) * r[b, t, channel]
    return mixed


def slow_conv3d(module: TemporalConv, features: Tensor) -> Tensor:
    """torch's own Conv3d with a 3x1x1 kernel, taps t-1, t, t+1."""
    following, previous, own = module.taps.weight.split(module.channels, dim=1)
    weight = torch.stack([previous, own, following], dim=2)  # (C, C, 3, 1, 1)
    volume = features.unflatten(0, (-1, module.frames)).transpose(1, 2)
    return functional.conv3d(volume, weight, padding=(1, 0, 0)).transpose(1, 2).flatten(0, 1)


def transcription(module: nn.Module, features: Tensor) -> Tensor:
    """The result of a module of the registry, computed slowly."""
    if isinstance(module, TSM):
        return slow_tsm(features, module.frames, module.fold, module.direction == "both")
    if isinstance(module, GSM):
        return slow_gsm(module, features)
    if isinstance(module, TemporalConv):
        return slow_conv3d(module, features)
    assert isinstance(module, nn.Identity)
    return features


@pytest.fixture(scope="session")
def slow() -> Callable[[nn.Module, Tensor], Tensor]:
    """(module, rows) -> rows: the independent reference for every temporal module."""
    return transcription
