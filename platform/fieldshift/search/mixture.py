"""Mixtures of warps: one weighted gather per frame instead of one warp per operation and frame.

A warp is linear in the image, so a weighted sum of warps is linear too: a sparse matrix of taps (`fieldshift.search.slabs`).
The matrices do not depend on the image, so batch and channels are folded into the D numbers of one pixel, and each tap
moves D numbers. `embedding_bag` computes such a gather of weighted rows: only the sum is stored, and
gradients are recomputed from the matrices (inner products for the weights, the transposed gather for the sources).

Convention: a *slab* is (F, H + 3, W + 3, D), the pixels of F frames with a border of zeros. A slab of one frame represents
F equal ones. Shape letters: F distinct frames, N warps, D = B * C, P = H * W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fieldshift.search.slabs import BEFORE, BEHIND, SlabTaps, gather, products, scatter, slab_taps
from fieldshift.tensor_cache import index

BORDER = (0, 0, BEFORE, BEHIND, BEFORE, BEHIND)
BLOCK = 2**20  # numbers of one block of inner products: small enough to stay in a cache


def to_slab(images: Float[Tensor, "batch channels H W"]) -> Float[Tensor, "1 Hp Wp D"]:
    """Images as a slab of one frame."""
    return F.pad(images.flatten(0, 1).permute(1, 2, 0), BORDER)[None]


def video_to_slab(video: Float[Tensor, "batch frames channels H W"]) -> Float[Tensor, "frames Hp Wp D"]:
    """A video as a slab."""
    return F.pad(video.transpose(0, 1).flatten(1, 2).permute(0, 2, 3, 1), BORDER)


def from_slab(slab: Float[Tensor, "frames Hp Wp D"], batch: int) -> Float[Tensor, "batch frames channels H W"]:
    """A slab as a video."""
    pixels = inside(slab)
    return pixels.reshape(*pixels.shape[:3], batch, -1).permute(3, 0, 4, 1, 2)


def inside(slab: Tensor) -> Tensor:
    """The view of a slab without its border."""
    return slab[:, BEFORE:-BEHIND, BEFORE:-BEHIND]


@dataclass(frozen=True)
class Mixing:
    """The structure of a mixture, without its tensors.

    `moving[j][f]` lists the warps (columns of source j's weights) that need sampling in frame f. `cache` contains the taps
    of earlier calls, by (source j, frame f), if they are worth their memory; None recomputes them.
    """

    size: tuple[int, int]
    fill: str
    frames: int
    moving: tuple[tuple[tuple[int, ...], ...], ...]
    learned: bool
    cache: dict[tuple[int, int], SlabTaps] | None = field(default=None, compare=False)

    def taps(self, source: int, frame: int, inverses: Tensor) -> SlabTaps:
        """The taps of a source's moving warps in one frame."""
        if self.cache is not None and (source, frame) in self.cache:
            return self.cache[source, frame]
        found = slab_taps(inverses[:, frame][self.columns(source, frame, inverses.device)], self.size, self.fill)
        if self.cache is not None:
            self.cache[source, frame] = found
        return found

    def columns(self, source: int, frame: int, device: torch.device) -> Tensor:
        """The columns of a source's weights whose warps need sampling in a frame."""
        return index(self.moving[source][frame], device)


class _MixWarps(torch.autograd.Function):
    """Weighted sums of warped slabs, with gradients for the sources, the weights, the stills and the matrices."""

    @staticmethod
    def forward(ctx: Any, mixing: Mixing, *tensors: Tensor) -> Tensor:
        ctx.mixing = mixing
        ctx.save_for_backward(*tensors)
        sources, weights, stills, inverses = _quarters(tensors)
        first = sources[0]
        mixed = first.new_zeros(mixing.frames, *first.shape[1:])
        for frame in range(mixing.frames):
            for j, source in enumerate(sources):
                slab = source[frame if len(source) > 1 else 0]
                mixed[frame].addcmul_(slab, stills[j][frame])
                if mixing.moving[j][frame]:
                    columns = mixing.columns(j, frame, slab.device)
                    moved = gather(slab, mixing.taps(j, frame, inverses[j]), weights[j][columns])
                    inside(mixed[frame : frame + 1])[0].add_(moved.view(*mixing.size, -1))
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        mixing, mixed = ctx.mixing, gradients[0]
        sources, weights, stills, inverses = _quarters(ctx.saved_tensors)
        needed = ctx.needs_input_grad[1:]
        to_sources = [torch.zeros_like(each) if needed[j] else None for j, each in enumerate(sources)]
        to_weights = [torch.zeros_like(each) for each in weights]
        to_stills = [torch.zeros_like(each) for each in stills]
        to_inverses = [torch.zeros_like(each) if mixing.learned else None for each in inverses]
        for frame in range(mixing.frames):
            gradient = inside(mixed[frame : frame + 1])[0].flatten(0, 1).contiguous()
            for j, source in enumerate(sources):
                at = frame if len(source) > 1 else 0
                pixels = inside(source[at : at + 1])
                to_stills[j][frame] = torch.dot(pixels.reshape(-1), gradient.view(-1))
                to_source = to_sources[j]
                if to_source is not None:
                    inside(to_source[at : at + 1])[0].addcmul_(gradient.view(*mixing.size, -1), stills[j][frame])
                if not mixing.moving[j][frame]:
                    continue
                columns = mixing.columns(j, frame, source.device)
                where, scale, to_inverse = mixing.taps(j, frame, inverses[j]), weights[j][columns], to_inverses[j]
                if to_inverse is None:
                    each = products(source[at], gradient, where, BLOCK)
                else:
                    matrices = inverses[j][:, frame][columns]
                    each, slopes = _products_and_slopes(source[at], gradient, matrices, scale, mixing)
                    to_inverse[:, frame].index_copy_(0, columns, slopes)
                to_weights[j].index_add_(0, columns, each)
                if to_source is not None:
                    scatter(to_source[at], gradient, where, scale)
        return None, *to_sources, *to_weights, *to_stills, *to_inverses


def _quarters(tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], ...]:
    count = len(tensors) // 4
    return tuple(tensors[quarter * count : (quarter + 1) * count] for quarter in range(4))


def _products_and_slopes(
    slab: Tensor, gradient: Tensor, matrices: Tensor, scale: Tensor, mixing: Mixing
) -> tuple[Tensor, Tensor]:
    """Inner products with each warp, and the gradient of the weighted sum with respect to each inverse matrix (N, 2, 3)."""
    with torch.enable_grad():
        matrices = matrices.detach().requires_grad_()
        where = slab_taps(matrices, mixing.size, mixing.fill)
    table = slab.flatten(0, 1)
    to_shares = torch.stack(
        [(table[where.rows[:, n, k]] * gradient).sum(-1) for n in range(len(matrices)) for k in range(4)], dim=-1
    ).view_as(where.shares)
    (to_matrices,) = torch.autograd.grad(where.shares, matrices, to_shares * scale[:, None])
    return (to_shares * where.shares.detach()).sum((0, 2)), to_matrices


def mix_warps(
    sources: Sequence[Float[Tensor, "_ Hp Wp D"]],
    weights: Sequence[Float[Tensor, " _"]],
    stills: Sequence[Float[Tensor, " frames"]],
    inverses: Sequence[Float[Tensor, "_ frames 2 3"]],
    mixing: Mixing,
) -> Float[Tensor, "frames Hp Wp D"]:
    """The slab sum_j (stills[j] * source_j + sum_n weights[j][n] * warp_n(source_j)), frame by frame.

    `stills` is the total weight, per frame, of the operations that do not move source j; the warps listed in
    `mixing.moving` are sampled, the others count among the stills. Differentiable once in all tensors.
    """
    result: Tensor = _MixWarps.apply(mixing, *sources, *weights, *stills, *inverses)
    return result
