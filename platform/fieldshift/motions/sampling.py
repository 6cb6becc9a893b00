"""The sampling pass: every output frame is a weighted sum of input frames under affine matrices, sampled once.

Two backends give the same numbers to 1e-5: `grid_sample` (any device; gradients to pixels and matrices) and, on the CPU
with fixed matrices, a sparse map over pixels (`fieldshift.motions.pixel_map`), which is kept for the next call. Matrices
are inverted and points are placed in float64, whatever the images' dtype. Conventions as in `fieldshift.motions.warp`.

Shape letters: B batch, F frames of the input, T frames of the output, D distinct samplings, M matrices, C channels, H, W.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fieldshift.motions.matrices import are_identities, invert
from fieldshift.motions.pixel_map import PixelMap, cut

Share = tuple[float, int, int]
"""A term of an output frame: its weight, the number of its input frame, the number of its matrix."""
Mixture = tuple[tuple[Share, ...], ...]
"""For every output frame its terms."""

KEPT_BYTES = 256 * 2**20
_kept: OrderedDict[object, PixelMap] = OrderedDict()
_lock = threading.Lock()


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


def mix(video: Tensor, matrices: Tensor, mixture: Mixture, *, padding: str, mode: str, outside: Tensor | None) -> Tensor:
    """The mixed frames of a video (B, F, C, H, W) under matrices (M, 2, 3): (B, T, C, H, W), contiguous.

    `outside` (B or 1, F or 1, C or 1) is the colour outside the image, None for what `padding` says. A frame that is one
    input frame under an exact identity is copied. float16 and bfloat16 are sampled in float32.
    """
    wide = video if video.dtype in (torch.float32, torch.float64) else video.float()
    fixed = not (matrices.requires_grad or torch.compiler.is_compiling() or torch.jit.is_tracing())
    by_rows = fixed and wide.device.type == "cpu" and matrices.device.type == "cpu"
    mixed = (_by_rows if by_rows else _by_grid)(wide, matrices, mixture, padding, mode, outside)
    return mixed.to(video.dtype)


def copied(matrices: Tensor, mixture: Mixture) -> list[int | None]:
    """For every output frame the input frame that it equals, or None where it has to be sampled."""
    identities = are_identities(matrices.detach()).tolist()
    return [
        terms[0][1] if len(terms) == 1 and terms[0][0] == 1 and identities[terms[0][2]] else None for terms in mixture
    ]


def _by_grid(
    video: Tensor, matrices: Tensor, mixture: Mixture, padding: str, mode: str, outside: Tensor | None
) -> Tensor:
    batch, _, channels, height, width = video.shape
    copies = copied(matrices, mixture)
    needed = dict.fromkeys(
        (source, m) for terms, copy in zip(mixture, copies, strict=True) if copy is None for _, source, m in terms
    )
    samples: dict[tuple[int, int], Tensor] = {}
    if needed:
        sources, chosen = [source for source, _ in needed], [m for _, m in needed]
        grid = normalised(source_points(matrices[chosen].double().to(video.device), (height, width))).to(video.dtype)
        start = video if outside is None else video - outside[..., None, None]
        if len(set(sources)) == 1:  # one tall grid for all matrices: no copy of the images
            tall = grid.reshape(1, -1, width, 2).expand(batch, -1, -1, -1)
            moved = F.grid_sample(start[:, sources[0]], tall, mode=mode, padding_mode=padding, align_corners=False)
            moved = moved.view(batch, channels, len(needed), height, width).transpose(1, 2)
        else:
            flat = start[:, sources].reshape(-1, channels, height, width)
            each = grid.expand(batch, -1, -1, -1, -1).reshape(-1, height, width, 2)
            moved = F.grid_sample(flat, each, mode=mode, padding_mode=padding, align_corners=False)
            moved = moved.view(batch, len(needed), channels, height, width)
        if outside is not None:
            colour = outside.expand(-1, video.shape[1], -1)[:, sources]
            moved = moved + colour[..., None, None]
        samples = dict(zip(needed, moved.unbind(1), strict=True))
    frames = []
    for terms, copy in zip(mixture, copies, strict=True):
        if copy is not None:
            frames.append(video[:, copy])
            continue
        parts = [samples[source, m] if weight == 1 else samples[source, m] * weight for weight, source, m in terms]
        frames.append(sum(parts[1:], start=parts[0]))
    return torch.stack(frames, dim=1)


def _by_rows(
    video: Tensor, matrices: Tensor, mixture: Mixture, padding: str, mode: str, outside: Tensor | None
) -> Tensor:
    batch, frames, channels, height, width = video.shape
    planes = video.flatten(-2)
    if outside is not None:  # the colour outside is one more pixel of every plane
        planes = torch.cat([planes, outside.expand(batch, frames, channels)[..., None]], dim=-1)
    key = (matrices.double().numpy().tobytes(), mixture, frames, height, width, padding, mode, video.dtype)
    with _lock:
        pixel_map = _kept.get((key, outside is None))
        if pixel_map is None:
            pixel_map = _kept[key, outside is None] = pixel_map_of(
                matrices, mixture, frames, (height, width), padding, mode, outside is not None, video.dtype
            )
            while sum(m.nbytes for m in _kept.values()) > KEPT_BYTES and len(_kept) > 1:
                _kept.popitem(last=False)
        else:
            _kept.move_to_end((key, outside is None))
    return pixel_map(planes).view(batch, len(mixture), channels, height, width)


def _folded(points: Tensor, side: int, padding: str) -> Tensor:
    """Coordinates (0 is the first pixel's centre) brought into the image as the padding says."""
    if padding == "reflection":  # mirrors at -1/2 and side - 1/2
        turned = torch.remainder(points + 0.5, 2 * side)
        points = torch.minimum(turned, 2 * side - turned) - 0.5
    return points if padding == "zeros" else points.clamp(0, side - 1)


def _taps(points: Tensor, padding: str, mode: str) -> tuple[Tensor, Tensor, Tensor]:
    """For points (M, 2, H, W) about the centre: pixels (M, K, taps), whether they are inside, and weights."""
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
    """For every output pixel the image pixel that it shows, (M, H * W), and whether there is one."""
    pixels, inside, _ = _taps(source_points(matrices.detach().double(), size), "zeros", "nearest")
    return pixels[..., 0], inside[..., 0]


def pixel_map_of(
    matrices: Tensor,
    mixture: Mixture,
    frames: int,
    size: tuple[int, int],
    padding: str,
    mode: str,
    background: bool,
    dtype: torch.dtype,
) -> PixelMap:
    """The sparse map of a mixture over `frames` input frames; with a background, pixel H * W of a frame is its colour."""
    area = size[0] * size[1]
    pixels, inside, weights = _taps(source_points(matrices.double(), size), padding, mode)
    if background:
        pixels = torch.where(inside, pixels, area)
    else:
        weights = weights * inside
    plane = area + background
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
    tiles = cut(torch.cat(taps), torch.cat(shares).to(dtype), torch.stack(counts), sampled) if sampled else ()
    equal = tuple((t, copy) for t, copy in enumerate(copies) if copy is not None)
    return PixelMap(frames, plane, len(mixture), area, tiles, equal)
