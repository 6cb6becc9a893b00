"""Recorded tensor operations, and the registry of rules for the receptive fields of their outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from fieldshift.receptive_field.spans import Span, joined

Field: TypeAlias = dict[str, Span]
"""The part of the input that a tensor sees, by axis: "y" rows, "x" columns and, for videos, "t" frames."""

FRAME_AXIS = "t"


class UntraceableError(Exception):
    """An operation has no rule for these arguments; the message names the operation."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A tensor operation: its name without overload, its arguments by name, its outputs and its inputs' fields."""

    name: str
    arguments: dict[str, Any]
    outputs: tuple[Tensor, ...]
    field_of: Callable[[Any], Field | None]
    maker_of: Callable[[Any], Call | None] = lambda _: None
    """The pooling that a tensor of indices came from, None for others."""

    def tracked(self) -> list[tuple[Tensor, Field]]:
        """The tensor arguments, in order and also inside lists, that depend on the input."""
        found = []
        for value in self.arguments.values():
            for item in value if isinstance(value, (list, tuple)) else (value,):
                field = self.field_of(item) if isinstance(item, Tensor) else None
                if field is not None:
                    found.append((item, field))
        return found

    def tensor(self, *names: str) -> Tensor:
        """The first of these arguments that is present."""
        for name in names:
            if isinstance(self.arguments.get(name), Tensor):
                tensor: Tensor = self.arguments[name]
                return tensor
        raise UntraceableError(f"{self.name} without {' or '.join(names)}")

    def dims(self, name: str, rank: int) -> tuple[int, ...]:
        """A dimension argument as non-negative numbers; all dimensions if it is None or empty."""
        value = self.arguments.get(name)
        if value is None or value == []:
            return tuple(range(rank))
        listed: Sequence[int] = value if isinstance(value, (list, tuple)) else [value]
        return tuple(int(d) % max(rank, 1) for d in listed)


Rule: TypeAlias = Callable[[Call], list[Field | None]]
SpanRule: TypeAlias = Callable[[Call, Tensor, Span, str], Span]

RULES: dict[str, Rule] = {}
"""Rules by the operation's name, without namespace, overload and the underscore of in-place variants."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule for whole operations."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def span_rule(*names: str) -> Callable[[SpanRule], SpanRule]:
    """Registers a rule (call, input tensor, span, axis) -> span for operations that read one tracked tensor."""

    def register(function: SpanRule) -> SpanRule:
        def whole(call: Call) -> list[Field | None]:
            source = call.tensor("self", "input")
            field = call.field_of(source)
            if field is None or len(call.tracked()) > 1:
                raise UntraceableError(f"{call.name} with a computed second operand")
            result = {axis: function(call, source, span, axis) for axis, span in field.items()}
            return [result for _ in call.outputs]

        RULES.update(dict.fromkeys(names, whole))
        return function

    return register


def pointwise(call: Call) -> list[Field | None]:
    """Every output position sees the union of what the operands see at that position, after broadcasting."""
    rank = call.outputs[0].dim()
    return [join_fields([field for _, field in call.tracked()], rank) for _ in call.outputs]


def unknown_field(fields: Sequence[Field], rank: int, operation: str) -> Field:
    """The field of a tensor computed by `operation`, which has no rule, from tensors with `fields`."""
    return {axis: span.unknown(rank, operation) for field in fields for axis, span in field.items()}


def join_fields(fields: Sequence[Field], rank: int) -> Field:
    """The union, per axis, of the fields of several tensors."""
    axes = dict.fromkeys(axis for field in fields for axis in field)
    return {axis: joined([field[axis] for field in fields if axis in field], rank) for axis in axes}
