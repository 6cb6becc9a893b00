"""Rules for operations that compute through windows: convolutions, pooling, resizing; and the lookup of rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from torch import Tensor

from fieldshift.receptive_field.calls import (
    FRAME_AXIS,
    RULES,
    Call,
    Field,
    Rule,
    UntraceableError,
    pointwise,
    rule,
    span_rule,
)
from fieldshift.receptive_field.spans import Span, gather, is_constant, reduced, rescaled, transposed_window, window

for _name in (
    "_native_batch_norm_legit_no_training",
    *(
        "dropout",
        "native_dropout",
        "clone",
        "copy",
        "detach",
        "contiguous",
        "_to_copy",
        "to",
        "lift_fresh",
    ),
    *("prelu", "_prelu_kernel", "rrelu", "hardswish", "hardsigmoid", "hardtanh", "relu6", "masked_fill", "where"),
    *("leaky_relu", "_conj_physical"),  # not tagged in torch 2.11
    *("_conj", "resolve_conj", "relu", "clamp", "rrelu_with_noise", "log_sigmoid_forward", "hardswish", "tril", "triu"),
    *("fake_quantize_per_tensor_affine_cachemask", "fake_quantize_per_channel_affine_cachemask"),
):
    RULES[_name] = pointwise


def rule_for(name: str, *, pointwise_tag: bool) -> Rule:
    """The rule of an operation; torch's pointwise operations need none. Raises UntraceableError if there is none."""
    if name in RULES:
        return RULES[name]
    if pointwise_tag:
        return pointwise
    raise UntraceableError(name)


@rule(
    *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "_local_scalar_dense"),
    *("new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided", "_assert_async", "resize_as"),
)
def _constant(call: Call) -> list[Field | None]:
    return [None for _ in call.outputs]


def _listed(value: int | Sequence[int] | None, count: int, default: Sequence[int] | int) -> list[int]:
    if value is None or (isinstance(value, (list, tuple)) and not value):
        value = default
    listed = list(value) if isinstance(value, (list, tuple)) else [int(value)]  # type: ignore[arg-type]
    return listed * count if len(listed) == 1 else listed


@rule("convolution", "_convolution")
def _convolution(call: Call) -> list[Field | None]:
    source, weight = call.tensor("input"), call.tensor("weight")
    field = call.field_of(source)
    if field is None or call.field_of(weight) is not None:
        raise UntraceableError("convolution with a computed kernel")
    count, output = weight.dim() - 2, call.outputs[0]
    offset = source.dim() - count
    strides, paddings, dilations = (_listed(call.arguments[key], count, 1) for key in ("stride", "padding", "dilation"))
    slide = transposed_window if call.arguments["transposed"] else window
    result: Field = {}
    for axis, start in field.items():
        span = start
        for i in range(count):
            dim = offset + i
            span = slide(
                span,
                dim,
                source.shape[dim],
                output.shape[dim],
                kernel=weight.shape[2 + i],
                stride=strides[i],
                padding=paddings[i],
                dilation=dilations[i],
            )
        result[axis] = _channels_mixed(
            call, span, offset - 1, source.shape[offset - 1], output.shape[offset - 1], clipped=axis == FRAME_AXIS
        )
    return [result]


def _channels_mixed(call: Call, span: Span, dim: int, channels: int, outputs: int, *, clipped: bool) -> Span:
    """The span after mixing each group of channels; unchanged if the channels do not differ.

    Channels that hold a part of the axis, as after a pixel unshuffle, still do afterwards unless every group mixes the same.
    """
    groups = call.arguments["groups"]
    if groups > 1:
        if dim not in span.dims and span.low.shape[dim] == span.high.shape[dim] == 1:
            return span
        first = np.arange(outputs) // (outputs // groups) * (channels // groups)
        index = first[:, None] + np.arange(channels // groups)[None, :]
        span = gather(span, dim, channels, index)
        if dim not in span.dims or not is_constant(span, dim):
            return span
    return reduced(span, [dim], call.name, keep=True, clipped=clipped)


@span_rule(
    *("max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool2d", "max_pool3d", "max_pool1d"),
    *("avg_pool1d", "avg_pool2d", "avg_pool3d", "mkldnn_max_pool2d", "max_pool1d_with_indices"),
)
def _pool(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    count = int(next(c for c in call.name if c.isdigit() and c != "0"))
    kernel = _listed(call.arguments["kernel_size"], count, 1)
    strides = _listed(call.arguments.get("stride"), count, kernel)
    paddings = _listed(call.arguments.get("padding"), count, 0)
    dilations = _listed(call.arguments.get("dilation"), count, 1)
    for i in range(count):
        dim = source.dim() - count + i
        shape = {"kernel": kernel[i], "stride": strides[i], "padding": paddings[i], "dilation": dilations[i]}
        span = window(span, dim, source.shape[dim], call.outputs[0].shape[dim], **shape)
    return span


@span_rule(
    *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
    *("adaptive_avg_pool1d", "adaptive_max_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
)
def _adaptive_pool(call: Call, source: Tensor, span: Span, axis: str) -> Span:
    count = int(next(c for c in call.name if c.isdigit()))
    for dim in range(source.dim() - count, source.dim()):
        length, units = source.shape[dim], call.outputs[0].shape[dim]
        if units == 1:
            span = reduced(span, [dim], call.name, keep=True, clipped=axis == FRAME_AXIS)
            continue
        first = np.arange(units) * length // units
        last = -(-(np.arange(units) + 1) * length // units) - 1
        index = first[:, None] + np.arange(int((last - first).max()) + 1)[None, :]
        span = rescaled(gather(span, dim, length, index, index <= last[:, None]), dim, Fraction(length, units))
    return span


def _scale(call: Call, dim: int, rank: int, length: int, units: int) -> Fraction:
    scales = [call.arguments.get(key) for key in ("scales_d", "scales_h", "scales_w")]
    listed = call.arguments.get("scale_factors")
    given = listed[dim - rank] if listed else scales[dim - rank]
    return Fraction(length, units) if not given else 1 / Fraction(given).limit_denominator(1 << 16)


@span_rule(
    *(f"upsample_{mode}" for mode in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "bicubic2d")),
    *("upsample_trilinear3d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
    *(f"_upsample_nearest_exact{count}d" for count in (1, 2, 3)),
)
def _upsample(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    rank = source.dim()
    for dim in range(rank - int(call.name.removesuffix("_aa").rstrip("d")[-1]), rank):
        length, units = source.shape[dim], call.outputs[0].shape[dim]
        scale = _scale(call, dim, rank, length, units)
        corners = bool(call.arguments.get("align_corners"))
        if corners:
            if call.name.endswith("_aa"):
                raise UntraceableError(f"{call.name} with align_corners")
            scale = Fraction(max(length - 1, 0), max(units - 1, 1))
        rows = [_taps(call.name, unit * scale, scale, corners) for unit in range(units)]
        width = max(last - first for first, last in rows) + 1
        index = np.array([first for first, _ in rows])[:, None] + np.arange(width)[None, :]
        valid = index <= np.array([last for _, last in rows])[:, None]
        span = rescaled(gather(span, dim, length, index, valid), dim, scale)
    return span


def _taps(name: str, corner: Fraction, scale: Fraction, align_corners: bool) -> tuple[int, int]:
    """First and last input position that an output unit of a resize reads, before clamping to the border."""
    centre = corner if align_corners else corner + scale / 2 - Fraction(1, 2)
    if name.endswith("_aa"):  # a filter of this half width, zero at its ends
        half = max(scale, Fraction(1)) * (2 if "bicubic" in name else 1)
        return math.floor(centre - half) + 1, math.ceil(centre + half) - 1
    if "exact" in name:
        nearest = math.floor(corner + scale / 2)
        return nearest, nearest
    if "nearest" in name:
        return math.floor(corner), math.floor(corner)
    before = math.floor(centre)
    between = int(centre != before)
    return (before - between, before + 2 * between) if "bicubic" in name else (before, before + between)
