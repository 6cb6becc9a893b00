"""Rules for operations that only move data: views, permutations, slices, concatenations, padding, rolls.

`write_back` handles the other direction: the field of a tensor after a write to a view of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from fieldshift.receptive_field.calls import FRAME_AXIS, Call, Field, UntraceableError, rule, span_rule
from fieldshift.receptive_field.spans import Indices, Numbers, Span, concatenated, gather, joined, rescaled

RESHAPES = (
    "view",
    "_unsafe_view",
    "reshape",
    "_reshape_alias",
    "unsqueeze",
    "squeeze",
    "flatten",
    "unflatten",
    "alias",
)
_PERMUTATIONS = ("permute", "transpose", "t", "numpy_T")


@span_rule(*RESHAPES)
def _reshape(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    return reshaped_span(span, tuple(source.shape), tuple(call.outputs[0].shape))


def reshaped_span(span: Span, old: tuple[int, ...], new: tuple[int, ...]) -> Span:
    """The span after a view from shape `old` to shape `new` (true shapes; the span's arrays may be smaller)."""
    groups = list(_groups(old, new))
    low, high = _moved(span.low, groups, old, new), _moved(span.high, groups, old, new)
    dims: set[int] = set()
    folded = span.folded
    for before, after in groups:
        if not span.dims & set(before):
            continue
        varying = {d for d in after if low.shape[d] > 1 or high.shape[d] > 1}
        if not varying and len(before) > len(after):
            folded = tuple(old[d] for d in before), frozenset(before.index(d) for d in span.dims & set(before))
        elif not varying and span.folded is not None and span.folded[0] == tuple(new[d] for d in after):
            varying = {after[i] for i in span.folded[1]}
        dims |= varying or set(after)
    return replace(span, low=low, high=high, dims=frozenset(dims), folded=folded)


def _moved(
    values: Numbers, groups: list[tuple[list[int], list[int]]], old: tuple[int, ...], new: tuple[int, ...]
) -> Numbers:
    for before, after in groups:
        if (len(before), len(after)) != (1, 1) and any(values.shape[d] != 1 for d in before):
            values = np.broadcast_to(values, [old[d] if d in before else n for d, n in enumerate(values.shape)])
    shape: list[int] = []
    for before, after in groups:
        varies = any(values.shape[d] != 1 for d in before)
        shape += [new[d] if varies else 1 for d in after]
    return _compressed(values.reshape(shape))


def _groups(old: tuple[int, ...], new: tuple[int, ...]) -> Iterable[tuple[list[int], list[int]]]:
    """Pairs of runs of old and new dimensions with equal products, as short as possible.

    Dimensions of size 1 without a counterpart go with those before them.
    """
    i = j = 0
    last: tuple[list[int], list[int]] | None = None
    while i < len(old) and j < len(new):
        before, after = [i], [j]
        left, right = old[i], new[j]
        while left != right:
            if left < right:
                i += 1
                before.append(i)
                left *= old[i]
            else:
                j += 1
                after.append(j)
                right *= new[j]
        i, j = i + 1, j + 1
        while i < len(old) and old[i] == 1 and j < len(new) and new[j] != 1:
            before.append(i)
            i += 1
        while j < len(new) and new[j] == 1 and i < len(old) and old[i] != 1:
            after.append(j)
            j += 1
        if last is not None:
            yield last
        last = (before, after)
    rest = (list(range(i, len(old))), list(range(j, len(new))))
    yield (rest if last is None else (last[0] + rest[0], last[1] + rest[1]))


def _compressed(values: Numbers) -> Numbers:
    for dim in range(values.ndim):
        if values.shape[dim] > 1:
            first = values.take([0], axis=dim)
            if bool((values == first).all()):
                values = first
    return values


@span_rule(*_PERMUTATIONS)
def _permute(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    order = _order(call, source.dim())
    return span.mapped(lambda a: a.transpose(order), (order.index(d) for d in span.dims))


def _order(call: Call, rank: int) -> list[int]:
    if call.name == "permute":
        return list(call.dims("dims", rank))
    if call.name in ("t", "numpy_T"):
        return list(reversed(range(rank)))
    order = list(range(rank))
    a, b = call.dims("dim0", rank)[0], call.dims("dim1", rank)[0]
    order[a], order[b] = order[b], order[a]
    return order


@span_rule("expand")
def _expand(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    new = tuple(call.outputs[0].shape)
    span = span.to_rank(len(new))
    old = (1,) * (len(new) - source.dim()) + tuple(source.shape)
    return span.mapped(lambda a: a, (d for d in span.dims if old[d] == new[d]))


@span_rule("repeat")
def _repeat(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    times = call.arguments["repeats"]
    span = span.to_rank(len(times))
    return span.mapped(lambda a: np.tile(a, [n if a.shape[d] > 1 else 1 for d, n in enumerate(times)]))


def picked(span: Span, dim: int, length: int, index: Indices) -> Span:
    """The span of the units at positions `index` along `dim`."""
    return gather(span, dim, length, index[:, None])


@span_rule("slice")
def _slice(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    dim, index = _sliced(call, source)
    step = int(call.arguments.get("step") or 1)
    return rescaled(picked(span, dim, source.shape[dim], index), dim, Fraction(step))


def _sliced(call: Call, source: Tensor) -> tuple[int, Indices]:
    dim = call.dims("dim", source.dim())[0] if "dim" in call.arguments else 0
    bounds = slice(call.arguments.get("start"), call.arguments.get("end"), call.arguments.get("step") or 1)
    return dim, np.arange(source.shape[dim])[bounds]


@span_rule("select")
def _select(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    dim = call.dims("dim", source.dim())[0]
    one = picked(span, dim, source.shape[dim], np.array([call.arguments["index"] % source.shape[dim]]))
    return _dropped(one, dim)


def _dropped(span: Span, dim: int) -> Span:
    return span.mapped(lambda a: a.squeeze(dim), (d - (d > dim) for d in span.dims if d != dim))


@rule("split", "split_with_sizes", "chunk", "unsafe_chunk", "unsafe_split", "unbind")
def _split(call: Call) -> list[Field | None]:
    source = call.tensor("self")
    field = call.field_of(source)
    if field is None:
        raise UntraceableError(call.name)
    dim, start, results = call.dims("dim", source.dim())[0] if "dim" in call.arguments else 0, 0, []
    for output in call.outputs:
        size = 1 if call.name == "unbind" else output.shape[dim]
        index = np.arange(start, start + size)
        part = {axis: picked(span, dim, source.shape[dim], index) for axis, span in field.items()}
        results.append({a: _dropped(s, dim) for a, s in part.items()} if call.name == "unbind" else part)
        start += size
    return list(results)


@rule("cat", "stack")
def _cat(call: Call) -> list[Field | None]:
    output, tensors = call.outputs[0], call.arguments["tensors"]
    rank = output.dim()
    dim = call.dims("dim", rank)[0] if "dim" in call.arguments else 0
    stack = call.name == "stack"
    fields = [call.field_of(tensor) for tensor in tensors]
    axes = dict.fromkeys(axis for field in fields if field is not None for axis in field)
    result: Field = {}
    for axis in axes:
        parts: list[tuple[Span | None, int]] = []
        for tensor, field in zip(tensors, fields, strict=True):
            span = None if field is None else field.get(axis)
            if span is not None and stack:
                span = span.mapped(lambda a: np.expand_dims(a, dim), (d + (d >= dim) for d in span.dims))
            parts.append((span, 1 if stack else tensor.shape[dim]))
        whole = concatenated(parts, dim, rank)
        assert whole is not None
        result[axis] = whole
    return [result]


@span_rule("constant_pad_nd", *(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)))
def _pad(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    pads = call.arguments.get("pad") or call.arguments["padding"]
    for pair in range(len(pads) // 2):
        dim, before = source.dim() - 1 - pair, pads[2 * pair]
        units = call.outputs[0].shape[dim]
        span = picked(span, dim, source.shape[dim], np.arange(units) - before)
    return span


@span_rule("roll")
def _roll(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    if not call.arguments.get("dims"):
        raise UntraceableError("roll without dims")
    for dim, shift in zip(call.dims("dims", source.dim()), call.arguments["shifts"], strict=True):
        length = source.shape[dim]
        span = picked(span, dim, length, (np.arange(length) - shift) % length)
    return span


@span_rule("flip")
def _flip(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    for dim in call.dims("dims", source.dim()):
        span = rescaled(picked(span, dim, source.shape[dim], np.arange(source.shape[dim])[::-1]), dim, Fraction(-1))
    return span


@span_rule("index_select")
def _index_select(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    dim = call.dims("dim", source.dim())[0]
    if dim not in span.dims and span.low.shape[dim] == 1:
        return span
    return _selected(span, dim, source.shape[dim], _known(call, call.arguments["index"]))


@span_rule("index")
def _index(call: Call, source: Tensor, span: Span, axis: str) -> Span:  # noqa: ARG001 - the signature of rules
    given = {dim: index for dim, index in enumerate(call.arguments["indices"]) if index is not None}
    if len(given) == 1:
        ((dim, index),) = given.items()
        if index.dim() == 1 and index.dtype != torch.bool:
            return _selected(span, dim, source.shape[dim], _known(call, index) % source.shape[dim])
    where = tuple(_known(call, given[dim]) if dim in given else slice(None) for dim in range(source.dim()))
    low, high = (_compressed(np.broadcast_to(a, tuple(source.shape))[where]) for a in (span.low, span.high))
    dims = frozenset(d for d in range(low.ndim) if low.shape[d] > 1 or high.shape[d] > 1)
    if span.dims and not dims:
        raise UntraceableError(f"{call.name} of several dimensions")
    return replace(span, low=low, high=high, dims=dims, step=None)


def _known(call: Call, index: Tensor) -> Indices:
    if index.is_meta:
        raise UntraceableError(f"{call.name} with an index known only when running")
    values: Indices = index.numpy(force=True)
    return values


def _selected(span: Span, dim: int, length: int, index: Indices) -> Span:
    """The span of the units at `index`, with a step if they are evenly spaced, and none otherwise."""
    chosen = picked(span, dim, length, index)
    if dim not in span.dims:
        return chosen
    apart = set(np.diff(index).tolist())
    if len(apart) == 1 and 0 not in apart:
        return rescaled(chosen, dim, Fraction(apart.pop()))
    if np.array_equal(index, np.arange(len(index)) * length // max(len(index), 1)):
        return rescaled(chosen, dim, Fraction(length, len(index)))
    return replace(chosen, step=None)


def write_back(call: Call, base: Tensor, before: Field | None, view: Tensor, written: Field | None) -> Field | None:
    """The field of `base` after writing `written` (None: a constant) to `view`, a view of it made by `call`."""
    if written is None and before is None:
        return None
    result: Field = {}
    for axis, span in {**(before or {}), **(written or {})}.items():
        new = (written or {}).get(axis, span.emptied(view.dim()))
        old = (before or {}).get(axis, new.emptied(base.dim()))
        result[axis] = _overwritten(call, base, old, view, new, exact=axis == FRAME_AXIS)
    return result


def _overwritten(call: Call, base: Tensor, old: Span, view: Tensor, new: Span, *, exact: bool) -> Span:
    if call.name in RESHAPES:
        return reshaped_span(new, tuple(view.shape), tuple(base.shape))
    if call.name in _PERMUTATIONS:
        order = _order(call, base.dim())
        back = list(np.argsort(order))
        return new.mapped(lambda a: a.transpose(back), (order[d] for d in new.dims))
    if call.name == "select":
        dim = call.dims("dim", base.dim())[0]
        index = np.array([call.arguments["index"] % base.shape[dim]])
        new = new.mapped(lambda a: np.expand_dims(a, dim), (d + (d >= dim) for d in new.dims))
    elif call.name == "slice":
        dim, index = _sliced(call, base)
    else:
        raise UntraceableError(f"a write into the result of {call.name}")
    if not exact and dim not in old.dims | new.dims and new.low.shape[dim] == new.high.shape[dim] == 1:
        # A write to some channels or frames: other channels keep the rows and columns, so these may represent all.
        return old if not np.isfinite(new.low).any() else joined([old, new], base.dim())
    shape = list(np.broadcast_shapes(*[_one(ends, dim) for ends in (old.low, old.high, new.low, new.high)]))
    shape[dim] = base.shape[dim]

    stepped = old if old.step is not None and old.dims else new
    return replace(
        stepped,
        low=_put(old.low, new.low, shape, dim, index),
        high=_put(old.high, new.high, shape, dim, index),
        dims=old.dims | new.dims,
        unbounded_by=old.unbounded_by or new.unbounded_by,
        unknown_by=old.unknown_by or new.unknown_by,
    )


def _put(target: Numbers, values: Numbers, shape: list[int], dim: int, index: Indices) -> Numbers:
    whole = np.moveaxis(np.broadcast_to(target, shape).copy(), dim, 0)
    new = np.broadcast_to(values, [len(index) if d == dim else n for d, n in enumerate(shape)])
    whole[index] = np.moveaxis(new, dim, 0)
    return _compressed(np.moveaxis(whole, 0, dim))


def _one(values: Numbers, dim: int) -> tuple[int, ...]:
    return (*values.shape[:dim], 1, *values.shape[dim + 1 :])
