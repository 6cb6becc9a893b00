"""The backend for gradients and devices: torch's `grid_sample`, with gradients for pixels and matrices.

Conventions as in `fieldshift.motions.warp`. Shape letters: B batch, F frames of the input, T frames of the output,
D distinct samplings, M matrices, C channels, H, W.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fieldshift.motions.sampling import Lookup, Mixture, copied, normalised, source_points
from fieldshift.tensor_cache import TensorCache, are_fixed, values_of

CACHE_BYTES = 256 * 2**20

_grids: TensorCache[Tensor] = TensorCache(CACHE_BYTES)


def sample_grid(
    images: Float[Tensor, "batch channels H W"], grid: Float[Tensor, "_ h w 2"], lookup: Lookup
) -> Float[Tensor, "batch channels h w"]:
    """Reads images at the points of a grid, x and y in [-1, 1] from edge to edge; one grid per image, or one for all."""
    grid = grid.expand(images.shape[0], -1, -1, -1)
    return F.grid_sample(images, grid, mode=lookup.mode, padding_mode=lookup.padding, align_corners=False)


def mix_by_grid(video: Tensor, matrices: Tensor, mixture: Mixture, lookup: Lookup, outside: Tensor | None) -> Tensor:
    """The mixed frames of a video (B, F, C, H, W), in single or double precision: (B, T, C, H, W), contiguous.

    `outside` is the colour outside the image, (B, F, C), where the lookup has a background.
    """
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
    moving = matrices if chosen == list(range(len(matrices))) else matrices[chosen]
    grid = _grid(moving, (height, width), video)  # (D, H, W, 2)
    start = video if outside is None else video - outside[..., None, None]
    if len(set(sources)) == 1:  # one tall grid for all matrices: the images are not copied
        flat = start[:, sources[0]]
        grid = grid.reshape(1, -1, width, 2)
    else:
        flat = torch.stack([start[:, source] for source in sources], dim=1).flatten(0, 1)
        grid = grid.expand(batch, -1, -1, -1, -1).flatten(0, 1)
    moved = sample_grid(flat, grid, lookup)
    if len(set(sources)) == 1:
        moved = moved.view(batch, channels, len(needed), height, width).transpose(1, 2)
    else:
        moved = moved.view(batch, len(needed), channels, height, width)
    if outside is not None:
        moved = moved + torch.stack([outside[:, source] for source in sources], dim=1)[..., None, None]
    return moved.unbind(1)


def _grid(matrices: Tensor, size: tuple[int, int], video: Tensor) -> Tensor:
    """The sampling grid of matrices (D, 2, 3) for `grid_sample`, (D, H, W, 2); cached where the matrices are fixed."""

    def computed() -> Tensor:
        return normalised(source_points(matrices.double().to(video.device), size)).to(video.dtype)

    return (
        _grids.get((*values_of(matrices), size, video.dtype, video.device), computed)
        if are_fixed(matrices)
        else computed()
    )
