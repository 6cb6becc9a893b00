"""Slabs: the pixels that the pixels of a warped frame are read from, forwards and transposed, for many warps at once.

A bilinear warp reads four neighbouring pixels for each output pixel. N warps of one frame together are a sparse matrix
with 4 * N taps in each of its P rows. Slabs have one row and column of zeros before the image and two after it, so taps
outside the image need no masks. The rules of sampling are those of `fieldshift.motions.sampling`.
Shape letters: N warps of one frame, P = H * W pixels, D numbers in a slab's pixel.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fieldshift.motions.sampling import floor_and_share, within_border
from fieldshift.tensor_cache import constant

BEFORE, BEHIND = 1, 2
IDLE_CALLS = 64


@dataclass(frozen=True)
class SlabTaps:
    """Output pixel p of warp n reads `shares[p, n]` of the slab's pixels `rows[p, n]`; differentiable in the shares.

    `width` is the slab's, `pixels` its number of pixels.
    """

    rows: Int[Tensor, "P N 4"]
    shares: Float[Tensor, "P N 4"]
    width: int
    pixels: int

    @cached_property
    def by_first_row(self) -> tuple[Tensor, Tensor, Tensor]:
        """(order, givers, offsets): warped pixels sorted by the first row they read, the output pixels they belong to,
        and where each row of the slab starts among them. The four rows are at fixed offsets, so one sort serves all.
        """
        first, order = torch.sort(self.rows[..., 0].flatten(), stable=True)
        givers = torch.div(order, self.rows.shape[1], rounding_mode="floor").int()
        starts = torch.arange(self.pixels, device=first.device, dtype=first.dtype)
        return order, givers, torch.searchsorted(first, starts).int()


class TapCache:
    """A cache of the taps of current mixtures between steps, up to a number of bytes; it saves half the time.

    A mixture that has not been used for a while is evicted: during a selection, mixtures come and go.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._asked = 0
        self._mixtures: dict[Hashable, tuple[dict[tuple[int, int], SlabTaps], int]] = {}
        self._last: dict[Hashable, int] = {}

    def of(self, mixture: Hashable, nbytes: int) -> dict[tuple[int, int], SlabTaps] | None:
        """The cached taps of a mixture, by (source, frame); None if `nbytes` exceed the limit."""
        self._asked += 1
        if mixture not in self._mixtures:
            for other in [key for key, last in self._last.items() if self._asked - last > IDLE_CALLS]:
                del self._mixtures[other], self._last[other]
            if sum(each for _, each in self._mixtures.values()) + nbytes > self.limit:
                return None
            self._mixtures[mixture] = {}, nbytes
        self._last[mixture] = self._asked
        return self._mixtures[mixture][0]


def slab_taps(inverses: Float[Tensor, "N 2 3"], size: tuple[int, int], fill: str) -> SlabTaps:
    """The taps of warps given by their INVERSE matrices: output pixel q reads at A q + b, in pixels about the centre.

    `fill` is zeros (as outside a slab), border or reflection. Differentiable in the matrices.
    """
    height, width = size
    x = torch.arange(width, device=inverses.device).to(inverses.dtype) - (width - 1) / 2
    y = torch.arange(height, device=inverses.device).to(inverses.dtype) - (height - 1) / 2
    left, right = _read_at(inverses[:, 0], x, y, width, fill)
    top, down = _read_at(inverses[:, 1], x, y, height, fill)
    row, column = width + BEFORE + BEHIND, height + BEFORE + BEHIND
    first = (top * row).add_(left).int().add_(BEFORE * row + BEFORE)
    steps = constant((0, 1, row, row + 1), torch.int32, inverses.device)
    both = right * down
    shares = torch.empty(*both.shape, 4, dtype=both.dtype, device=both.device)
    shares[..., 0] = both + 1 - right - down
    shares[..., 1] = right - both
    shares[..., 2] = down - both
    shares[..., 3] = both
    return SlabTaps(first.unsqueeze(-1) + steps, shares, row, row * column)


def _read_at(rows: Tensor, x: Tensor, y: Tensor, side: int, fill: str) -> tuple[Tensor, Tensor]:
    """Along one axis, (P, N): the whole pixel at or before each sampling point, and the remaining fraction."""
    a, b, shift = rows.unbind(-1)
    start = b * y[:, None] + (shift + (side - 1) / 2)
    at = ((a * x[:, None]) + start[:, None]).flatten(0, 1)
    at = within_border(at, side, fill)
    return floor_and_share(at.clamp(-1, side) if fill == "zeros" else at)


def gather(slab: Float[Tensor, "Hp Wp D"], where: SlabTaps, weights: Float[Tensor, " N"]) -> Float[Tensor, "P D"]:
    """The weighted sum of all warps of a slab; every row is read and added in one pass."""
    shares = where.shares * weights[:, None]
    return F.embedding_bag(where.rows.flatten(1), slab.flatten(0, 1), per_sample_weights=shares.flatten(1), mode="sum")


def products(
    slab: Float[Tensor, "Hp Wp D"], gradient: Float[Tensor, "P D"], where: SlabTaps, budget: int
) -> Float[Tensor, " N"]:
    """The inner product of the gradient with each warp alone, in blocks of at most `budget` numbers."""
    table, (pixels, warps, _) = slab.flatten(0, 1), where.rows.shape
    block = max(1, budget // (warps * slab.shape[-1]))
    total = gradient.new_zeros(warps)
    for start in range(0, pixels, block):
        part = slice(start, start + block)
        rows, shares = where.rows[part].flatten(0, 1), where.shares[part].flatten(0, 1)
        moved = F.embedding_bag(rows, table, per_sample_weights=shares, mode="sum").view(-1, warps, slab.shape[-1])
        total += torch.bmm(moved, gradient[part, :, None]).sum((0, 2))
    return total


def scatter(
    into: Float[Tensor, "Hp Wp D"], gradient: Float[Tensor, "P D"], where: SlabTaps, weights: Float[Tensor, " N"]
) -> None:
    """Adds the transposed gather of `gradient` to `into`: every pixel passes its shares to the pixels it was read from.

    With the taps sorted by their first row, this is also a gather.
    """
    target = into.flatten(0, 1)
    order, givers, offsets = where.by_first_row
    given = (where.shares * weights[:, None]).flatten(0, 1)[order].t().contiguous()
    for step, share in zip((0, 1, where.width, where.width + 1), given, strict=True):
        moved = F.embedding_bag(givers, gradient, offsets, per_sample_weights=share, mode="sum")
        target[step:].add_(moved[: len(target) - step])
