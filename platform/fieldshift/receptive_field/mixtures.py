"""Rules for operations that mix whole dimensions: statistics, normalisation, sorting, transforms, products, attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from fieldshift.receptive_field.calls import FRAME_AXIS, RULES, Call, Field, join_fields, pointwise, rule, span_rule
from fieldshift.receptive_field.spans import Span, reduced


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
    *("norm", "linalg_vector_norm", "argmax", "argmin", "median", "nanmedian", "nansum", "aminmax", "kthvalue", "mode"),
    "count_nonzero",
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


@span_rule("sort", "argsort", "topk", "cummax", "cummin", "_fft_r2c", "_fft_c2c", "_fft_c2r")
def _rearranged(call: Call, source: Tensor, span: Span, axis: str) -> Span:
    """Every position may come from any other along the dimension, so windows have no position there."""
    over = call.dims("dim", source.dim())
    return reduced(span, over, call.name.removeprefix("_"), keep=True, clipped=axis == FRAME_AXIS)


@span_rule("native_layer_norm", "layer_norm", "rms_norm", "_fused_rms_norm")
def _layer_norm(call: Call, source: Tensor, span: Span, axis: str) -> Span:
    count = len(call.arguments["normalized_shape"])
    return _mixed_along(call, source, span, axis, range(source.dim() - count, source.dim()))


@span_rule("native_group_norm", "group_norm")
def _group_norm(call: Call, source: Tensor, span: Span, axis: str) -> Span:
    return _mixed_along(call, source, span, axis, range(1, source.dim()))


@rule(
    *("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "miopen_batch_norm", "batch_norm"),
    *("_batch_norm_with_update", "_batch_norm_no_update", "instance_norm"),
)
def _batch_norm(call: Call) -> list[Field | None]:
    """One value per channel with BatchNorm's running statistics; those of the map in instance normalisation."""
    source = call.tensor("input")
    field = call.field_of(source)
    training = call.name != "_batch_norm_no_update" and bool(
        call.arguments.get("training", call.arguments.get("use_input_stats", True))
    )
    if field is None or not training:
        return pointwise(call)
    kept = {1} if call.name != "instance_norm" else {0, 1}
    over = [d for d in range(source.dim()) if d not in kept]
    mixed = {axis: _mixed_along(call, source, span, axis, over) for axis, span in field.items()}
    return [
        join_fields([mixed, *(f for t, f in call.tracked() if t is not source)], source.dim()) for _ in call.outputs
    ]


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
