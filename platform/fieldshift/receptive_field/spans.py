"""The input rows, columns and frames that each position of a tensor sees, and their change by windows and joins.

Convention: a `Span` holds one axis of the input ("y" rows, "x" columns, "t" frames). Its arrays have the rank of the
tensor they describe and size 1 along every dimension along which they are constant, so a feature map (B, C, H, W) has rows of
shape (1, 1, H, 1). The unit at an index sees input positions low..high, both included; an empty interval (low = inf,
high = -inf) sees nothing. Rows and columns are not clipped: padding continues the image, which makes
the size independent of the image. Frames are clipped: there is no frame before the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeAlias

import numpy as np

Numbers: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Indices: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Span:
    """One input axis as a tensor sees it.

    low, high: first and last input position seen, in pixels or frames.
    dims: the tensor dimensions along which the axis runs.
    step: input positions between adjacent units; None if positions outside do not exist (time).
    period: units after which the pattern of `low` repeats, shifted by period * step (above 1 after upsampling).
    unbounded_by: the operation that lets a unit see the whole axis, empty if there is none; low..high then covers only
        the windows.
    unknown_by: the operation from which the axis is unknown, empty if all is known.
    folded: after a view that merged dimensions of constant value (for example a map of one row): their shape and
        the ones that the axis ran along, so that the view back restores it. None otherwise.
    """

    low: Numbers
    high: Numbers
    dims: frozenset[int]
    step: Fraction | None
    period: int = 1
    unbounded_by: str = ""
    unknown_by: str = ""
    folded: tuple[tuple[int, ...], frozenset[int]] | None = None

    @classmethod
    def of_axis(cls, rank: int, dim: int, length: int, *, clipped: bool) -> Span:
        """The span of an input's own axis: every position sees itself."""
        shape = [1] * rank
        shape[dim] = length
        own = np.arange(length, dtype=np.float64).reshape(shape)
        return cls(low=own, high=own, dims=frozenset({dim}), step=None if clipped else Fraction(1))

    @property
    def rank(self) -> int:
        return self.low.ndim

    def mapped(self, arrays: Callable[[Numbers], Numbers], dims: Iterable[int] | None = None) -> Span:
        """The span after a movement of data: `arrays` acts on low and high, `dims` are the axis' new dimensions."""
        return replace(
            self,
            low=arrays(self.low),
            high=arrays(self.high),
            dims=self.dims if dims is None else frozenset(dims),
        )

    def to_rank(self, rank: int) -> Span:
        """The span with dimensions of size 1 put in front, as broadcasting does."""
        extra = rank - self.rank
        if extra == 0:
            return self
        return self.mapped(lambda a: a.reshape((1,) * extra + a.shape), (d + extra for d in self.dims))

    def unknown(self, rank: int, operation: str) -> Span:
        """A span of the same axis of which nothing is known, since `operation` has no rule."""
        return replace(self.emptied(rank), unknown_by=self.unknown_by or operation)

    def emptied(self, rank: int, unbounded_by: str = "") -> Span:
        """A span of the same axis in which every unit sees nothing through windows."""
        shape = (1,) * rank
        return replace(
            self,
            low=np.full(shape, np.inf),
            high=np.full(shape, -np.inf),
            dims=frozenset(),
            unbounded_by=unbounded_by or self.unbounded_by,
        )


def gather(span: Span, dim: int, length: int, index: Indices, valid: np.ndarray | None = None) -> Span:
    """The span of units that each read several positions along `dim`: the union of the positions' spans.

    index (units, taps) are positions along `dim`, whose true length is `length`; positions outside are continued by
    the step if the axis has one and see nothing if it has none. valid (units, taps) switches single taps off.
    The caller sets the new step and period.
    """
    if dim not in span.dims and span.low.shape[dim] == span.high.shape[dim] == 1:
        return span
    inside = np.clip(index, 0, length - 1)
    shift = np.zeros(index.shape)
    seen = np.ones(index.shape, dtype=bool) if valid is None else valid.copy()
    if span.step is not None and span.dims == {dim}:
        inside, shift = _continued(index, length, span.step, span.period)
    else:
        seen &= (index >= 0) & (index < length)
    seen_low = np.where(_column(seen, dim, span.rank), _taps(span.low, dim, length, inside, shift), np.inf)
    seen_high = np.where(_column(seen, dim, span.rank), _taps(span.high, dim, length, inside, shift), -np.inf)
    return replace(span, low=seen_low.min(axis=dim + 1), high=seen_high.max(axis=dim + 1))


def _taps(values: Numbers, dim: int, length: int, inside: Indices, shift: Numbers) -> Numbers:
    """The values at positions `inside` (units, taps) along `dim`, plus shift; taps become the dimension after `dim`."""
    if values.shape[dim] != length:
        values = np.repeat(values, length, axis=dim)
    picked = np.take(values, inside.reshape(-1), axis=dim)
    shape = values.shape[:dim] + inside.shape + values.shape[dim + 1 :]
    taps: Numbers = picked.reshape(shape) + _column(shift, dim, values.ndim)
    return taps


def _column(values: np.ndarray, dim: int, rank: int) -> np.ndarray:
    """An array (units, taps) shaped to broadcast along dimensions `dim` and `dim` + 1 of rank + 1."""
    shape = [1] * (rank + 1)
    shape[dim], shape[dim + 1] = values.shape
    return values.reshape(shape)


def _continued(index: Indices, length: int, step: Fraction, period: int) -> tuple[Indices, Numbers]:
    """For positions outside 0..length - 1: the position inside with the same phase, and its shift in pixels."""
    before = -np.minimum(index, 0)
    beyond = np.maximum(index - length + 1, 0)
    turns = -(-beyond // period) - (-(-before // period))
    inside = index - turns * period
    fits = (inside >= 0) & (inside < length)
    nearest = np.clip(index, 0, length - 1)
    shift = np.where(fits, turns * float(period * step), (index - nearest) * float(step))
    return np.where(fits, inside, nearest), shift


def window(
    span: Span, dim: int, length: int, units: int, *, kernel: int, stride: int, padding: int, dilation: int
) -> Span:
    """The span after a convolution or pooling along `dim`: `units` outputs, each reading `kernel` dilated taps."""
    index = np.arange(units)[:, None] * stride - padding + np.arange(kernel)[None, :] * dilation
    return rescaled(gather(span, dim, length, index), dim, Fraction(stride))


def transposed_window(
    span: Span, dim: int, length: int, units: int, *, kernel: int, stride: int, padding: int, dilation: int
) -> Span:
    """The span after a transposed convolution: output o reads input i where o = i * stride - padding + k."""
    reach = np.arange(units)[:, None] + padding - np.arange(kernel)[None, :] * dilation
    result = gather(span, dim, length, reach // stride, reach % stride == 0)
    return rescaled(result, dim, Fraction(1, stride))


def rescaled(span: Span, dim: int, units_per_unit: Fraction) -> Span:
    """The span with the step and period that result from reading `units_per_unit` old positions per new one."""
    if dim not in span.dims or span.step is None:
        return span
    up = units_per_unit.denominator * span.period
    return replace(span, step=span.step * units_per_unit, period=up // math.gcd(up, units_per_unit.numerator))


def joined(spans: Iterable[Span], rank: int) -> Span:
    """The union of what several operands of a pointwise operation see, with broadcasting to `rank` dimensions."""
    parts = [span.to_rank(rank) for span in spans]
    first = parts[0]
    if len(parts) == 1:
        return first
    low, high = first.low, first.high
    for part in parts[1:]:
        low, high = np.minimum(low, part.low), np.maximum(high, part.high)
    return replace(_merged(parts), low=low, high=high)


def concatenated(parts: list[tuple[Span | None, int]], dim: int, rank: int) -> Span | None:
    """The span of a concatenation along `dim` of (span or None for a constant, real length) parts."""
    known = [span for span, _ in parts if span is not None]
    if not known:
        return None
    empty = known[0].emptied(rank)
    shape = np.broadcast_shapes(*[_without(ends.shape, dim) for span in known for ends in (span.low, span.high)])
    low = _stacked([((empty if span is None else span).low, length) for span, length in parts], shape, dim)
    high = _stacked([((empty if span is None else span).high, length) for span, length in parts], shape, dim)
    whole = _merged(known)
    if dim not in whole.dims and _constant(low, dim) and _constant(high, dim):
        low, high = low.take([0], axis=dim), high.take([0], axis=dim)
    return replace(whole, low=low, high=high)


def _stacked(parts: list[tuple[Numbers, int]], shape: tuple[int, ...], dim: int) -> Numbers:
    pieces = [np.broadcast_to(values, (*shape[:dim], n, *shape[dim + 1 :])) for values, n in parts]
    return np.concatenate(pieces, axis=dim)


def reduced(span: Span, dims: Iterable[int], operation: str, *, keep: bool, clipped: bool) -> Span:
    """The span after an operation that mixes all positions along `dims`.

    If every unit then sees the same, the axis counts as unbounded, by `operation`; a clipped axis (time) stays
    an interval, because the number of frames is finite.
    """
    over = tuple(sorted(set(dims)))
    low, high = span.low.min(axis=over, keepdims=True), span.high.max(axis=over, keepdims=True)
    left = span.dims - set(over)
    result = replace(span, low=low, high=high, dims=left)
    if span.dims & set(over) and not clipped and all(_constant(low, d) and _constant(high, d) for d in left):
        result = span.emptied(span.rank, operation)
    if keep:
        return settled(result)
    names = [d for d in range(span.rank) if d not in over]
    return settled(result).mapped(lambda a: a.squeeze(over), (names.index(d) for d in result.dims))


def is_constant(span: Span, dim: int) -> bool:
    """Whether all positions along a dimension see the same."""
    return _constant(span.low, dim) and _constant(span.high, dim)


def settled(span: Span) -> Span:
    """The span with the step that its units show, once a view has left part of an axis along a single dimension."""
    if span.step is None or len(span.dims) != 1:
        return span
    apart = apart_by(span, next(iter(span.dims)))
    return span if apart is None or apart == span.step else replace(span, step=apart)


def apart_by(span: Span, dim: int) -> Fraction | None:
    """Input positions between adjacent units along `dim`, over a whole period; None if the units do not show it."""
    low = span.low.min(axis=tuple(d for d in range(span.rank) if d != dim))
    if len(low) <= span.period or not np.isfinite(low).all():
        return None
    apart = low[span.period :] - low[: -span.period]
    if not (apart == apart[0]).all():
        return None
    return Fraction(int(apart[0]), span.period)


def _merged(parts: list[Span]) -> Span:
    stepped = [part for part in parts if part.step is not None and part.dims] or parts
    return replace(
        parts[0],
        dims=frozenset().union(*[part.dims for part in parts]),
        step=stepped[0].step,
        period=math.lcm(*[part.period for part in stepped]),
        unbounded_by=next((part.unbounded_by for part in parts if part.unbounded_by), ""),
        unknown_by=next((part.unknown_by for part in parts if part.unknown_by), ""),
    )


def _constant(values: Numbers, dim: int) -> bool:
    return values.shape[dim] == 1 or bool((values == values.take([0], axis=dim)).all())


def _without(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return (*shape[:dim], 1, *shape[dim + 1 :])
