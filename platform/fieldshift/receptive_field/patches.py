"""Rules for operations that rearrange windows and channels: patches and their sums, unpooling, shuffles, gates."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from torch import Tensor

from fieldshift.receptive_field.calls import Call, Field, UntraceableError, join_fields, rule, span_rule
from fieldshift.receptive_field.movements import picked, reshaped_span
from fieldshift.receptive_field.spans import Indices, Span, gather, joined, rescaled, transposed_window


@span_rule("pixel_shuffle")
def _pixel_shuffle(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    factor = call.arguments["upscale_factor"]
    *outer, channels, height, width = source.shape
    left, n = channels // factor**2, len(outer)
    span = reshaped_span(span, tuple(source.shape), (*outer, left, factor, factor, height, width))
    order = [*range(n + 1), n + 3, n + 1, n + 4, n + 2]  # (..., channels, height, factor, width, factor)
    span = span.mapped(lambda a: a.transpose(order), (order.index(d) for d in span.dims))
    old, new = (*outer, left, height, factor, width, factor), tuple(call.outputs[0].shape)
    span = reshaped_span(span, old, new)
    for dim in (n + 1, n + 2):
        span = rescaled(span, dim, Fraction(1, factor))
    return span


@span_rule("pixel_unshuffle")
def _pixel_unshuffle(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    factor = call.arguments["downscale_factor"]
    *outer, channels, height, width = source.shape
    rows, columns, n = height // factor, width // factor, len(outer)
    for dim in (n + 1, n + 2):
        span = rescaled(span, dim, Fraction(factor))
    span = reshaped_span(span, tuple(source.shape), (*outer, channels, rows, factor, columns, factor))
    order = [*range(n + 1), n + 2, n + 4, n + 1, n + 3]  # (..., channels, factor, factor, rows, columns)
    span = span.mapped(lambda a: a.transpose(order), (order.index(d) for d in span.dims))
    return reshaped_span(span, (*outer, channels, factor, factor, rows, columns), tuple(call.outputs[0].shape))


@span_rule("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    groups = call.arguments["groups"]
    order = np.arange(source.shape[1]).reshape(groups, -1).T.reshape(-1)
    return picked(span, 1, source.shape[1], order)


@span_rule("glu")
def _gated_half(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    dim = call.dims("dim", source.dim())[0]
    first, second = np.arange(source.shape[dim]).reshape(2, -1)
    return joined([picked(span, dim, source.shape[dim], half) for half in (first, second)], source.dim())


@span_rule("unfold")
def _unfold(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    rank, dim = source.dim(), call.dims("dimension", source.dim())[0]
    size, step, units = call.arguments["size"], call.arguments["step"], call.outputs[0].shape[dim]
    index = (np.arange(units)[:, None] * step + np.arange(size)[None, :]).reshape(-1)
    span = rescaled(picked(span, dim, source.shape[dim], index), dim, Fraction(step))
    old = (*source.shape[:dim], units * size, *source.shape[dim + 1 :])
    span = reshaped_span(span, old, (*old[:dim], units, size, *old[dim + 1 :]))
    order = [d for d in range(rank + 1) if d != dim + 1] + [dim + 1]
    return span.mapped(lambda a: a.transpose(order), (order.index(d) for d in span.dims))


def _patch_grid(call: Call, image: tuple[int, int]) -> list[tuple[int, Indices]]:
    """For rows and columns: the patches, and the positions (taps, patches) that they read, before clipping to the border."""
    grid = []
    for i, length in enumerate(image):
        kernel, dilation, padding, stride = (
            call.arguments[key][i] for key in ("kernel_size", "dilation", "padding", "stride")
        )
        units = (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        grid.append((units, np.arange(kernel)[:, None] * dilation - padding + np.arange(units)[None, :] * stride))
    return grid


@span_rule("im2col")
def _patches(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    outer, channels = tuple(source.shape[:-3]), source.shape[-3]
    grid = _patch_grid(call, (source.shape[-2], source.shape[-1]))
    for i, (_, index) in enumerate(grid):
        dim = source.dim() - 2 + i
        span = picked(span, dim, source.shape[dim], index.reshape(-1))
        span = rescaled(span, dim, Fraction(call.arguments["stride"][i]))
    (rows, down), (columns, across) = grid
    taps = (len(down), len(across))
    span = reshaped_span(
        span, (*outer, channels, down.size, across.size), (*outer, channels, taps[0], rows, taps[1], columns)
    )
    span = _swapped(span, len(outer) + 2)
    return reshaped_span(
        span, (*outer, channels, *taps, rows, columns), (*outer, channels * taps[0] * taps[1], rows * columns)
    )


@span_rule("col2im")
def _summed_patches(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    outer = tuple(source.shape[:-2])
    image = (call.arguments["output_size"][0], call.arguments["output_size"][1])
    (rows, down), (columns, across) = _patch_grid(call, image)
    taps = (len(down), len(across))
    channels = source.shape[-2] // (taps[0] * taps[1])
    span = reshaped_span(span, tuple(source.shape), (*outer, channels, *taps, rows, columns))
    span = _swapped(span, len(outer) + 2)
    span = reshaped_span(
        span, (*outer, channels, taps[0], rows, taps[1], columns), (*outer, channels, down.size, across.size)
    )
    for i, positions in enumerate((down, across)):
        dim = len(outer) + 1 + i
        reading = [np.flatnonzero(positions.reshape(-1) == unit) for unit in range(image[i])]
        most = max(len(each) for each in reading)
        index = np.array([np.pad(each, (0, most - len(each))) for each in reading])
        valid = np.arange(most)[None, :] < np.array([len(each) for each in reading])[:, None]
        span = gather(span, dim, positions.size, index, valid)
        span = rescaled(span, dim, Fraction(1, call.arguments["stride"][i]))
    return span


def _swapped(span: Span, dim: int) -> Span:
    """The span with dimensions `dim` and `dim` + 1 exchanged."""
    order = list(range(span.rank))
    order[dim], order[dim + 1] = dim + 1, dim
    return span.mapped(lambda a: a.transpose(order), (order.index(d) for d in span.dims))


@rule("max_unpool2d", "max_unpool3d")
def _unpool(call: Call) -> list[Field | None]:
    """A position sees the pooling windows that contain it: their values, and the positions of their maxima."""
    source, indices, output = call.tensor("self"), call.tensor("indices"), call.outputs[0]
    pooling = call.maker_of(indices)
    if pooling is None or pooling.tensor("self").shape[2:] != output.shape[2:]:
        raise UntraceableError(f"{call.name} with indices that no pooling of this size made")
    fields = [field for tensor in (source, indices) if (field := call.field_of(tensor)) is not None]
    count = int(call.name[-2])
    options = {
        key: _each(pooling.arguments.get(key), count, default)
        for key, default in (
            ("kernel_size", None),
            ("stride", pooling.arguments["kernel_size"]),
            ("padding", 0),
            ("dilation", 1),
        )
    }
    result: Field = {}
    for axis, start in join_fields(fields, source.dim()).items():
        span = start
        for i in range(count):
            dim = source.dim() - count + i
            shape = {
                "kernel": options["kernel_size"][i],
                **{key: options[key][i] for key in ("stride", "padding", "dilation")},
            }
            span = transposed_window(span, dim, source.shape[dim], output.shape[dim], **shape)
        result[axis] = span
    return [result]


def _each(value: object, count: int, default: object) -> list[int]:
    """A pooling setting for every dimension."""
    given = default if value is None or value == [] else value
    listed = [int(each) for each in given] if isinstance(given, (list, tuple)) else [int(given)]  # type: ignore[call-overload]
    return listed * count if len(listed) == 1 else listed
