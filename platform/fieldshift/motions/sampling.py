"""The sampling pass: every output frame is a weighted sum of input frames under affine matrices, sampled once.

Two backends give the same numbers to 1e-5: `grid_sample` (any device; gradients to pixels and matrices) and, on the CPU
with fixed matrices, a sparse map over pixels (`fieldshift.motions.pixel_map`), which is cached for the next call.
Conventions as in `fieldshift.motions.warp`.

Shape letters: B batch, F frames of the input, T frames of the output, D distinct samplings, M matrices, C channels, H, W.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fieldshift.kept import Kept, are_fixed, values_of
from fieldshift.motions.pixel_map import PixelMap
from fieldshift.motions.taps import Lookup, Mixture, copied, normalised, pixel_map_of, source_points

KEPT_BYTES = 256 * 2**20


_maps: Kept[PixelMap] = Kept(KEPT_BYTES)
_grids: Kept[Tensor] = Kept(KEPT_BYTES)


def mix(video: Tensor, matrices: Tensor, mixture: Mixture, lookup: Lookup, outside: Tensor | None) -> Tensor:
    """Computes the mixed frames of a video (B, F, C, H, W) under matrices (M, 2, 3): (B, T, C, H, W), contiguous.

    `outside` is the colour outside the image, (B or 1, F or 1, C), where the lookup has a background. A frame that is
    one input frame under an exact identity is copied. float16 and bfloat16 are sampled in float32.
    """
    wide = video if video.dtype in (torch.float32, torch.float64) else video.float()
    if outside is not None:
        outside = outside.to(wide.dtype).expand(*video.shape[:3])
    if wide.device.type == "cpu" and are_fixed(matrices):
        mixed = _by_rows(wide, matrices, mixture, lookup, outside)
    else:
        mixed = _by_grid(wide, matrices, mixture, lookup, outside)
    return mixed.to(video.dtype)


def _by_rows(video: Tensor, matrices: Tensor, mixture: Mixture, lookup: Lookup, outside: Tensor | None) -> Tensor:
    batch, frames, channels, height, width = video.shape
    planes = video.flatten(-2)
    if outside is not None:
        planes = torch.cat([planes, outside[..., None]], dim=-1)
    key = (*values_of(matrices), mixture, frames, height, width, lookup, video.dtype)
    pixel_map = _maps.get(key, lambda: pixel_map_of(matrices, mixture, frames, (height, width), lookup).to(video.dtype))
    return pixel_map(planes).view(batch, len(mixture), channels, height, width)


def _by_grid(video: Tensor, matrices: Tensor, mixture: Mixture, lookup: Lookup, outside: Tensor | None) -> Tensor:
    copies = copied(matrices, mixture)
    sampled = [terms for terms, copy in zip(mixture, copies, strict=True) if copy is None]
    needed = list(dict.fromkeys((source, m) for terms in sampled for _, source, m in terms))
    samples = dict(zip(needed, _grid_samples(video, matrices, needed, lookup, outside), strict=True))
    frames = []
    for terms, copy in zip(mixture, copies, strict=True):
        if copy is not None:
            frames.append(video[:, copy])
            continue
        parts = [samples[source, m] if weight == 1 else samples[source, m] * weight for weight, source, m in terms]
        frames.append(sum(parts[1:], start=parts[0]))
    return torch.stack(frames, dim=1)


def _grid_samples(
    video: Tensor, matrices: Tensor, needed: list[tuple[int, int]], lookup: Lookup, outside: Tensor | None
) -> tuple[Tensor, ...]:
    """Each needed (input frame, matrix) as a sample (B, C, H, W)."""
    if not needed:
        return ()
    batch, _, channels, height, width = video.shape
    sources, chosen = [source for source, _ in needed], [m for _, m in needed]
    grid = _grid(matrices[chosen], (height, width), video)  # (D, H, W, 2)
    start = video if outside is None else video - outside[..., None, None]
    if len(set(sources)) == 1:  # one tall grid for all matrices: the images are not copied
        flat = start[:, sources[0]]
        grid = grid.reshape(1, -1, width, 2).expand(batch, -1, -1, -1)
    else:
        flat = torch.stack([start[:, source] for source in sources], dim=1).flatten(0, 1)
        grid = grid.expand(batch, -1, -1, -1, -1).flatten(0, 1)
    moved = F.grid_sample(flat, grid, mode=lookup.mode, padding_mode=lookup.padding, align_corners=False)
    if len(set(sources)) == 1:
        moved = moved.view(batch, channels, len(needed), height, width).transpose(1, 2)
    else:
        moved = moved.view(batch, len(needed), channels, height, width)
    if outside is not None:
        moved = moved + torch.stack([outside[:, source] for source in sources], dim=1)[..., None, None]
    return moved.unbind(1)


def _grid(matrices: Tensor, size: tuple[int, int], video: Tensor) -> Tensor:
    """The sampling grid of matrices (D, 2, 3) for `grid_sample`, (D, H, W, 2); cached where the matrices are fixed."""

    def made() -> Tensor:
        return normalised(source_points(matrices.double().to(video.device), size)).to(video.dtype)

    return _grids.get((*values_of(matrices), size, video.dtype, video.device), made) if are_fixed(matrices) else made()
