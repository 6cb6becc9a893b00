"""Movements: linear maps over the pixels of a feature map, applied to some of its channels.

An affine warp is linear, and so is a weighted sum of warps: each output pixel is a weighted sum of a few input pixels
("taps"). The taps depend on neither image nor channel, so batch and channels are contiguous in the rows of a
table with one row per pixel, and `embedding_bag` adds weighted rows in one pass, however many warps are mixed. The
adjoint is the same sum with the taps sorted by the pixel they read, so gradients of every order are passes of the same kind.

Shape letters: B batch, C channels, H, W of the map, P = H * W, G blocks of channels that move alike, N taps, D = B * C'
numbers per row (C' channels of one block).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fieldshift.networks import movement_kernel, movement_pieces
from fieldshift.networks.movement_pieces import PieceTaps
from fieldshift.tensor_cache import TensorCache, is_traced, outside_inference


@dataclass(frozen=True)
class Taps:
    """Sparse row sums: output row b is the weighted sum of taps `starts[b]` to `starts[b + 1]`.

    `rows` (N,) are the input rows that the taps read, `starts` (R,) the first tap of each of the R output rows, `receivers`
    (N,) the output row that each tap is added to; input and output have R = G * P rows, block by block.
    """

    rows: Int[Tensor, " taps"]
    starts: Int[Tensor, " out_rows"]
    receivers: Int[Tensor, " taps"]

    @cached_property
    def order(self) -> Int[Tensor, " taps"]:
        """The taps sorted by the row they read, (N,)."""
        return torch.argsort(self.rows, stable=True)

    @cached_property
    def transposed(self) -> Taps:
        """The taps of the adjoint; its weights are `weights[order]`."""
        read = row_counts(self.rows, len(self.starts))
        starts = (read.cumsum(0) - read).to(self.rows.dtype)
        return Taps(self.receivers[self.order], starts, self.rows[self.order])

    @cached_property
    def _in_pieces(self) -> dict[tuple[int, int], PieceTaps]:
        return {}

    def in_pieces(self, blocks: int, per_pixel: int) -> PieceTaps:
        """The taps for maps whose pixels have `per_pixel` pieces (`movement_pieces`)."""
        key = blocks, per_pixel
        if key not in self._in_pieces:
            self._in_pieces[key] = outside_inference(lambda: PieceTaps.of(self.rows, self.starts, blocks, per_pixel))
        return self._in_pieces[key]

    def to(self, device: torch.device) -> Taps:
        """Copies the taps to a device."""
        return Taps(self.rows.to(device), self.starts.to(device), self.receivers.to(device))

    @property
    def nbytes(self) -> int:
        """The memory of the taps and of derived tensors, in bytes."""
        rows = self.rows.nbytes + self.starts.nbytes
        # Of these and of the adjoint, in single and in half precision, which have different pieces.
        in_pieces = 4 * (movement_pieces.images_at_once(len(self.starts)) * rows + 2 * self.rows.nbytes)
        few = movement_pieces.are_few(len(self.rows), len(self.starts))
        return 6 * self.rows.nbytes + 2 * self.starts.nbytes + (in_pieces if few else 0)


WeightedTaps = tuple[Tensor, Taps]
"""Weights (N,) and the taps that they belong to."""


def row_counts(rows: Int[Tensor, " taps"], count: int) -> Int[Tensor, " rows"]:
    """The number of taps in each of `count` rows; torch's bincount would make the CPU wait for a device."""
    taps = torch.zeros(count, dtype=torch.int64, device=rows.device)
    return taps.scatter_add_(0, rows.long(), torch.ones_like(rows, dtype=torch.int64))


def add_rows(table: Tensor, weights: Tensor, taps: Taps) -> Tensor:
    """Computes the output rows (R, D) of a table (R, D) under the taps with weights (N,), outside of autograd."""
    if not len(taps.rows):
        return torch.zeros_like(table)
    return F.embedding_bag(taps.rows, table, taps.starts, mode="sum", per_sample_weights=weights)


class _AddRows(torch.autograd.Function):
    """`add_rows`, differentiable any number of times in the table and in the weights."""

    @staticmethod
    def forward(table: Tensor, weights: Tensor, taps: Taps) -> Tensor:
        return add_rows(table, weights, taps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        table, weights, ctx.taps = inputs
        ctx.save_for_backward(table if ctx.needs_input_grad[1] else None, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,), (table, weights), taps = gradients, ctx.saved_tensors, ctx.taps
        to_table = to_weights = None
        if ctx.needs_input_grad[0]:
            to_table = _AddRows.apply(gradient, weights[taps.order], taps.transposed)
        if ctx.needs_input_grad[1]:
            to_weights = _Products.apply(table, gradient, taps)
        return to_table, to_weights, None


class _Products(torch.autograd.Function):
    """The inner product (N,) of each tap's input row with the gradient's row that it is added to."""

    @staticmethod
    def forward(table: Tensor, gradient: Tensor, taps: Taps) -> Tensor:
        if not len(taps.rows):
            return table.new_zeros(0)
        with torch.enable_grad():  # this product is the gradient of embedding_bag
            ones = torch.ones(len(taps.rows), dtype=table.dtype, device=table.device, requires_grad=True)
            summed = add_rows(table.detach(), ones, taps)
        return torch.autograd.grad(summed, ones, gradient.contiguous())[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        table, gradient, ctx.taps = inputs
        ctx.save_for_backward(table, gradient)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (each,), (table, gradient), taps = gradients, ctx.saved_tensors, ctx.taps
        to_table = _AddRows.apply(gradient, each[taps.order], taps.transposed)
        return to_table, _AddRows.apply(table, each, taps), None


class _MoveChannels(torch.autograd.Function):
    """Adds rows of the first `width` channels of a map and copies the others, in one copy of the map.

    The sums have the precision of the weights, the map keeps its own. One function for all of it, because the gradient of a
    slice is a whole map of zeros, in which a channels-last order is lost. `adjoint` are the weights and taps of the gradient,
    where they are known. Without `setup_context`, which would double the time of a call.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weights: Tensor, taps: Taps, width: int, blocks: int, adjoint: WeightedTaps | None
    ) -> Tensor:
        ctx.save_for_backward(features if ctx.needs_input_grad[1] else None, weights)
        ctx.taps, ctx.width, ctx.blocks, ctx.adjoint = taps, width, blocks, adjoint
        if movement_kernel.takes(features):
            return movement_kernel.launch(features, weights, taps.rows, taps.starts, width, blocks)
        if movement_pieces.are_few(len(taps.rows), len(taps.starts)) and movement_pieces.takes(features):
            per_pixel = movement_pieces.pieces_per_pixel(features, width, blocks, weights.dtype)
            return movement_pieces.move(features, weights, taps.in_pieces(blocks, per_pixel), width, blocks)
        added = add_rows(to_rows(features, blocks, width).to(weights.dtype), weights, taps)
        moved = from_rows(added.to(features.dtype), Layout.of(features), blocks)
        return moved if width == features.shape[1] else torch.cat([moved, features[:, width:]], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,), (features, weights), taps = gradients, ctx.saved_tensors, ctx.taps
        to_features = to_weights = None
        if ctx.needs_input_grad[0]:
            own = None if ctx.adjoint is None else (weights, taps)
            turned = ctx.adjoint or (weights[taps.order], taps.transposed)
            to_features = _MoveChannels.apply(gradient, *turned, ctx.width, ctx.blocks, own)
        if ctx.needs_input_grad[1]:
            tables = [_Rows.apply(each[:, : ctx.width], ctx.blocks).to(weights.dtype) for each in (features, gradient)]
            to_weights = _Products.apply(*tables, taps)
        return to_features, to_weights, None, None, None, None


class Layout(NamedTuple):
    """The memory layout of a map (B, C, H, W), apart from the number of its channels."""

    batch: int
    height: int
    width: int
    channels_last: bool

    @staticmethod
    def of(features: Tensor) -> Layout:
        batch, channels, height, width = features.shape
        return Layout(batch, height, width, channels > 1 and features.stride(1) == 1)


def to_rows(features: Float[Tensor, "batch channels H W"], blocks: int, width: int) -> Float[Tensor, "rows numbers"]:
    """The first `width` channels of a map as a table (G * P, B * C'): one row per pixel, outside of autograd."""
    layout, channels = Layout.of(features), features.shape[1]
    pixels, each = layout.height * layout.width, width // blocks
    if layout.channels_last and features.is_cpu:  # the C' numbers of a block are contiguous and move together
        if channels % each:
            features, channels = features[:, :width], width
        pieces = features.permute(0, 2, 3, 1).reshape(-1, each)  # (B * P * C / C', C')
        order = _transposition((layout.batch, pixels, channels // each), blocks, features.device)
        return pieces.index_select(0, order).view(blocks * pixels, -1)
    parts = features[:, :width].reshape(layout.batch, blocks, each, pixels)
    return parts.permute(1, 3, 0, 2).reshape(blocks * pixels, -1)


def from_rows(table: Float[Tensor, "rows numbers"], layout: Layout, blocks: int) -> Float[Tensor, "batch channels H W"]:
    """The map of a table (G * P, B * C'), the inverse of `to_rows`, outside of autograd."""
    batch, height, width, channels_last = layout
    pixels, each = height * width, table.shape[1] // batch
    if channels_last:
        if table.is_cpu:
            order = _transposition((blocks, pixels, batch), batch, table.device)
            pieces = table.reshape(-1, each).index_select(0, order)
        else:  # a GPU selects short rows more slowly than it copies
            pieces = table.reshape(blocks, pixels, batch, each).permute(2, 1, 0, 3)
        return pieces.reshape(batch, height, width, blocks * each).permute(0, 3, 1, 2)
    parts = table.view(blocks, pixels, batch, each).permute(2, 0, 3, 1)
    return parts.reshape(batch, blocks * each, height, width)


class _Rows(torch.autograd.Function):
    """`to_rows`, differentiable any number of times."""

    @staticmethod
    def forward(features: Tensor, blocks: int) -> Tensor:
        return to_rows(features, blocks, features.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        ctx.layout, ctx.blocks = Layout.of(inputs[0]), inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _Unrows.apply(gradients[0], ctx.layout, ctx.blocks), None


class _Unrows(torch.autograd.Function):
    """`from_rows`, differentiable any number of times."""

    @staticmethod
    def forward(table: Tensor, layout: Layout, blocks: int) -> Tensor:
        return from_rows(table, layout, blocks)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        ctx.blocks = inputs[2]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _Rows.apply(gradients[0], ctx.blocks), None, None


def rows_of(features: Float[Tensor, "batch channels H W"], blocks: int) -> Float[Tensor, "rows numbers"]:
    """`to_rows`, differentiable any number of times."""
    result: Tensor = _Rows.apply(features, blocks)
    return result


def map_of(table: Float[Tensor, "rows numbers"], layout: Layout, blocks: int) -> Float[Tensor, "batch channels H W"]:
    """`from_rows`, differentiable any number of times."""
    result: Tensor = _Unrows.apply(table, layout, blocks)
    return result


def row_sums(
    table: Float[Tensor, "rows numbers"], weights: Float[Tensor, " taps"], taps: Taps
) -> Float[Tensor, "rows numbers"]:
    """The output rows of a table under the taps, differentiable any number of times in the table and in the weights."""
    result: Tensor = _AddRows.apply(table, weights, taps)
    return result


_orders: TensorCache[Tensor] = TensorCache(64 * 2**20)


def _transposition(shape: tuple[int, int, int], first: int, device: torch.device) -> Tensor:
    """The positions, in an array of this shape (I, J, K), of the first rows of its transpose (K, J, I), in order."""

    def computed() -> Tensor:
        numbers = torch.arange(shape[0] * shape[1] * shape[2], device=device).view(shape)
        return numbers[:, :, :first].permute(2, 1, 0).reshape(-1)

    return _orders.get((shape, first, device), computed)


@dataclass(frozen=True)
class Movement:
    """A movement of channels in G blocks of equal width: each pixel becomes a weighted sum of pixels of its block.

    `taps` and `weights` (N,) define the sums; `size` (H, W) is that of the map. `fill_mean` adds each channel's mean outside
    the map instead of zero; `shares` (G,) is the total weight of each block's warps, where it may differ from 1. With
    `is_identity` nothing moves and a map is returned unchanged, bit for bit.
    """

    size: tuple[int, int]
    blocks: int
    taps: Taps
    weights: Float[Tensor, " taps"]
    fill_mean: bool = False
    is_identity: bool = False
    shares: Float[Tensor, " blocks"] | None = None

    @property
    def nbytes(self) -> int:
        """The memory of taps and weights, in bytes."""
        return self.taps.nbytes + 2 * self.weights.nbytes

    def flops(self, width: int) -> int:
        """Floating-point operations per image for `width` moved channels: a multiplication and an addition per tap."""
        return 0 if self.is_identity else 2 * len(self.taps.rows) * (width // self.blocks)

    def move(self, features: Float[Tensor, "batch channels H W"], width: int) -> Float[Tensor, "batch channels H W"]:
        """The map with its first `width` channels moved, differentiable any number of times.

        Half precision is summed in single precision. ValueError where the map has another size.
        """
        if tuple(features.shape[-2:]) != self.size:
            raise ValueError(f"Expected a map of the size {self.size}, but received {tuple(features.shape[-2:])}.")
        if self.is_identity or features.is_meta:
            return features
        tracing: bool = torch.jit.is_tracing()
        traced = tracing or is_traced()
        if not traced and not len(features):
            return features
        if not traced and not self.fill_mean:
            return self.added(features, width)
        moved, passing = features[:, :width], features[:, width:]
        if traced:
            return torch.cat([self._filled(moved, self.gathered), passing], dim=1)
        summed = self._filled(moved.to(self.weights.dtype), lambda part: self.added(part, width)).to(features.dtype)
        return torch.cat([summed, passing], dim=1) if passing.shape[1] else summed

    def move_back(
        self, gradient: Float[Tensor, "batch channels H W"], width: int
    ) -> Float[Tensor, "batch channels H W"]:
        """The gradient of a map, given that of `move`'s result; outside of autograd, for weights that are fixed."""
        assert self.shares is None, "only movements of a search have shares, and these are not fixed"
        if self.is_identity or not len(gradient):
            return gradient
        if not self.fill_mean:
            back: Tensor = _MoveChannels.apply(gradient, *self.adjoint, width, self.blocks, None)
            return back
        of_moved = gradient[:, :width].to(self.weights.dtype)
        summed: Tensor = _MoveChannels.apply(of_moved, *self.adjoint, width, self.blocks, None)
        to_mean = of_moved.mean((2, 3), keepdim=True) - summed.mean((2, 3), keepdim=True)
        return torch.cat([(summed + to_mean).to(gradient.dtype), gradient[:, width:]], dim=1)

    def added(self, features: Float[Tensor, "batch channels H W"], width: int) -> Tensor:
        """The map with its first `width` channels summed; zero outside the map, in a single precision."""
        known = features.requires_grad and torch.is_grad_enabled() and not self.weights.requires_grad
        adjoint = self.adjoint if known else None
        result: Tensor = _MoveChannels.apply(features, self.weights, self.taps, width, self.blocks, adjoint)
        return result

    @cached_property
    def adjoint(self) -> WeightedTaps:
        """The weights and taps of the gradient."""
        return self.weights[self.taps.order], self.taps.transposed

    def _filled(self, moved: Tensor, sums: Callable[[Tensor], Tensor]) -> Tensor:
        """The sums of the moved channels, with the fill outside the map."""
        if not self.fill_mean:
            return sums(moved)
        outside = moved.mean((2, 3), keepdim=True)
        if self.shares is None:
            return sums(moved - outside) + outside
        of_channels = self.shares.repeat_interleave(moved.shape[1] // self.blocks, output_size=moved.shape[1])
        return sums(moved - outside) + outside * of_channels.to(moved.dtype)[:, None, None]

    def gathered(self, moved: Float[Tensor, "batch width H W"]) -> Tensor:
        """The same sums in operations that every exporter supports: a gather of equally many taps per pixel, and a sum."""
        batch, channels = moved.shape[:2]
        pixels, each = self.size[0] * self.size[1], channels // self.blocks
        rows, shares = self.padded
        parts = []
        for block in range(self.blocks):
            flat = moved[:, block * each : (block + 1) * each].flatten(2)  # (B, C', P)
            read = flat[:, :, rows[block].flatten()].unflatten(2, (pixels, -1))
            parts.append((read * shares[block].to(read.dtype)).sum(-1))
        return torch.cat(parts, dim=1).reshape(batch, channels, *self.size)

    @cached_property
    def padded(self) -> tuple[Int[Tensor, "blocks P most"], Float[Tensor, "blocks P most"]]:
        """The taps as pixels (G, P, M) of their block and weights (G, P, M), M the maximum number of taps; 0 for padding."""
        starts, pixels = self.taps.starts.long(), self.size[0] * self.size[1]
        receivers = self.taps.receivers.long()
        number = torch.arange(len(receivers), device=starts.device) - starts[receivers]
        most = int(number.max()) + 1 if len(number) else 1
        rows = torch.zeros(len(starts), most, dtype=torch.int64, device=starts.device)
        shares = torch.zeros(len(starts), most, dtype=self.weights.dtype, device=starts.device)
        rows[receivers, number] = self.taps.rows.long() % pixels
        shares[receivers, number] = self.weights.detach()
        return rows.view(self.blocks, pixels, most), shares.view(self.blocks, pixels, most)
