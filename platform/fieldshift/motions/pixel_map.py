"""The backend for fixed matrices: warps as sparse linear maps over pixels, applied on the CPU to many images at once.

A warp whose matrix needs no gradient reads each output pixel from a few input pixels ("taps") with weights that depend
on neither image nor channel. With pixels as rows of a table, and images and channels contiguous within a row, a tap is
a contiguous run of numbers, and `embedding_bag` adds weighted rows: much faster than gathering numbers one by
one. Tiles of output pixels are small enough to be transposed back (pixels innermost) while they are in the cache.

Shape letters: B batch, F frames of the input, T frames of the output, C channels, K pixels of a frame (H * W), and one
more input pixel for a background where there is one.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fieldshift.motions.sampling import Lookup, Mixture, copied, taps_read
from fieldshift.tensor_cache import TensorCache, values_of

TILE_PIXELS = 2048
GROUP_CHANNELS = (16, 64)  # channels per row: minimum, maximum
TABLE_BYTES = 32 * 2**20
CACHE_BYTES = 256 * 2**20
_HUGE = 32 * 2**20  # bytes from which the allocator returns memory to the system after every use


def mix_by_pixel_map(
    video: Tensor, matrices: Tensor, mixture: Mixture, lookup: Lookup, outside: Tensor | None
) -> Float[Tensor, "batch mixed channels H W"]:
    """The mixed frames of a video (B, F, C, H, W), in single or double precision, under fixed matrices; contiguous.

    `outside` is the colour outside the image, (B, F, C), where the lookup has a background. The map is cached for the
    next call.
    """
    batch, frames, channels, height, width = video.shape
    planes = video.flatten(-2)
    if outside is not None:
        planes = torch.cat([planes, outside[..., None]], dim=-1)
    key = (*values_of(matrices), mixture, frames, height, width, lookup, video.dtype)
    pixel_map = _maps.get(key, lambda: pixel_map_of(matrices, mixture, frames, (height, width), lookup).to(video.dtype))
    return pixel_map(planes).view(batch, len(mixture), channels, height, width)


@dataclass(frozen=True)
class Tile:
    """Output pixels start .. stop of one frame: `taps` are input pixels, with each pixel's first tap and the weights."""

    frame: int
    start: int
    stop: int
    taps: Tensor
    firsts: Tensor
    weights: Tensor


@dataclass(frozen=True)
class PixelMap:
    """A linear map from (B, F, C, K') to (B, T, C, K), the same for every image and channel.

    `tiles` cover every output frame but those in `copies`, (output frame, input frame) pairs that are equal. `dtype` is
    that of the weights, which must match the planes; a map of copies alone has it too, for its adjoint.
    """

    frames_in: int
    pixels_in: int
    frames_out: int
    pixels_out: int
    tiles: tuple[Tile, ...]
    copies: tuple[tuple[int, int], ...]
    dtype: torch.dtype

    def __call__(self, planes: Float[Tensor, "batch frames_in channels pixels_in"]) -> Tensor:
        """The mapped planes, (B, T, C, K); differentiable in the planes, any number of times."""
        result: Tensor = _Apply.apply(planes, self)
        return result

    @cached_property
    def transposed(self) -> PixelMap:
        """The adjoint map, from (B, T, C, K) to (B, F, C, K'), which propagates gradients back."""
        taps, outputs, weights = [], [], []
        for tile in self.tiles:
            counts = torch.diff(tile.firsts, append=tile.firsts.new_tensor([len(tile.taps)]))
            pixels = torch.arange(tile.start, tile.stop) + tile.frame * self.pixels_out
            taps.append(tile.taps.long())
            outputs.append(pixels.repeat_interleave(counts.long()))
            weights.append(tile.weights)
        for out, source in self.copies:
            pixels = torch.arange(self.pixels_out)
            taps.append(pixels + source * self.pixels_in)
            outputs.append(pixels + out * self.pixels_out)
            weights.append(torch.ones(self.pixels_out, dtype=self.dtype))
        order = torch.argsort(torch.cat(taps), stable=True)
        counts = torch.bincount(torch.cat(taps), minlength=self.frames_in * self.pixels_in)
        tiles = cut(
            torch.cat(outputs)[order], torch.cat(weights)[order], counts.view(self.frames_in, -1), range(self.frames_in)
        )
        return PixelMap(self.frames_out, self.pixels_out, self.frames_in, self.pixels_in, tiles, (), self.dtype)

    def to(self, dtype: torch.dtype) -> PixelMap:
        """The map with weights of another dtype."""
        tiles = tuple(replace(tile, weights=tile.weights.to(dtype)) for tile in self.tiles)
        return replace(self, tiles=tiles, dtype=dtype)

    @property
    def nbytes(self) -> int:
        """The memory of the taps, in bytes, without the adjoint's."""
        return sum(t.taps.nbytes + t.firsts.nbytes + t.weights.nbytes for t in self.tiles)

    def run(self, planes: Tensor) -> Tensor:
        """The mapped planes, outside of autograd."""
        batch, _, channels, _ = planes.shape
        video = empty((batch, self.frames_out, channels, self.pixels_out), planes.dtype)
        table_rows = self.frames_in * self.pixels_in
        least, most = GROUP_CHANNELS
        fitting = TABLE_BYTES // (table_rows * planes.dtype.itemsize)
        group = max(1, min(most, max(least, fitting)) // max(1, channels))
        for b in range(0, batch, group):
            part, into = planes[b : b + group], video[b : b + group]
            if self.tiles:
                rows = part.permute(1, 3, 0, 2).reshape(table_rows, -1).contiguous()  # (F K', b C)
            for tile in self.tiles:
                sums = torch.embedding_bag(rows, tile.taps, tile.firsts, False, 0, False, tile.weights)[0]
                pixels = into[:, tile.frame, :, tile.start : tile.stop]
                pixels.copy_(sums.view(-1, len(part), channels).permute(1, 2, 0))
            for out, source in self.copies:
                into[:, out] = part[:, source, :, : self.pixels_out]
        return video


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(planes: Tensor, pixel_map: PixelMap) -> Tensor:
        return pixel_map.run(planes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, PixelMap], output: Tensor) -> None:  # noqa: ARG004
        ctx.pixel_map = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.pixel_map.transposed(gradient), None


_maps: TensorCache[PixelMap] = TensorCache(CACHE_BYTES)


def cut(taps: Tensor, weights: Tensor, counts: Tensor, frames: Sequence[int]) -> tuple[Tile, ...]:
    """Splits taps in the order of the output pixels into tiles; counts (len(frames), K) give the taps per pixel."""
    tiles, first = [], 0
    for frame, of_frame in zip(frames, counts, strict=True):
        for start in range(0, len(of_frame), TILE_PIXELS):
            number = of_frame[start : start + TILE_PIXELS]
            stop = first + int(number.sum())
            firsts = number.cumsum(0) - number
            tile = slice(first, stop)
            tiles.append(
                Tile(frame, start, start + len(number), taps[tile].int(), firsts.int(), weights[tile].contiguous())
            )
            first = stop
    return tuple(tiles)


def pixel_map_of(matrices: Tensor, mixture: Mixture, frames: int, size: tuple[int, int], lookup: Lookup) -> PixelMap:
    """The sparse map of a mixture over `frames` input frames under matrices (M, 2, 3), its weights in float64."""
    area = size[0] * size[1]
    plane = area + lookup.background
    pixels, weights = taps_read(matrices, size, lookup)
    copies = copied(matrices, mixture)
    sampled = [t for t, copy in enumerate(copies) if copy is None]
    taps, shares, counts = [], [], []
    for t in sampled:
        tap = torch.cat([pixels[m] + source * plane for _, source, m in mixture[t]], dim=-1)
        share = torch.cat([weights[m] * weight for weight, _, m in mixture[t]], dim=-1)
        read = share != 0
        taps.append(tap[read])
        shares.append(share[read])
        counts.append(read.sum(-1))
    tiles = cut(torch.cat(taps), torch.cat(shares), torch.stack(counts), sampled) if sampled else ()
    equal = tuple((t, copy) for t, copy in enumerate(copies) if copy is not None)
    return PixelMap(frames, plane, len(mixture), area, tiles, equal, torch.float64)


def count_taps(matrices: Tensor, mixture: Mixture, size: tuple[int, int], lookup: Lookup) -> int:
    """Number of input pixels that the map of `pixel_map_of` weights and adds per channel and image; copies count as zero.

    Matrices are counted one after the other, so that nothing large is in memory.
    """
    terms = [m for t, copy in enumerate(copied(matrices, mixture)) if copy is None for _, _, m in mixture[t]]
    counts = {m: int(taps_read(matrices[m : m + 1], size, lookup)[1].count_nonzero()) for m in set(terms)}
    return sum(counts[m] for m in terms)


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Uninitialised memory; a large tensor uses huge pages where available, as page faults would dominate."""
    size = math.prod(shape) * dtype.itemsize
    if size < _HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, dtype=dtype)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # kernels without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)
