"""Torchvision's colour ops on a batch with one magnitude per image, bit for bit as applied per image.

Every op takes images (B, C, H, W) uint8 with C 1 or 3 and magnitudes (B,) float64 in the units of torchvision's
augmentation spaces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float64, Real, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional

# Torchvision's re-exports are not visible to strict type checkers.
F: Any = functional

Images = UInt8[Tensor, "batch channels height width"]
Sizes = Float64[Tensor, " batch"]


def column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def blended(images: Images, others: Real[Tensor, "batch ..."], factor: Sizes) -> Images:
    """images * factor + others * (1 - factor), rounded as in torchvision and truncated to whole numbers.

    Torch multiplies and adds with a single rounding, both weights in single precision; double precision gives the same.
    """
    own = (images * column(factor).float()).double()
    rest = column(1.0 - factor).float().double()
    return (own + others.double() * rest).float().clamp_(0, 255).to(torch.uint8)


def brighten(images: Images, sizes: Sizes) -> Images:
    return (images * column(1.0 + sizes).float()).clamp_(0, 255).to(torch.uint8)


def saturate(images: Images, sizes: Sizes) -> Images:
    if images.shape[1] == 1:
        return images
    return blended(images, F.rgb_to_grayscale(images), 1.0 + sizes)


def contrast(images: Images, sizes: Sizes) -> Images:
    mean = F.rgb_to_grayscale(images).float().mean((1, 2, 3), keepdim=True)
    return blended(images, mean, 1.0 + sizes)


def sharpen(images: Images, sizes: Sizes) -> Images:
    """Sharpens with torchvision's 3 x 3 convolution as integer sums, several times faster.

    The sums are exact, and a thirteenth of a whole number is never half way between two: rounding gives the same.
    """
    if min(images.shape[-2:]) <= 2:
        return images
    values = images.float()
    rows = values[..., :-2, :] + values[..., 1:-1, :] + values[..., 2:, :]
    inner = values[..., 1:-1, 1:-1]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + inner * 4
    change = total.div_(13).round_().sub_(inner).double()
    inner.copy_(inner.double() + change * column(-sizes).float().double())
    return values.clamp_(0, 255).to(torch.uint8)


def posterize(images: Images, sizes: Sizes) -> Images:
    kept = torch.tensor([(0xFF << (8 - int(bits))) & 0xFF for bits in sizes.tolist()], dtype=torch.uint8)
    return images & column(kept.to(images.device))


def solarize(images: Images, sizes: Sizes) -> Images:
    return torch.where(images >= column(255 * sizes).float(), ~images, images)


COLOURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Brightness": brighten,
    "Color": saturate,
    "Contrast": contrast,
    "Sharpness": sharpen,
    "Posterize": posterize,
    "Solarize": solarize,
    "AutoContrast": lambda images, sizes: F.autocontrast(images),  # noqa: ARG005 - one signature for all ops
    "Equalize": lambda images, sizes: F.equalize(images),  # noqa: ARG005
    "Invert": lambda images, sizes: ~images,  # noqa: ARG005
}
ADJUSTED: dict[str, Callable[[Tensor, float], Tensor]] = {
    "Brightness": F.adjust_brightness,
    "Color": lambda image, factor: image if image.shape[-3] == 1 else F.adjust_saturation(image, factor),
    "Contrast": F.adjust_contrast,
}
"""Torchvision's own ops of one factor, which are faster where all images have the same one."""
