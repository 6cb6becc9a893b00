"""A Triton kernel that moves channels on a GPU: one read and one write of the map, however it lies in memory.

On a CPU, and on a GPU without Triton, `movement` computes the same sums from library operations.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fieldshift.errors import one_line

NUMBERS = 2048  # of a program's tile
MOST_CHANNELS = 64  # of a program's tile
MOST_NUMBERS = 2**31 - 1  # in an image: places within it have 32 bits
BLOCKS_OF_GRID = 65_535  # CUDA's limit for the second and third dimension of a grid


@cache
def _kernel() -> Any:
    import triton
    import triton.language as tl

    @triton.jit
    def move(  # type: ignore[no-untyped-def]  # noqa: PLR0913 - a kernel takes pointers and strides one by one
        source, target, rows, weights, starts, count, pixels, channels, width, each, total,
        source_image, source_pixel, source_channel, target_image, target_pixel, target_channel,
        PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
    ):  # fmt: skip
        pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[:, None]
        channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
        image = tl.program_id(2).to(tl.int64)
        inside = (pixel < pixels) & (channel < channels)
        moves = inside & (channel < width)
        source += image * source_image
        target += image * target_image

        row = (channel // each) * pixels + pixel
        tap = tl.load(starts + row, mask=moves, other=0)
        end = tl.load(starts + row + 1, mask=moves & (row + 1 < total), other=count)
        end = tl.where(moves, end, tap)
        summed = tl.zeros([PIXELS, CHANNELS], dtype=weights.dtype.element_ty)
        for _ in range(tl.max(end - tap)):
            more = tap < end
            read = tl.load(rows + tap, mask=more, other=0) % pixels
            share = tl.load(weights + tap, mask=more, other=0.0)
            value = tl.load(source + read * source_pixel + channel * source_channel, mask=more, other=0.0)
            summed += share * value.to(summed.dtype)
            tap += 1
        passing = tl.load(
            source + pixel * source_pixel + channel * source_channel, mask=inside & (channel >= width), other=0.0
        )
        result = tl.where(channel < width, summed.to(passing.dtype), passing)
        tl.store(target + pixel * target_pixel + channel * target_channel, result, mask=inside)

    return move


def launch(features: Tensor, weights: Tensor, rows: Tensor, starts: Tensor, width: int, blocks: int) -> Tensor:
    """The map (B, C, H, W) with its first `width` channels summed by the taps, in its own layout and precision.

    `rows` (N,) and `starts` are those of the taps, `weights` (N,) theirs. Sums have the precision of the weights. The two
    spatial dimensions of the map have to be contiguous to each other.
    """
    batch, channels, height, across = features.shape
    pixels = height * across
    moved = torch.empty_like(features)
    wide = min(MOST_CHANNELS, _power_of_two(channels))
    tall = min(_power_of_two(pixels), NUMBERS // wide)
    grid = (-(-pixels // tall), -(-channels // wide), batch)
    with torch.cuda.device_of(features):  # Triton starts kernels on the current device
        _kernel()[grid](
            features, moved, rows, weights, starts, len(rows), pixels, channels, width, width // blocks,
            blocks * pixels, features.stride(0), features.stride(3), features.stride(1), moved.stride(0), moved.stride(3),
            moved.stride(1), PIXELS=tall, CHANNELS=wide,
        )  # fmt: skip
    return moved


def _power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


def takes(features: Tensor) -> bool:
    """Whether the kernel can move channels of this map: on a GPU with Triton, in a layout that it reads."""
    return (
        features.is_cuda
        and features.stride(2) == features.shape[3] * features.stride(3)
        and 0 < len(features) <= BLOCKS_OF_GRID
        and _extent(features) <= MOST_NUMBERS
        and _compiles(features.device, features.dtype)
    )


def _extent(features: Tensor) -> int:
    """The distance in memory, in numbers, between the first and the last number of an image."""
    channels, height, width = features.shape[1:]
    return (height * width - 1) * features.stride(3) + (channels - 1) * features.stride(1)


@cache
def _compiles(device: torch.device, precision: torch.dtype) -> bool:
    """Whether Triton is there and compiles kernels of this precision for the device; warns where it does not."""
    try:
        numbers = torch.arange(2, dtype=torch.int32, device=device)
        with torch.inference_mode(False), torch.no_grad():
            summed = torch.promote_types(precision, torch.float32)
            features, weights = (
                torch.ones(1, 2, 1, 1, device=device, dtype=precision),
                torch.ones(2, device=device, dtype=summed),
            )
            launch(features, weights, numbers, numbers, 2, 2)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Triton's own errors are of many kinds, and any of them means the same
        warnings.warn(
            f"Triton compiles no kernel for {device} ({one_line(error, 200)}); channels are moved by slower operations. "
            "Often a C compiler, such as gcc, is missing.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True
