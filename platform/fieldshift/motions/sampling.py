"""Sampling: the image pixels that each output pixel of a warp reads, and their weights.

The one definition behind every backend:
- `grid_sampling`: torch's `grid_sample`, on any device, with gradients for pixels and matrices;
- `pixel_map`: sparse sums over pixels on the CPU, for fixed matrices;
- `nearest_pixels` below: an index lookup, for label masks;
- `exportable`: `grid_sample` on stored grids, for exporters;
- `fieldshift.search.slabs`: sparse taps with gradients for the weights of many warps at once;
- `fieldshift.folding`: sparse taps over the channels of a feature map.
`tests/motions/test_backends.py` holds them together. Conventions as in `fieldshift.motions.warp`; points are computed in
float64 where matrices are. Shape letters: M matrices, H, W.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fieldshift.motions.matrices import are_identities, invert

Term = tuple[float, int, int]
"""A term of an output frame: its weight, the index of its input frame, the index of its matrix."""
Mixture = tuple[tuple[Term, ...], ...]
"""The terms of every output frame."""


@dataclass(frozen=True)
class Lookup:
    """Settings for reading pixels: `mode` bilinear or nearest, `padding` zeros, border or reflection.

    With `background`, pixels outside have the plane's own background, its pixel number H * W, instead of zero.
    """

    padding: str
    mode: str
    background: bool = False


def source_points(matrices: Float[Tensor, "matrices 2 3"], size: tuple[int, int]) -> Float[Tensor, "matrices 2 H W"]:
    """The points (x, y) that output pixels read, in pixels about the centre."""
    height, width = size
    x = torch.arange(width, dtype=matrices.dtype, device=matrices.device) - (width - 1) / 2
    y = torch.arange(height, dtype=matrices.dtype, device=matrices.device) - (height - 1) / 2
    a, b, t = invert(matrices)[..., None, None].unbind(2)
    return a * x + b * y[:, None] + t


def normalised(points: Float[Tensor, "matrices 2 H W"]) -> Float[Tensor, "matrices H W 2"]:
    """Points as the grid of `grid_sample(..., align_corners=False)`."""
    height, width = points.shape[-2:]
    return torch.stack([points[:, 0] * (2 / width), points[:, 1] * (2 / height)], dim=-1)


def copied(matrices: Float[Tensor, "matrices 2 3"], mixture: Mixture) -> list[int | None]:
    """The input frame that every output frame equals, or None where it must be sampled.

    Matrices on a device are not read, which would make the CPU wait for it: their frames are sampled.
    """
    if matrices.device.type != "cpu":
        return [None] * len(mixture)
    identities = are_identities(matrices.detach()).tolist()
    return [
        terms[0][1] if len(terms) == 1 and terms[0][0] == 1 and identities[terms[0][2]] else None for terms in mixture
    ]


def within_border(at: Float[Tensor, "*points"], side: int, padding: str) -> Float[Tensor, "*points"]:
    """Coordinates along an axis (0 is the first pixel's centre), moved into the image by the padding's rule."""
    if padding == "reflection":  # mirrors at -1/2 and side - 1/2
        turned = torch.remainder(at + 0.5, 2 * side)
        at = torch.minimum(turned, 2 * side - turned) - 0.5
    return at if padding == "zeros" else at.clamp(0, side - 1)


def floor_and_share(at: Float[Tensor, "*points"]) -> tuple[Float[Tensor, "*points"], Float[Tensor, "*points"]]:
    """The pixel at or before each coordinate, and the share of the pixel after it in a bilinear sample."""
    floor = at.detach().floor()
    return floor, at - floor


def pixels_read(
    points: Float[Tensor, "matrices 2 H W"], padding: str, mode: str
) -> tuple[Int[Tensor, "matrices P taps"], Bool[Tensor, "matrices P taps"], Float[Tensor, "matrices P taps"]]:
    """Pixels read by points about the centre, P = H * W, whether they are inside, and weights.

    The weights are differentiable in the points.
    """
    height, width = points.shape[-2:]
    x = within_border(points[:, 0].flatten(1) + (width - 1) / 2, width, padding)
    y = within_border(points[:, 1].flatten(1) + (height - 1) / 2, height, padding)
    if mode == "nearest":
        corners = [(x.round(), y.round(), torch.ones_like(x))]
    else:
        (left, right_share), (top, low_share) = floor_and_share(x), floor_and_share(y)
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


def nearest_pixels(
    matrices: Float[Tensor, "matrices 2 3"], size: tuple[int, int]
) -> tuple[Int[Tensor, "matrices P"], Bool[Tensor, "matrices P"]]:
    """The image pixel that every output pixel shows, P = H * W, and whether there is one."""
    pixels, inside, _ = pixels_read(source_points(matrices.detach().double(), size), "zeros", "nearest")
    return pixels[..., 0], inside[..., 0]


def taps_read(
    matrices: Float[Tensor, "matrices 2 3"], size: tuple[int, int], lookup: Lookup
) -> tuple[Int[Tensor, "matrices P taps"], Float[Tensor, "matrices P taps"]]:
    """The pixels that every output pixel reads, P = H * W, and their weights in float64, zero outside the image."""
    pixels, inside, weights = pixels_read(source_points(matrices.double(), size), lookup.padding, lookup.mode)
    if lookup.background:
        return torch.where(inside, pixels, size[0] * size[1]), weights
    return pixels, weights * inside
