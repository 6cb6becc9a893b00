"""The receptive field by brute force: the pixels with a gradient at one unit, with all weights positive.

Slow and clipped to the image, but it assumes nothing about the network's structure: tests compare the theory with
it. Where a maximum cannot be replaced by an average, it shows a part of the field.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.receptive_field.examples import check_layers, check_unit, detached, first_line, initialised

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


class _ReachedError(Exception):
    """Ends a forward pass at the requested layer."""


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
    """A copy in double precision in which every path has a positive gradient: positive weights, averages for maxima.

    Weights are drawn in [0.5, 1.5] / fan-in so that activations stay near their input; batch normalisation becomes the
    identity and other normalisations lose their scales; max pooling becomes average pooling of the same window, since a
    maximum passes the gradient to one pixel, and activations that saturate (ReLU6, hard sigmoid) are replaced by ones that do
    not.
    """
    try:
        twin = copy.deepcopy(module).double().eval()
    except Exception as error:
        raise UserError(
            f"The network cannot be copied ({first_line(error)}), which a probe with positive weights requires; probe it "
            "unchanged with positive=False."
        ) from error
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
            elif isinstance(child, nn.MaxPool2d) and child.dilation in (1, (1, 1)) and not child.return_indices:
                shape: tuple[Any, ...] = (child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(part, name, nn.AvgPool2d(*shape))
            elif isinstance(child, nn.AdaptiveMaxPool2d) and not child.return_indices:
                setattr(part, name, nn.AdaptiveAvgPool2d(child.output_size))
    return twin.requires_grad_(False)


def probe(
    module: nn.Module, example: Tensor, layer: str, unit: tuple[int, int] | None = None, *, positive: bool = True
) -> Support:
    """The pixels that unit `unit` of `layer` depends on, found by propagating a gradient of 1 back to the input.

    example: (1, C, H, W) or (1, T, C, H, W); only its shape and device matter. unit: (row, column), the centre
    (height // 2, width // 2) by default; for a video the unit is taken in the middle frame T // 2. positive=False
    probes the unchanged network, in which dead units and cancelling paths can hide part of the field.
    Raises UserError for an unknown layer, a layer without a map, and a unit outside the map.
    """
    module = initialised(module, example)
    check_layers(module, [layer])
    twin = positive_copy(module) if positive else module
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(example.shape, generator=generator, dtype=torch.float64) * 0.5 + 0.1
    pixels = pixels.to(example.device, torch.float64 if positive else example.dtype).requires_grad_(True)
    outputs: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        del args
        outputs.append(output)
        raise _ReachedError

    handle = twin.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.enable_grad(), contextlib.suppress(_ReachedError):
            twin(pixels)
    finally:
        handle.remove()
    if not outputs or not isinstance(outputs[0], Tensor) or outputs[0].dim() < 4:
        raise UserError(
            f"Layer '{layer}' does not output a map (B, C, H, W) of units; choose a convolution or a block."
        )
    features = outputs[0].reshape(-1, *outputs[0].shape[-3:])
    height, width = features.shape[-2:]
    row, column = (height // 2, width // 2) if unit is None else unit
    check_unit((row, column), (height, width), layer)
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
