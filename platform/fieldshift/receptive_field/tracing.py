"""Runs a network once, if possible on tensors without data, and follows every operation's receptive field.

The trace works below Python, where each operation is a call of the tensor library, so control flow, wrappers and
modules of any kind do not matter; only operations without a rule do, and they are named.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary

from fieldshift.networks.folded import FoldedModule
from fieldshift.receptive_field import mixtures, movements, operations, patches  # noqa: F401 - their rules
from fieldshift.receptive_field.calls import FRAME_AXIS, Call, Field, UntraceableError, unknown_field
from fieldshift.receptive_field.passages import PassageLog, standing
from fieldshift.receptive_field.spans import Span, gather, joined

_POOLINGS = {"max_pool2d_with_indices", "max_pool3d_with_indices"}
_EXPORTS = {Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr}
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


Seen: TypeAlias = Callable[[str, Tensor, Field, bool], None]
"""Called with a layer's name, its output, its field, and whether values have influenced control flow so far."""


class FieldTrace(TorchDispatchMode):
    """While active, records the field of every tensor that depends on the input.

    left_by: the conversion by which values of such a tensor left the tensor library, after which results are unknown; empty
    if there was none. decided: whether a truth value of one influenced control flow.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fields: Any = WeakIdKeyDictionary()
        self._views: Any = WeakIdKeyDictionary()
        self._poolings: Any = WeakIdKeyDictionary()
        self._start: Field = {}
        self.left_by = ""
        self.decided = False

    def start(self, tensor: Tensor, axes: Mapping[str, int]) -> None:
        """Declares the input: `axes` maps "y", "x" and, for videos, "t" to its dimensions."""
        self._start = self._fields[tensor] = {
            axis: Span.of_axis(tensor.dim(), dim, tensor.shape[dim], clipped=axis == FRAME_AXIS)
            for axis, dim in axes.items()
        }

    def field_of(self, tensor: Tensor) -> Field | None:
        """The tensor's field, None if it does not depend on the input."""
        if self.left_by:
            return unknown_field([self._start], tensor.dim(), self.left_by)
        field: Field | None = self._fields.get(tensor)
        return field

    def leaves(self, tensor: Tensor, by: str) -> None:
        """Records that the values of a tensor leave the tensor library, by a conversion of this name."""
        if tensor in self._fields:
            self.left_by = self.left_by or by

    def replace(self, tensor: Tensor, field: Field) -> None:
        """Sets the tensor's field, for modules whose field is known from their definition."""
        self._fields[tensor] = field

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        shortcut = _shapes_only(func, args)
        result = func(*args, **(kwargs or {})) if shortcut is None else shortcut
        schema = func._schema
        arguments = {spec.name: spec.default_value for spec in schema.arguments if spec.has_default_value()}
        arguments.update(zip((spec.name for spec in schema.arguments), args, strict=False))
        arguments.update(kwargs or {})
        outputs = tuple(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        name = func.overloadpacket.__name__
        written = [s.name for s in schema.arguments if s.alias_info is not None and s.alias_info.is_write]
        call = Call(
            name=name.removesuffix("_"),
            arguments=arguments,
            outputs=outputs,
            field_of=self.field_of,
            maker_of=self._poolings.get,
        )
        if name == "_local_scalar_dense" and call.tracked():
            if arguments["self"].dtype == torch.bool:
                self.decided = True
            else:
                self.leaves(arguments["self"], "item")
        changed = [leaf for key in written for leaf in tree_leaves(arguments[key]) if isinstance(leaf, Tensor)]
        if outputs or changed:
            self._follow(func, call, changed)
        return result

    def _follow(self, func: Any, call: Call, written: list[Tensor]) -> None:
        if not call.tracked():
            if not written:
                self._remember_view(func, call)
            return
        try:
            results = self._results(func, call, written)
        except UntraceableError as error:
            results = self._unknown(call.outputs, call, str(error))
        except Exception:  # arguments that a rule does not support
            results = self._unknown(call.outputs, call, call.name)
        beside = [tensor for tensor in written if not any(tensor is output for output in call.outputs)]
        for tensor, field in zip(beside, self._unknown(beside, call, call.name), strict=True):
            self._store(tensor, field)
        for tensor, field in zip(call.outputs, results, strict=False):
            self._store(tensor, field)
        if call.name in _POOLINGS:
            self._poolings[call.outputs[1]] = call
        if not written:
            self._remember_view(func, call)

    def _results(self, func: Any, call: Call, written: list[Tensor]) -> list[Field | None]:
        if written and call.name in ("copy", "fill", "zero"):
            source = call.arguments.get("src", call.arguments.get("value"))
            field = self.field_of(source) if isinstance(source, Tensor) else None
            return [None if field is None else pointwise_of(field, call.outputs[0].dim())]
        if call.name == "as_strided" and call.outputs[0].shape == call.tensor("self").shape:
            return [self.field_of(call.tensor("self"))]
        return operations.rule_for(call.name, pointwise_tag=torch.Tag.pointwise in func.tags)(call)

    def _unknown(self, tensors: Sequence[Tensor], call: Call, operation: str) -> list[Field | None]:
        seen = [field for _, field in call.tracked()]
        return [unknown_field(seen, tensor.dim(), operation) for tensor in tensors]

    def _remember_view(self, func: Any, call: Call) -> None:
        aliased = [s.name for s in func._schema.arguments if s.alias_info is not None and not s.alias_info.is_write]
        if aliased and isinstance(call.arguments.get(aliased[0]), Tensor):
            for output in call.outputs:
                self._views[output] = (call.arguments[aliased[0]], call)

    def _store(self, tensor: Tensor, field: Field | None) -> None:
        before = self._fields.get(tensor)
        changed = field is None or before is None or any(field[axis] is not before.get(axis) for axis in field)
        if field is None:
            self._fields.pop(tensor, None)
        else:
            self._fields[tensor] = field
        if changed and tensor in self._views:
            base, call = self._views[tensor]
            before = self.field_of(base)
            try:
                written = movements.write_back(call, base, before, tensor, field)
            except UntraceableError as error:
                written = unknown_field([part for part in (before, field) if part is not None], base.dim(), str(error))
            self._store(base, written)


class _Exports(TorchFunctionMode):
    """While active, reports conversions that no operation of the tensor library shows, such as `numpy`, to a trace."""

    def __init__(self, trace: FieldTrace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        if func in _EXPORTS:
            self.trace.leaves(args[0], func.__name__.strip("_"))
        return result


def _shapes_only(func: Any, args: tuple[Any, ...]) -> Any:
    """The result of frequent operations on tensors without data, whose general shape rules take most of the time."""
    if not args or not isinstance(args[0], Tensor) or not args[0].is_meta:
        return None
    if func is torch.ops.aten.native_batch_norm.default:
        return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
    if torch.Tag.pointwise in func.tags and func.overloadpacket.__name__.endswith("_"):
        return args[0]  # an in-place operation keeps the shape
    return None


def pointwise_of(field: Field, rank: int) -> Field:
    """The same field for a tensor of a higher rank, as in broadcasting."""
    return {axis: span.to_rank(rank) for axis, span in field.items()}


def frame_neighbours(field: Field) -> Field:
    """The field of a module that lets every frame read the frame before and the frame after at the same position."""
    if FRAME_AXIS not in field:
        return field
    span = field[FRAME_AXIS]
    for dim in span.dims:
        length = max(span.low.shape[dim], span.high.shape[dim])
        index = np.arange(length)[:, None] + np.array([-1, 0, 1])[None, :]
        span = joined([span, gather(span, dim, length, index)], span.rank)
    return {**field, FRAME_AXIS: span}


@contextlib.contextmanager
def quiet_evaluation(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients during a trace; every submodule's own mode is restored."""
    modes = {part: part.training for part in module.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    module.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for part, mode in modes.items():
            part.training = mode


def run_traced(
    module: nn.Module,
    example: Tensor,
    axes: Mapping[str, int],
    seen: Seen,
    *,
    passages: PassageLog,
    gated: tuple[type[nn.Module], ...] = (),
) -> None:
    """Runs `module` on `example` and calls `seen(layer name, output, field, decided)` at the end of every named module.

    Channels of a folded network stay in place; `passages` records where they would be moved.
    A module of one of the `gated` types counts as reading each frame's neighbours at the same position only.
    Results of operations without a rule are unknown under their names. Data-parallel wrappers are unwrapped.
    """
    trace = FieldTrace()
    watch = _LayerWatch(trace, seen, gated, passages)
    inner = module.module if isinstance(module, WRAPPERS) else module
    handles: list[RemovableHandle] = []
    try:
        for name, part in module.named_modules(remove_duplicate=False):
            if isinstance(part, torch.jit.ScriptModule):  # has no hooks: known only by its final output
                continue
            handles.append(part.register_forward_pre_hook(partial(watch.enter, name)))
            handles.append(part.register_forward_hook(partial(watch.leave, name)))
        eager = torch.compiler.set_stance("force_eager")
        with quiet_evaluation(module), standing(module), eager, _Exports(trace), trace:
            trace.start(example, axes)
            output = inner(example)
        if inner is not module or isinstance(module, torch.jit.ScriptModule):
            watch.leave("", module, (), output)
    finally:
        for handle in handles:
            handle.remove()


class _LayerWatch:
    """Reports the field of the first tracked output at the end of every module."""

    def __init__(
        self,
        trace: FieldTrace,
        seen: Seen,
        gated: tuple[type[nn.Module], ...],
        passages: PassageLog,
    ) -> None:
        self.trace, self.seen, self.gated, self.passages = trace, seen, gated, passages
        self.inputs: dict[str, Field | None] = {}

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, (*self.gated, *get_args(FoldedModule))):
            self.inputs[name] = self.trace.field_of(args[0])

    def leave(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        del args
        entered = self.inputs.get(name)
        if isinstance(module, FoldedModule) and entered is not None:
            output = output.clone()  # without motion it is the input, which other paths read too
        for tensor in tree_leaves(output):
            field = self.trace.field_of(tensor) if isinstance(tensor, Tensor) else None
            if field is None:
                continue
            if isinstance(module, self.gated) and entered is not None:
                field = frame_neighbours(entered)
                self.trace.replace(tensor, field)
            if isinstance(module, FoldedModule) and entered is not None:
                field = self.passages.passed(module, tensor, entered, field)
                self.trace.replace(tensor, field)
            self.seen(name, tensor, field, self.trace.decided)
            break
        return output
