"""Mixtures of warps: one weighted gather a frame instead of one warp an operation and frame.

A warp is linear in the image, so a weighted sum of warps is linear too: a sparse matrix with four taps a warp and
output pixel. The matrices don't depend on the image, so batch and channels are folded into the D numbers of one row,
and each tap moves a whole row. A gather of weighted rows is what `embedding_bag` computes: nothing but the sum is ever
stored, and the gradients are computed anew from the matrices (inner products for the weights, the transposed gather
for the sources).

Convention: a *slab* is (F, H + 3, W + 3, D), pixels of F frames with one row and column of zeros before the image and
two behind it, so that taps outside the image need no masks. A slab of one frame stands for F equal ones. Sampling is
that of `fieldshift.motions.warp`, bilinear; `tests/search/test_cell.py` holds the two together.
Shape letters: F distinct frames, N warps, D = B * C, P = H * W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

BEFORE, BEHIND = 1, 2


def to_slab(images: Float[Tensor, "batch channels H W"]) -> Float[Tensor, "1 Hp Wp D"]:
    """Images as a slab of one frame."""
    return F.pad(images.flatten(0, 1).permute(1, 2, 0), (0, 0, BEFORE, BEHIND, BEFORE, BEHIND))[None]


def from_slab(slab: Float[Tensor, "frames Hp Wp D"], batch: int) -> Float[Tensor, "batch frames channels H W"]:
    """A slab as a video."""
    pixels = inside(slab)
    return pixels.reshape(*pixels.shape[:3], batch, -1).permute(3, 0, 4, 1, 2)


def inside(slab: Tensor) -> Tensor:
    """The view of a slab without its border."""
    return slab[:, BEFORE:-BEHIND, BEFORE:-BEHIND]


@dataclass(frozen=True)
class Taps:
    """Where N warps of one frame read: four neighbours from `first` on, bilinear by the fractions right and down."""

    first: Int[Tensor, "N P"]
    right: Float[Tensor, "N P"]
    down: Float[Tensor, "N P"]
    row: int

    def rows(self) -> Int[Tensor, "N P 4"]:
        steps = torch.tensor([0, 1, self.row, self.row + 1], dtype=self.first.dtype, device=self.first.device)
        return self.first.unsqueeze(-1) + steps

    def shares(self, scale: Float[Tensor, " warps"] | None = None) -> Float[Tensor, "N P 4"]:
        """The share of each neighbour, times `scale` of its warp; differentiable in the fractions."""
        down = self.down if scale is None else self.down * scale[:, None]
        up = 1 - self.down if scale is None else scale[:, None] - down
        right = self.right
        return torch.stack([up - up * right, up * right, down - down * right, down * right], dim=-1)


def taps(inverses: Float[Tensor, "N 2 3"], size: tuple[int, int], fill: str) -> Taps:
    """The taps of warps whose INVERSE matrices are given: output pixel q reads at A q + b, in pixels about the centre.

    `fill` is zeros (what a slab has outside), border or reflection.
    """
    height, width = size
    x = torch.arange(width, device=inverses.device).to(inverses.dtype) - (width - 1) / 2
    y = torch.arange(height, device=inverses.device).to(inverses.dtype) - (height - 1) / 2
    left, right = _read_at(inverses[:, 0], x, y, width, fill)
    top, down = _read_at(inverses[:, 1], x, y, height, fill)
    row = width + BEFORE + BEHIND
    return Taps(((top + BEFORE) * row + left + BEFORE).int(), right, down, row)


def _read_at(rows: Tensor, x: Tensor, y: Tensor, side: int, fill: str) -> tuple[Tensor, Tensor]:
    """Along one axis: the whole pixel at or before where each output pixel reads, and the fraction beyond it."""
    a, b, shift = rows.unbind(-1)
    start = b[:, None] * y + (shift + (side - 1) / 2)[:, None]
    at = (a[:, None, None] * x + start[:, :, None]).flatten(1)
    if fill == "reflection":
        at = ((at + 0.5) % (2 * side) - side).abs().neg() + (side - 0.5)
    at = at.clamp(-1, side) if fill == "zeros" else at.clamp(0, side - 1)
    floor = at.detach().floor()
    return floor, at - floor


def gather(
    slab: Float[Tensor, "Hp Wp D"], rows: Int[Tensor, "Q taps"], shares: Float[Tensor, "Q taps"]
) -> Float[Tensor, "Q D"]:
    """Weighted sums of a slab's rows."""
    return F.embedding_bag(rows, slab.flatten(0, 1), per_sample_weights=shares, mode="sum")


def scatter(
    into: Float[Tensor, "Hp Wp D"], gradient: Float[Tensor, "P D"], where: Taps, shares: Float[Tensor, "N P 4"]
) -> None:
    """Adds the transposed gather of `gradient` to `into`: every row gives its shares to the rows that it was read from.

    The taps are sorted by the row they start from, once for all four, so that this too is a gather.
    """
    target = into.flatten(0, 1)
    start, order = torch.sort(where.first.flatten(), stable=True)
    count = torch.bincount(start, minlength=len(target))
    offsets = (count.cumsum(0) - count).int()
    giver = (order % len(gradient)).int()
    given = shares.flatten(0, 1)[order].t().contiguous()
    for step, share in zip((0, 1, where.row, where.row + 1), given, strict=True):
        moved = F.embedding_bag(giver, gradient, offsets, per_sample_weights=share, mode="sum")
        target[step:].add_(moved[: len(target) - step])


@dataclass(frozen=True)
class Mixing:
    """What is mixed, apart from the tensors: fill, image size, and which warps move something in which frame.

    `moving[j][f]` lists the warps (columns of source j's weights) that need sampling in frame f.
    """

    size: tuple[int, int]
    fill: str
    frames: int
    moving: tuple[tuple[tuple[int, ...], ...], ...]
    learned: bool


class _MixWarps(torch.autograd.Function):
    """Weighted sums of warped slabs, with gradients for the weights, the stills, the sources and the matrices."""

    @staticmethod
    def forward(ctx: Any, mixing: Mixing, *tensors: Tensor) -> Tensor:
        ctx.mixing = mixing
        ctx.save_for_backward(*tensors)
        sources, weights, stills, inverses = _quarters(tensors)
        first = sources[0]
        mixed = first.new_zeros(mixing.frames, *first.shape[1:])
        for j, source in enumerate(sources):
            for frame in range(mixing.frames):
                slab = source[frame if len(source) > 1 else 0]
                mixed[frame].addcmul_(slab, stills[j][frame])
                columns = list(mixing.moving[j][frame])
                if columns:
                    where = taps(inverses[j][columns, frame], mixing.size, mixing.fill)
                    shares = where.shares(weights[j][columns])
                    moved = gather(slab, _by_pixel(where.rows()), _by_pixel(shares))
                    inside(mixed[frame : frame + 1])[0].add_(moved.view(*mixing.size, -1))
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        mixing, mixed = ctx.mixing, gradients[0]
        sources, weights, stills, inverses = _quarters(ctx.saved_tensors)
        count, needed = len(sources), ctx.needs_input_grad[1:]
        to_sources = [torch.zeros_like(each) if needed[j] else None for j, each in enumerate(sources)]
        to_weights = [torch.zeros_like(each) for each in weights]
        to_stills = [torch.zeros_like(each) for each in stills]
        to_inverses = [torch.zeros_like(each) if mixing.learned else None for each in inverses]
        for frame in range(mixing.frames):
            gradient = inside(mixed[frame : frame + 1])[0].flatten(0, 1).contiguous()
            for j, source in enumerate(sources):
                at = frame if len(source) > 1 else 0
                slab = source[at]
                to_stills[j][frame] = torch.dot(inside(source[at : at + 1]).reshape(-1), gradient.view(-1))
                to_source = to_sources[j]
                if to_source is not None:
                    inside(to_source[at : at + 1])[0].addcmul_(gradient.view(*mixing.size, -1), stills[j][frame])
                columns = list(mixing.moving[j][frame])
                if not columns:
                    continue
                matrices = inverses[j][columns, frame]
                where = taps(matrices, mixing.size, mixing.fill)
                to_inverse = to_inverses[j]
                if to_inverse is not None:
                    scale = weights[j][columns]
                    to_weight, to_matrix = _products_and_slopes(slab, gradient, matrices, scale, mixing)
                    to_inverse[columns, frame] = to_matrix
                else:
                    to_weight = _products(slab, gradient, where)
                to_weights[j][columns] += to_weight
                if to_source is not None:
                    scatter(to_source[at], gradient, where, where.shares(weights[j][columns]))
        assert len(needed) == 4 * count
        return None, *to_sources, *to_weights, *to_stills, *to_inverses


def _quarters(tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], ...]:
    count = len(tensors) // 4
    return tuple(tensors[quarter * count : (quarter + 1) * count] for quarter in range(4))


def _by_pixel(values: Tensor) -> Tensor:
    """(N, P, 4) -> (P, N * 4), the taps of one output pixel side by side."""
    return values.transpose(0, 1).flatten(1)


def _products(slab: Tensor, gradient: Tensor, where: Taps) -> Float[Tensor, " warps"]:
    """Inner products of the gradient with each warp alone."""
    flat = gradient.view(-1)
    alone = zip(where.rows(), where.shares(), strict=True)
    return torch.stack([torch.dot(gather(slab, rows, shares).view(-1), flat) for rows, shares in alone])


def _products_and_slopes(
    slab: Tensor, gradient: Tensor, matrices: Tensor, scale: Tensor, mixing: Mixing
) -> tuple[Tensor, Tensor]:
    """Inner products with each warp, and the gradient of the weighted sum to each inverse matrix (N, 2, 3)."""
    with torch.enable_grad():
        matrices = matrices.detach().requires_grad_()
        where = taps(matrices, mixing.size, mixing.fill)
        shares = where.shares()
    rows, flat = where.rows(), slab.flatten(0, 1)
    per_tap = torch.stack([(flat[rows[n, :, k]] * gradient).sum(-1) for n in range(len(rows)) for k in range(4)]).view(
        len(rows), 4, -1
    )
    to_shares = per_tap.transpose(1, 2)
    (to_matrices,) = torch.autograd.grad(shares, matrices, to_shares * scale[:, None, None])
    return (to_shares * shares.detach()).sum((1, 2)), to_matrices


def mix_warps(
    sources: Sequence[Float[Tensor, "_ Hp Wp D"]],
    weights: Sequence[Float[Tensor, " _"]],
    stills: Sequence[Float[Tensor, " frames"]],
    inverses: Sequence[Float[Tensor, "_ frames 2 3"]],
    mixing: Mixing,
) -> Float[Tensor, "frames Hp Wp D"]:
    """The slab sum_j (stills[j] * source_j + sum_n weights[j][n] * warp_n(source_j)), frame by frame.

    `stills` is the total weight, frame by frame, of what leaves source j where it is; the warps listed in
    `mixing.moving` are sampled, the others are taken to be among the stills. Differentiable once in all tensors.
    """
    result: Tensor = _MixWarps.apply(mixing, *sources, *weights, *stills, *inverses)
    return result
