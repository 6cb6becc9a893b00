"""All layers of torch.nn that accept maps (B, C, H, W), found by inspecting torch.nn and drawn with random settings.

A layer new in torch is included automatically if its arguments have known names; otherwise `layers` raises AssertionError,
and an entry in `VALUES` or in `NO_MAPS` resolves it.
"""

from __future__ import annotations

import copy
import functools
import inspect
import random
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Shape: TypeAlias = tuple[int, ...]
_TRIES = 60


class UnpoolingPair(nn.Module):
    """A pooling and its unpooling, which reads the positions of the maxima, with a layer between them."""

    def __init__(self, kernel_size: int, stride: int, between: nn.Module | None = None) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(kernel_size, stride, return_indices=True)
        self.between = between or nn.Identity()
        self.unpool = nn.MaxUnpool2d(kernel_size, stride)

    def forward(self, features: Tensor) -> Tensor:
        pooled, positions = self.pool(features)
        unpooled: Tensor = self.unpool(self.between(pooled), positions, output_size=features.shape[-2:])
        return unpooled


def _divisor(rng: random.Random, number: int) -> int:
    return rng.choice([n for n in range(1, number + 1) if number % n == 0])


# Possible values of an argument of this name, for features of shape (B, C, H, W).
VALUES: dict[str, Callable[[random.Random, Shape], Any]] = {
    **dict.fromkeys(("in_channels", "num_features", "num_channels", "num_parameters"), lambda _, shape: shape[1]),
    "out_channels": lambda rng, __: rng.choice([2, 4]),
    "in_features": lambda _, shape: shape[3],
    "out_features": lambda rng, shape: rng.choice([shape[3], 12]),
    "kernel_size": lambda rng, __: rng.choice([1, 2, 3, (1, 3), (3, 2)]),
    "normalized_shape": lambda rng, shape: list(shape[rng.choice([1, 2, 3]) :]),
    "groups": lambda rng, shape: _divisor(rng, shape[1]),
    "num_groups": lambda rng, shape: _divisor(rng, shape[1]),
    "norm_type": lambda rng, __: rng.choice([1.0, 2.0]),
    "output_size": lambda rng, shape: rng.choice([1, 5, 9, (7, 1), shape[2:]]),
    "output_ratio": lambda _, __: 0.6,
    "scale_factor": lambda rng, __: rng.choice([2, 3, 1.5]),
    "upscale_factor": lambda _, __: 2,
    "downscale_factor": lambda _, __: 2,
    "padding": lambda rng, __: rng.choice([1, 2]),
    "size": lambda rng, __: rng.choice([2, 3]),
    "threshold": lambda _, __: 0.1,
    "value": lambda _, __: 0.5,
    "dim": lambda rng, __: rng.choice([1, 2, 3]),
    "unflattened_size": lambda _, shape: (1, shape[1]),
}
# Optional arguments, given half of the time.
OPTIONAL: dict[str, Callable[[random.Random, Shape], Any]] = {
    "stride": lambda rng, __: rng.choice([1, 2, 3]),
    "padding": lambda rng, __: rng.choice([0, 1]),
    "dilation": lambda rng, __: rng.choice([1, 2]),
    "groups": lambda rng, shape: _divisor(rng, shape[1]),
    "padding_mode": lambda rng, __: rng.choice(["zeros", "reflect", "replicate", "circular"]),
    "ceil_mode": lambda rng, __: rng.random() < 0.5,
    "affine": lambda rng, __: rng.random() < 0.5,
    "track_running_stats": lambda rng, __: rng.random() < 0.5,
    "scale_factor": VALUES["scale_factor"],
    "output_ratio": VALUES["output_ratio"],
    "mode": lambda rng, __: rng.choice(["nearest", "bilinear", "bicubic", "nearest-exact", "area"]),
    "dim": VALUES["dim"],
}

_OTHERS = {
    "is a base class": "Container Module RNNBase RNNCellBase",
    "holds other modules": "DataParallel ModuleDict ModuleList ParameterDict ParameterList Sequential",
    "reads (B, C, L)": "AdaptiveAvgPool1d AdaptiveMaxPool1d AvgPool1d BatchNorm1d CircularPad1d Conv1d ConvTranspose1d "
    "Dropout1d Fold InstanceNorm1d LPPool1d LazyBatchNorm1d LazyConv1d LazyConvTranspose1d LazyInstanceNorm1d MaxPool1d "
    "MaxUnpool1d ReflectionPad1d ReplicationPad1d",
    "reads (B, C, D, H, W)": "BatchNorm3d Conv3d ConvTranspose3d InstanceNorm3d LazyBatchNorm3d LazyInstanceNorm3d "
    "MaxUnpool3d",
    "reads vectors, sequences or indices": "AdaptiveLogSoftmaxWithLoss Embedding EmbeddingBag GRU GRUCell LSTM LSTMCell "
    "MultiheadAttention RNN RNNCell Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder "
    "TransformerEncoderLayer",
    "reads two tensors": "BCELoss BCEWithLogitsLoss Bilinear CTCLoss CosineEmbeddingLoss CosineSimilarity CrossEntropyLoss "
    "GaussianNLLLoss HingeEmbeddingLoss HuberLoss KLDivLoss L1Loss LinearCrossEntropyLoss MSELoss MarginRankingLoss "
    "MultiLabelMarginLoss MultiLabelSoftMarginLoss MultiMarginLoss NLLLoss NLLLoss2d PairwiseDistance PoissonNLLLoss "
    "SmoothL1Loss SoftMarginLoss TripletMarginLoss TripletMarginWithDistanceLoss",
}
NO_MAPS: dict[str, str] = {name: reason for reason, names in _OTHERS.items() for name in names.split()}
"""The reason why the other classes of torch.nn do not accept a single map."""

# Layers that a plain call of the class does not build.
_MADE: dict[str, Callable[[random.Random, Shape], nn.Module]] = {
    "MaxUnpool2d": lambda rng, __: UnpoolingPair(2, rng.choice([1, 2, 3])),
    "Unflatten": lambda _, shape: nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (shape[2], shape[3]))),
}


def classes() -> dict[str, type[nn.Module]]:
    """Every module class that torch.nn exports, by name."""
    found = {name: getattr(nn, name) for name in dir(nn)}
    return {n: c for n, c in found.items() if inspect.isclass(c) and issubclass(c, nn.Module)}


@functools.cache
def layers() -> tuple[str, ...]:
    """The names of the layers that accept maps. Raises AssertionError for unclassified layers."""
    taken: list[str] = []
    unsettled: list[str] = []
    for name in classes():
        if name in NO_MAPS:
            continue
        drawn = draw(random.Random(0), name, (1, 4, 12, 12))
        (unsettled if drawn is None else taken).append(name)
    assert not unsettled, f"torch.nn has layers that are not classified: {', '.join(unsettled)}"
    return tuple(taken)


def draw(rng: random.Random, name: str, shape: Shape) -> nn.Module | None:
    """A layer of this name in double precision that runs on features of `shape`; None if no settings fit."""
    for _ in range(_TRIES):
        try:
            layer = _built(rng, name, shape).double().eval()
            if isinstance(output_of(layer, shape), Tensor):
                return layer
        except Exception:  # incompatible settings, or not a layer for maps
            continue
    return None


def output_of(layer: nn.Module, shape: Shape) -> Any:
    """The output of a copy of the layer for random features of `shape`."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        return copy.deepcopy(layer)(torch.rand(shape, dtype=torch.float64))


def _built(rng: random.Random, name: str, shape: Shape) -> nn.Module:
    if name in _MADE:
        return _MADE[name](rng, shape)
    kind = classes()[name]
    given: dict[str, Any] = {}
    for key, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is parameter.empty:
            given[key] = VALUES[key](rng, shape)
        elif key in OPTIONAL and rng.random() < 0.5:
            given[key] = OPTIONAL[key](rng, shape)
    return kind(**given)
