"""The augmentation shared by all arms: random crop, flip and scale of images and masks together, in one batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from fieldshift.data.split import IGNORE


@dataclass(frozen=True, kw_only=True)
class BasicAugmentation:
    """Random shift (a crop of the padded image), left-right flip and scale; all draws depend on the seed alone.

    Attributes:
        flip: probability of a left-right flip, in [0, 1].
        crop: maximum distance of the crop from the centre, in pixels, horizontally and vertically.
        scale: largest factor of random scaling about the centre, in both directions; log-uniform. 1 keeps
            the size, and then no pixel is interpolated.
        outside: mask value outside the image; images are black there.
    """

    flip: float = 0.0
    crop: int = 0
    scale: float = 1.0
    outside: int = IGNORE

    @property
    def is_nothing(self) -> bool:
        return self.flip == 0 and self.crop == 0 and self.scale == 1

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
        shifts = torch.randint(-self.crop, self.crop + 1, (count, 2), generator=generator)[own]
        if self.scale == 1:
            crop = partial(cropped, reach=self.crop, shifts=shifts, flips=flips)
            return crop(images, outside=0), None if masks is None else crop(masks[:, None], outside=self.outside)[:, 0]
        factors = torch.exp((2 * torch.rand(count, generator=generator)[own] - 1) * math.log(self.scale))
        y = source(height, shifts[:, 0], factors, torch.zeros_like(flips)).to(images.device, non_blocking=True)
        x = source(width, shifts[:, 1], factors, flips).to(images.device, non_blocking=True)
        grid = torch.stack(
            torch.broadcast_tensors((2 * x[:, None, :] + 1) / width - 1, (2 * y[:, :, None] + 1) / height - 1), -1
        )
        sampled = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        moved = sampled.round_().clamp_(0, 255).to(torch.uint8)
        if masks is None:
            return moved, None
        return moved, pick(masks[:, None], y.round().long(), x.round().long(), self.outside)[:, 0]


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
