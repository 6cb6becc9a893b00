"""Rules for operations that compute: windows, resizing, statistics over whole dimensions, products, attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
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
    join_fields,
    pointwise,
    rule,
    span_rule,
)
from fieldshift.receptive_field.spans import Span, gather, reduced, rescaled, transposed_window, window

for _name in (
    *("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit_no_training"),
    *(
        "batch_norm",
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
    *("channel_shuffle", "native_channel_shuffle", "_conj", "resolve_conj", "relu", "clamp"),
):
    RULES[_name] = pointwise


def rule_for(name: str, *, pointwise_tag: bool) -> Rule:
    """The rule of an operation; one that torch tags as pointwise needs none. UntraceableError where there is none."""
    if name in RULES:
        return RULES[name]
    if pointwise_tag:
        return pointwise
    raise UntraceableError(name)


@rule(
    *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "_local_scalar_dense"),
    *("new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided", "_assert_async"),
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
    depthwise = call.arguments["groups"] == source.shape[1] == output.shape[1]
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
        if not depthwise:
            span = reduced(span, [offset - 1], call.name, keep=True, clipped=axis == FRAME_AXIS)
        result[axis] = span
    return [result]


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
    *("_upsample_nearest_exact2d", "upsample_trilinear3d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
)
def _upsample(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    if call.name.endswith("_aa"):
        raise UntraceableError(f"{call.name} (antialiased resizing)")
    rank = source.dim()
    for dim in range(rank - int(call.name.rstrip("d")[-1]), rank):
        length, units = source.shape[dim], call.outputs[0].shape[dim]
        scale = _scale(call, dim, rank, length, units)
        corners = bool(call.arguments.get("align_corners"))
        if corners:
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
    if "exact" in name:
        nearest = math.floor(corner + scale / 2)
        return nearest, nearest
    if "nearest" in name:
        return math.floor(corner), math.floor(corner)
    before = math.floor(centre)
    between = int(centre != before)
    return (before - between, before + 2 * between) if "bicubic" in name else (before, before + between)


@span_rule(
    *(
        "mean",
        "sum",
        "amax",
        "amin",
        "max",
        "min",
        "prod",
        "var",
        "std",
        "var_mean",
        "std_mean",
        "logsumexp",
        "all",
        "any",
    ),
    *("norm", "linalg_vector_norm", "argmax", "argmin", "median", "nansum", "aminmax"),
)
def _statistic(call: Call, source: Tensor, span: Span, axis: str) -> Span:
    dims = call.dims("dim", source.dim())
    kept = bool(call.arguments.get("keepdim"))
    return reduced(span, dims, call.name, keep=kept, clipped=axis == FRAME_AXIS)


@span_rule("_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax", "cumsum", "cumprod", "logcumsumexp")
def _mixed(call: Call, source: Tensor, span: Span, axis: str) -> Span:
    return _mixed_along(call, source, span, axis, call.dims("dim", source.dim()))


def _mixed_along(call: Call, source: Tensor, span: Span, axis: str, dims: Sequence[int]) -> Span:
    mixed = reduced(span, [d for d in dims if source.shape[d] >= 1], call.name, keep=True, clipped=axis == FRAME_AXIS)
    own = span if not mixed.unbounded_by else replace(span, unbounded_by=mixed.unbounded_by)
    return own if mixed.unbounded_by else replace(mixed, dims=span.dims)


@span_rule("native_layer_norm", "layer_norm", "rms_norm", "_fused_rms_norm")
def _layer_norm(call: Call, source: Tensor, span: Span, axis: str) -> Span:
    count = len(call.arguments["normalized_shape"])
    return _mixed_along(call, source, span, axis, range(source.dim() - count, source.dim()))


@span_rule("native_group_norm", "group_norm", "instance_norm")
def _group_norm(call: Call, source: Tensor, span: Span, axis: str) -> Span:
    return _mixed_along(call, source, span, axis, range(1, source.dim()))


@span_rule("pixel_shuffle")
def _pixel_shuffle(call: Call, source: Tensor, span: Span, axis: str) -> Span:
    factor = call.arguments["upscale_factor"]
    span = reduced(span, [source.dim() - 3], call.name, keep=True, clipped=axis == FRAME_AXIS)
    for dim in (source.dim() - 2, source.dim() - 1):
        index = np.arange(call.outputs[0].shape[dim])[:, None] // factor
        span = rescaled(gather(span, dim, source.shape[dim], index), dim, Fraction(1, factor))
    return span


@span_rule("pixel_unshuffle")
def _pixel_unshuffle(call: Call, source: Tensor, span: Span, axis: str) -> Span:
    factor = call.arguments["downscale_factor"]
    span = reduced(span, [source.dim() - 3], call.name, keep=True, clipped=axis == FRAME_AXIS)
    for dim in (source.dim() - 2, source.dim() - 1):
        units = call.outputs[0].shape[dim]
        shape = {"kernel": factor, "stride": factor, "padding": 0, "dilation": 1}
        span = window(span, dim, source.shape[dim], units, **shape)
    return span


def _product(*operands: tuple[str, int]) -> Callable[[Call], list[Field | None]]:
    """A sum of products: each named operand is mixed along its contracted dimension, then all are joined.

    A product of two operands that both depend on the image is the attention of one to the other.
    """

    def apply(call: Call) -> list[Field | None]:
        rank = call.outputs[0].dim()
        both = sum(call.field_of(call.arguments[name]) is not None for name, contracted in operands if contracted)
        operation = "attention" if both > 1 else call.name
        fields = []
        for name, contracted in operands:
            tensor = call.arguments[name]
            field = call.field_of(tensor)
            if field is None:
                continue
            fields.append(
                {
                    axis: span
                    if contracted == 0
                    else reduced(span, [contracted % tensor.dim()], operation, keep=True, clipped=axis == FRAME_AXIS)
                    for axis, span in field.items()
                }
            )
        return [join_fields(fields, rank)]

    return apply


RULES["mm"] = _product(("self", -1), ("mat2", -2))
RULES["bmm"] = _product(("self", -1), ("mat2", -2))
RULES["addmm"] = _product(("self", 0), ("mat1", -1), ("mat2", -2))
RULES["baddbmm"] = _product(("self", 0), ("batch1", -1), ("batch2", -2))


@rule(
    *("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention"),
    *("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"),
    *("_scaled_dot_product_attention_math", "scaled_dot_product_attention"),
    *("_scaled_dot_product_fused_attention_overrideable", "_scaled_dot_product_attention_math_for_mps"),
)
def _attention(call: Call) -> list[Field | None]:
    output = call.outputs[0]
    fields = []
    for name, dims in (("query", (-1,)), ("key", (-2, -1)), ("value", (-2,))):
        tensor = call.arguments[name]
        field = call.field_of(tensor)
        if field is None:
            continue
        over = [d % tensor.dim() for d in dims]
        fields.append(
            {
                axis: reduced(span, over, "attention", keep=True, clipped=axis == FRAME_AXIS)
                for axis, span in field.items()
            }
        )
    joined = join_fields(fields, output.dim())
    return [joined, *(None for _ in call.outputs[1:])]
