"""Moves channels on a CPU in channels-last maps, whose blocks of channels lie together in each pixel.

A pixel's block of C' channels is a "piece" of C' contiguous numbers. `embedding_bag` adds weighted pieces of a few images at
once, as they lie in memory: a table with a row per pixel for all images would have to be transposed twice. An index
serves as many images as have about `PIECES` output pieces, and the loop over them stays in the CPU's cache.

Shape letters as in `movement`, and R images that share an index, S pieces per pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

PIECES = 2**14  # output pieces of one pass: with fewer, calls cost more than sums; with more, cache misses do
MOST_TAPS = 5  # per output piece: with more, as in the mixture of a search, two transpositions cost less


class PieceTaps(NamedTuple):
    """Taps of R images in the order of their output pieces: image by image, pixel by pixel, block by block.

    `order` (N,) are the taps of an image in that order, `rows` (R * N,) the input pieces that they read, `starts`
    (R * P * G,) the first tap of each output piece.
    """

    images: int
    order: Int[Tensor, " taps"]
    rows: Int[Tensor, " taps_of_all"]
    starts: Int[Tensor, " pieces"]

    @staticmethod
    def of(rows: Int[Tensor, " taps"], starts: Int[Tensor, " out_rows"], blocks: int, per_pixel: int) -> PieceTaps:
        """The index for taps that are sorted by block, then pixel, on maps with `per_pixel` pieces in a pixel."""
        count, pixels = len(rows), len(starts) // blocks
        images = images_at_once(len(starts))
        begins = starts.long()
        numbers = torch.diff(begins, append=begins.new_tensor([count]))
        by_pixel = torch.arange(len(starts)).view(blocks, pixels).T.reshape(-1)
        sorted_numbers = numbers[by_pixel]
        sorted_starts = sorted_numbers.cumsum(0) - sorted_numbers
        order = torch.repeat_interleave(begins[by_pixel] - sorted_starts, sorted_numbers) + torch.arange(count)
        block, pixel = rows.long()[order] // pixels, rows.long()[order] % pixels
        image = torch.arange(images)[:, None]
        return PieceTaps(
            images,
            order,
            (image * pixels * per_pixel + pixel * per_pixel + block).reshape(-1).to(rows.dtype),
            (image * count + sorted_starts).reshape(-1).to(starts.dtype),
        )


def images_at_once(rows: int) -> int:
    """The number of images whose output pieces, G * P = `rows` each, are added in one pass."""
    return max(1, PIECES // max(1, rows))


def pieces_per_pixel(features: Tensor, width: int, blocks: int, precision: torch.dtype) -> int:
    """S: all pieces of a map that can be read as it is, or those of its moved channels, which are copied first."""
    each = width // blocks
    return features.shape[1] // each if reads_all(features, each, precision) else blocks


def reads_all(features: Tensor, each: int, precision: torch.dtype) -> bool:
    """Whether a map consists of pieces of `each` channels in the precision of the sums, so that it is read as it is."""
    return features.shape[1] % each == 0 and features.dtype == precision


def are_few(taps: int, outputs: int) -> bool:
    """Whether so few taps are added to the output pieces that adding pieces is faster than adding rows."""
    return taps <= MOST_TAPS * outputs


def takes(features: Tensor) -> bool:
    """Whether a map's channels lie together on a CPU."""
    return features.is_cpu and features.shape[1] > 1 and features.stride(1) == 1


def move(
    features: Float[Tensor, "batch channels H W"], weights: Tensor, taps: PieceTaps, width: int, blocks: int
) -> Float[Tensor, "batch channels H W"]:
    """The map with its first `width` channels summed by the taps, in its own precision, outside of autograd.

    `weights` (N,) are in the order of the taps before `taps.order`; sums have their precision.
    """
    (channels, height, across), each = features.shape[1:], width // blocks
    whole = reads_all(features, each, weights.dtype)
    count, outputs = len(taps.order), blocks * height * across
    shares = weights.index_select(0, taps.order).repeat(min(taps.images, len(features)))
    moved = torch.empty_like(features, memory_format=torch.channels_last)
    for part, target in zip(features.split(taps.images), moved.split(taps.images), strict=True):
        images = len(part)
        source = part if whole else part[:, :width].to(weights.dtype)
        summed = F.embedding_bag(
            taps.rows[: images * count],
            source.permute(0, 2, 3, 1).reshape(-1, each),
            taps.starts[: images * outputs],
            mode="sum",
            per_sample_weights=shares[: images * count],
        )
        if width < channels:
            target.copy_(part)
        target[:, :width] = summed.view(images, height, across, width).permute(0, 3, 1, 2)
    return moved
