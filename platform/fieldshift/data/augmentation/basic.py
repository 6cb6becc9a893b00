"""The augmentation shared by all arms, for images and masks together: flips, and random crop and scale or resized crop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from fieldshift.data.augmentation.kernels import images_at_once
from fieldshift.data.split import IGNORE

LARGEST_RATIO = 4 / 3
"""Width to height of a random resized crop, and height to width: torchvision's default."""
ATTEMPTS = 10
"""Draws of a random resized crop before the largest central one is taken, as in torchvision."""


@dataclass(frozen=True, kw_only=True)
class BasicAugmentation:
    """Random shift (a crop of the padded image) and scale, or random resized crop; left-right flip.

    All draws depend on the seed alone.

    Attributes:
        flip: probability of a left-right flip, in [0, 1].
        crop: maximum distance of the crop from the centre, in pixels, horizontally and vertically.
        scale: largest factor of random scaling about the centre, in both directions; log-uniform. 1 keeps
            the size, and then no pixel is interpolated.
        resized_crop: smallest share of the area that torchvision's RandomResizedCrop keeps, in place of `crop` and `scale`;
            its largest is 1. 1 crops nothing.
        outside: mask value outside the image; images are black there.
    """

    flip: float = 0.0
    crop: int = 0
    scale: float = 1.0
    resized_crop: float = 1.0
    outside: int = IGNORE

    def __post_init__(self) -> None:
        if self.resized_crop < 1 and (self.crop > 0 or self.scale > 1):
            raise ValueError("resized_crop crops and scales in place of crop and scale; leave these out.")

    @property
    def is_nothing(self) -> bool:
        return self.flip == 0 and self.crop == 0 and self.scale == 1 and self.resized_crop == 1

    def __call__(
        self,
        images: UInt8[Tensor, "batch channels height width"],
        seed: int,
        masks: Int64[Tensor, "batch height width"] | None = None,
        *,
        part: tuple[int, int] | None = None,
    ) -> tuple[UInt8[Tensor, "batch channels height width"], Int64[Tensor, "batch height width"] | None]:
        """Images (B, C, H, W) and their masks under the same geometry; each seed gives different draws.

        `part` = (first, count) means that these are the images from number `first` of a batch of `count` that several
        workers share: each worker gets the same result as in the whole batch.
        """
        batch, _, height, width = images.shape
        if self.is_nothing or batch == 0:
            return images, masks
        generator = torch.Generator().manual_seed(seed)
        first, count = part or (0, batch)
        own = slice(first, first + batch)
        flips = (torch.rand(count, generator=generator) < self.flip)[own]
        if self.resized_crop < 1:
            top, left, high, wide = resized_crops((height, width), self.resized_crop, count, generator)[own].unbind(1)
            y, x = within(height, top, high, torch.zeros_like(flips)), within(width, left, wide, flips)
            return sampled(images, masks, y, x, self.outside)
        shifts = torch.randint(-self.crop, self.crop + 1, (count, 2), generator=generator)[own]
        if self.scale == 1:
            crop = partial(cropped, reach=self.crop, shifts=shifts, flips=flips)
            return crop(images, outside=0), None if masks is None else crop(masks[:, None], outside=self.outside)[:, 0]
        factors = torch.exp((2 * torch.rand(count, generator=generator)[own] - 1) * math.log(self.scale))
        y = source(height, shifts[:, 0], factors, torch.zeros_like(flips))
        return sampled(images, masks, y, source(width, shifts[:, 1], factors, flips), self.outside)


def sampled(
    images: Tensor,
    masks: Tensor | None,
    y: Float[Tensor, "batch height"],
    x: Float[Tensor, "batch width"],
    outside: int,
) -> tuple[Tensor, Tensor | None]:
    """The images at the source pixels (y, x), interpolated between neighbours, and the nearest labels of the masks."""
    y, x = y.to(images.device, non_blocking=True), x.to(images.device, non_blocking=True)
    moved, count = torch.empty_like(images), images_at_once(images)
    for start in range(0, len(images), count):
        part = slice(start, start + count)
        moved[part] = interpolated(images[part], y[part], x[part])
    if masks is None:
        return moved, None
    return moved, pick(masks[:, None], (y + 0.5).floor().long(), (x + 0.5).floor().long(), outside)[:, 0]


def interpolated(
    images: UInt8[Tensor, "batch channels height width"],
    y: Float[Tensor, "batch height"],
    x: Float[Tensor, "batch width"],
) -> Float[Tensor, "batch channels height width"]:
    """The images at the source pixels (y, x), in whole grey levels; black outside."""
    height, width = images.shape[-2:]
    grid = torch.stack(
        torch.broadcast_tensors((2 * x[:, None, :] + 1) / width - 1, (2 * y[:, :, None] + 1) / height - 1), -1
    )
    between = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return between.round_().clamp_(0, 255)


def resized_crops(
    size: tuple[int, int], smallest: float, count: int, generator: torch.Generator
) -> Float[Tensor, "count 4"]:
    """Boxes (top, left, height, width) as torchvision's RandomResizedCrop draws them, in whole pixels.

    The share of the area is uniform from `smallest` to 1, the ratio of the sides log-uniform from 3/4 to 4/3. An image
    without a box inside in ten draws gets the largest central one of these ratios.
    """
    height, width = size
    draws = torch.rand(4, count, ATTEMPTS, generator=generator, dtype=torch.float64)
    area = height * width * (smallest + (1 - smallest) * draws[0])
    ratio = torch.exp((2 * draws[1] - 1) * math.log(LARGEST_RATIO))
    high, wide = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (high > 0) & (high <= height) & (wide > 0) & (wide <= width)
    top, left = (draws[2] * (height - high + 1)).floor(), (draws[3] * (width - wide + 1)).floor()
    chosen = fits.int().argmax(1, keepdim=True)  # the first that fits
    boxes = torch.stack([top, left, high, wide], 2)[torch.arange(count), chosen[:, 0]]
    whole_high, whole_wide = min(height, round(width * LARGEST_RATIO)), min(width, round(height * LARGEST_RATIO))
    central = (
        float((height - whole_high) // 2),
        float((width - whole_wide) // 2),
        float(whole_high),
        float(whole_wide),
    )
    return torch.where(fits.any(1, keepdim=True), boxes, boxes.new_tensor(central)).float()


def within(
    side: int, first: Float[Tensor, " batch"], length: Float[Tensor, " batch"], flips: Tensor
) -> Float[Tensor, "batch side"]:
    """The source pixel of each output pixel along one axis, for the part of `length` pixels from `first` on."""
    place = torch.arange(side)
    place = torch.where(flips[:, None], side - 1 - place, place)
    inside = (place + 0.5) * (length / side)[:, None] - 0.5
    return first[:, None] + inside.clamp(min=0).minimum(length[:, None] - 1)


def cropped(values: Tensor, reach: int, shifts: Int64[Tensor, "batch 2"], flips: Tensor, outside: int) -> Tensor:
    """Values (B, C, H, W) shifted by `shifts` (down, right), each at most `reach`; then mirrored where `flips` is set."""
    height, width = values.shape[-2:]
    # A window is a view: only the pixels of the chosen one are copied, row by row.
    windows = F.pad(values, (reach,) * 4, value=outside).unfold(2, height, 1).unfold(3, width, 1)
    down, right = (shifts + reach).to(values.device, non_blocking=True).unbind(1)
    moved = windows[torch.arange(len(values), device=values.device), :, down, right]
    mirrored = flips.nonzero()[:, 0].to(values.device, non_blocking=True)
    moved[mirrored] = moved[mirrored].flip(-1)
    return moved


def source(
    side: int, shifts: Int64[Tensor, " batch"], factors: Float[Tensor, " batch"], flips: Tensor
) -> Float[Tensor, "batch side"]:
    """The source pixel of each output pixel along one axis."""
    middle = (side - 1) / 2
    place = torch.arange(side) - middle
    mirrored = torch.where(flips[:, None], -place, place)
    return mirrored / factors[:, None] + shifts[:, None] + middle


def pick(values: Tensor, y: Int64[Tensor, "batch height"], x: Int64[Tensor, "batch width"], outside: int) -> Tensor:
    """values[b, :, y[b], x[b]] as (B, C, H, W), with `outside` where y or x leave the image."""
    height, width = values.shape[-2:]
    rows = torch.arange(len(values), device=values.device)[:, None, None]
    picked = values.permute(0, 2, 3, 1)[rows, y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None, :]]
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    return picked.permute(0, 3, 1, 2).masked_fill(~inside[:, None], outside).contiguous()
