"""The receptive field by brute force: which pixels have a gradient at one unit, when all weights are positive.

Slow and clipped to the image, but it believes nothing about the network's structure: the tests hold the theory against
it, and the theory falls back to it.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.receptive_field.theory import LayerField, check_layers, detached, outside_map

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


class _ReachedError(Exception):
    """Ends a forward pass at the layer that was wanted."""


@dataclass(frozen=True, kw_only=True)
class Support:
    """The pixels that one unit depends on.

    mask (H, W): where the gradient is not zero, over all channels and frames. box: top, left, bottom, right, included.
    frames: first and last frame with a gradient; (0, 0) for images. unit, map_size: where the unit is in which map.
    """

    mask: Bool[Tensor, "height width"]
    box: tuple[int, int, int, int]
    frames: tuple[int, int]
    unit: tuple[int, int]
    map_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the box, in pixels."""
        return self.box[2] - self.box[0] + 1, self.box[3] - self.box[1] + 1


def positive_copy(module: nn.Module, seed: int = 0) -> nn.Module:
    """A copy in double precision whose every path carries a positive gradient: positive weights, averages for maxima.

    Weights are drawn in [0.5, 1.5] / fan-in so that activations stay near their input; batch normalisation becomes the
    identity and other normalisations lose their scales; max pooling becomes average pooling of the same window, since a
    maximum passes the gradient to one pixel, and activations that saturate (ReLU6, hard sigmoid) become ones that do
    not.
    """
    twin = copy.deepcopy(module).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for part in twin.modules():
        for name, parameter in part.named_parameters(recurse=False):
            fan_in = max(parameter[0].numel(), 1) if parameter.dim() > 1 else 1
            drawn = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) + 0.5
            parameter.data = (drawn / fan_in).to(parameter.device)
            if isinstance(part, _NORMS):
                parameter.data.fill_(1.0 if name == "weight" else 0.0)
            elif name == "bias":
                parameter.data.zero_()
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.reset_running_stats()
        for name, child in list(part.named_children()):
            if isinstance(child, (nn.ReLU6, nn.Hardtanh)):
                setattr(part, name, nn.ReLU())
            elif isinstance(child, nn.Hardsigmoid):
                setattr(part, name, nn.Sigmoid())
            elif isinstance(child, nn.MaxPool2d) and child.dilation in (1, (1, 1)):
                shape: tuple[Any, ...] = (child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(part, name, nn.AvgPool2d(*shape))
    return twin.requires_grad_(False)


def probe(
    module: nn.Module, example: Tensor, layer: str, unit: tuple[int, int] | None = None, *, positive: bool = True
) -> Support:
    """The pixels that unit `unit` of `layer` depends on, found by taking a gradient of 1 back to the input.

    example: (1, C, H, W) or (1, T, C, H, W), only its shape and device matter. unit: (row, column), the centre
    (height // 2, width // 2) by default; for a video the unit is taken in the middle frame T // 2. positive=False
    probes the network as it is, where dead units and cancelling paths can hide part of the field.
    Raises UserError for an unknown layer, a layer without a map, and a unit outside the map.
    """
    check_layers(module, [layer])
    twin = positive_copy(module) if positive else module
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(example.shape, generator=generator, dtype=torch.float64) * 0.5 + 0.1
    pixels = pixels.to(example.device, torch.float64 if positive else example.dtype).requires_grad_(True)
    kept: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        del args
        kept.append(output)
        raise _ReachedError

    handle = twin.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.enable_grad(), contextlib.suppress(_ReachedError):
            twin(pixels)
    finally:
        handle.remove()
    if not kept or not isinstance(kept[0], Tensor) or kept[0].dim() < 4:
        raise UserError(f"Layer '{layer}' gives no map (B, C, H, W) of units; choose a convolution or a block.")
    features = kept[0].reshape(-1, *kept[0].shape[-3:])
    height, width = features.shape[-2:]
    row, column = (height // 2, width // 2) if unit is None else unit
    if not (0 <= row < height and 0 <= column < width):
        raise outside_map((row, column), (height, width), layer)
    at_unit = features[len(features) // 2, :, row, column].sum()
    if not at_unit.requires_grad:
        raise detached(layer)
    (gradient,) = torch.autograd.grad(at_unit, pixels)
    return _support(gradient, layer, (row, column), (height, width))


def _support(gradient: Tensor, layer: str, unit: tuple[int, int], map_size: tuple[int, int]) -> Support:
    seen = gradient[0] != 0
    if not bool(seen.any()):
        raise UserError(
            f"The gradient of layer '{layer}' is zero at every pixel: the layer does not depend on the image."
        )
    mask = seen.flatten(0, -3).any(dim=0)
    rows, columns = torch.nonzero(mask.any(dim=1)).flatten(), torch.nonzero(mask.any(dim=0)).flatten()
    frames = torch.nonzero(seen.flatten(1).any(dim=1)).flatten() if gradient.dim() == 5 else torch.zeros(1)
    return Support(
        mask=mask,
        box=(int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1])),
        frames=(int(frames[0]), int(frames[-1])),
        unit=unit,
        map_size=map_size,
    )


def probe_layers(module: nn.Module, example: Tensor, layers: Sequence[str] | None, note: str) -> list[LayerField]:
    """The layers asked for (by default the last one that gives a map), measured by the probe.

    Stride and offset come from a second probe one unit further; near the border both are clipped to the image.
    """
    names = list(layers) if layers is not None else [last_map(module, example)]
    return [_probed(module, example, name, note) for name in names]


def _probed(module: nn.Module, example: Tensor, name: str, note: str) -> LayerField:
    centre = probe(module, example, name)
    row, column = centre.unit
    next_row, next_column = max(row - 1, 0), max(column - 1, 0)
    other = probe(module, example, name, (next_row, next_column))
    stride = (
        float(centre.box[2] - other.box[2]) / max(row - next_row, 1),
        float(centre.box[3] - other.box[3]) / max(column - next_column, 1),
    )
    whole = centre.size == (example.shape[-2], example.shape[-1])
    frames = example.shape[1] if example.dim() == 5 else 1
    middle = frames // 2
    clipped = "; it covers the whole image, so it is at least this large" if whole else ""
    top, left, bottom, right = centre.box
    shifts = [
        [round((i - unit) * step) for i in range(n)]
        for n, unit, step in zip(centre.map_size, (row, column), stride, strict=True)
    ]
    rows = tuple((top + shift, bottom + shift) for shift in shifts[0])
    columns = tuple((left + shift, right + shift) for shift in shifts[1])
    back, ahead = middle - centre.frames[0], centre.frames[1] - middle
    return LayerField(
        name=name,
        kind=type(module.get_submodule(name)).__name__,
        size=centre.size,
        stride=stride if min(stride) > 0 else None,
        start=(rows[0][0], columns[0][0]),
        map_size=centre.map_size,
        temporal_reach=max(back, ahead),
        frames_seen=tuple((max(t - back, 0), min(t + ahead, frames - 1)) for t in range(frames)),
        rows=rows,
        columns=columns,
        method="probe",
        note=note + clipped,
    )


def last_map(module: nn.Module, example: Tensor) -> str:
    """The name of the last layer to finish whose output is a map (B, C, H, W) larger than one unit."""
    found: list[str] = []
    handles = []
    for name, part in module.named_modules():

        def note(_: nn.Module, args: tuple[Any, ...], output: Any, name: str = name) -> None:
            del args
            if name and isinstance(output, Tensor) and output.dim() == 4 and output.shape[-2] * output.shape[-1] > 1:
                found.append(name)

        handles.append(part.register_forward_hook(note))
    try:
        was_training = module.training
        with torch.no_grad():
            module.eval()(example)
        module.train(was_training)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise UserError("No layer of the network gives a map (B, C, H, W) larger than one unit; name a layer.")
    return found[-1]
