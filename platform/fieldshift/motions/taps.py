"""The image pixels that each output pixel reads, and their weights.

Conventions as in `fieldshift.motions.warp`. Points are computed in float64 where matrices are.
Shape letters: B batch, F frames of the input, T frames of the output, M matrices, H, W.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fieldshift.motions.matrices import are_identities, invert
from fieldshift.motions.pixel_map import PixelMap, cut

Share = tuple[float, int, int]
"""A term of an output frame: its weight, the index of its input frame, the index of its matrix."""
Mixture = tuple[tuple[Share, ...], ...]
"""The terms of every output frame."""


@dataclass(frozen=True)
class Lookup:
    """Settings for reading pixels: `mode` bilinear or nearest, `padding` zeros, border or reflection.

    With `background`, pixels outside have the plane's own background, its pixel number H * W, instead of zero.
    """

    padding: str
    mode: str
    background: bool = False


def source_points(matrices: Tensor, size: tuple[int, int]) -> Tensor:
    """The points (x, y) that output pixels read, in pixels about the centre: (M, 2, 3) -> (M, 2, H, W)."""
    height, width = size
    x = torch.arange(width, dtype=matrices.dtype, device=matrices.device) - (width - 1) / 2
    y = torch.arange(height, dtype=matrices.dtype, device=matrices.device) - (height - 1) / 2
    a, b, t = invert(matrices)[..., None, None].unbind(2)
    return a * x + b * y[:, None] + t


def normalised(points: Tensor) -> Tensor:
    """Points (M, 2, H, W) as the grid (M, H, W, 2) of `grid_sample(..., align_corners=False)`."""
    height, width = points.shape[-2:]
    return torch.stack([points[:, 0] * (2 / width), points[:, 1] * (2 / height)], dim=-1)


def copied(matrices: Tensor, mixture: Mixture) -> list[int | None]:
    """The input frame that every output frame equals, or None where it must be sampled."""
    identities = are_identities(matrices.detach()).tolist()
    return [
        terms[0][1] if len(terms) == 1 and terms[0][0] == 1 and identities[terms[0][2]] else None for terms in mixture
    ]


def _folded(points: Tensor, side: int, padding: str) -> Tensor:
    """Coordinates (0 is the first pixel's centre) mapped into the image according to the padding."""
    if padding == "reflection":  # mirrors at -1/2 and side - 1/2
        turned = torch.remainder(points + 0.5, 2 * side)
        points = torch.minimum(turned, 2 * side - turned) - 0.5
    return points if padding == "zeros" else points.clamp(0, side - 1)


def pixels_read(points: Tensor, padding: str, mode: str) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels read by points (M, 2, H, W) about the centre: (M, H * W, taps), whether they are inside, and weights.

    The weights are differentiable in the points.
    """
    height, width = points.shape[-2:]
    x = _folded(points[:, 0].flatten(1) + (width - 1) / 2, width, padding)
    y = _folded(points[:, 1].flatten(1) + (height - 1) / 2, height, padding)
    if mode == "nearest":
        corners = [(x.round(), y.round(), torch.ones_like(x))]
    else:
        left, top = x.floor(), y.floor()
        right_share, low_share = x - left, y - top
        corners = [
            (left, top, (1 - right_share) * (1 - low_share)),
            (left + 1, top, right_share * (1 - low_share)),
            (left, top + 1, (1 - right_share) * low_share),
            (left + 1, top + 1, right_share * low_share),
        ]
    columns, lines, weights = (torch.stack(part, dim=-1) for part in zip(*corners, strict=True))
    inside = (columns >= 0) & (columns < width) & (lines >= 0) & (lines < height)
    pixels = lines.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    return pixels.long(), inside, weights


def nearest_pixels(matrices: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The image pixel that every output pixel shows, (M, H * W), and whether there is one."""
    pixels, inside, _ = pixels_read(source_points(matrices.detach().double(), size), "zeros", "nearest")
    return pixels[..., 0], inside[..., 0]


def taps_read(matrices: Tensor, size: tuple[int, int], lookup: Lookup) -> tuple[Tensor, Tensor]:
    """The pixels that every output pixel reads under matrices (M, 2, 3), (M, H * W, taps), and their weights in float64."""
    pixels, inside, weights = pixels_read(source_points(matrices.double(), size), lookup.padding, lookup.mode)
    if lookup.background:
        return torch.where(inside, pixels, size[0] * size[1]), weights
    return pixels, weights * inside


def count_taps(matrices: Tensor, mixture: Mixture, size: tuple[int, int], lookup: Lookup) -> int:
    """Number of input pixels that the map of `pixel_map_of` weights and adds per channel and image; copies count as zero.

    Matrices are counted one after the other, so nothing large is kept.
    """
    terms = [m for t, copy in enumerate(copied(matrices, mixture)) if copy is None for _, _, m in mixture[t]]
    counts = {m: int(taps_read(matrices[m : m + 1], size, lookup)[1].count_nonzero()) for m in set(terms)}
    return sum(counts[m] for m in terms)


def pixel_map_of(matrices: Tensor, mixture: Mixture, frames: int, size: tuple[int, int], lookup: Lookup) -> PixelMap:
    """The sparse map of a mixture over `frames` input frames, its weights in float64."""
    area = size[0] * size[1]
    plane = area + lookup.background
    pixels, weights = taps_read(matrices, size, lookup)
    copies = copied(matrices, mixture)
    sampled = [t for t, copy in enumerate(copies) if copy is None]
    taps, shares, counts = [], [], []
    for t in sampled:
        tap = torch.cat([pixels[m] + source * plane for _, source, m in mixture[t]], dim=-1)
        share = torch.cat([weights[m] * weight for weight, _, m in mixture[t]], dim=-1)
        kept = share != 0
        taps.append(tap[kept])
        shares.append(share[kept])
        counts.append(kept.sum(-1))
    tiles = cut(torch.cat(taps), torch.cat(shares), torch.stack(counts), sampled) if sampled else ()
    equal = tuple((t, copy) for t, copy in enumerate(copies) if copy is not None)
    return PixelMap(frames, plane, len(mixture), area, tiles, equal, torch.float64)
