"""A stand-in for a GPU, for machines that have none.

Its tensors say that they are on another device, count on the CPU, refuse to meet tensors of the CPU (as a GPU's do), and
write down in `waits` whatever makes the CPU wait for a GPU: a value that is read, a list that is brought over. PyTorch
takes one such device a process and cannot give it up again, so tests that use it run in a process of their own.

With `FIELDSHIFT_DEVICE=cuda` in the environment the same tests run on a real GPU, whose driver reports the waits.
"""

from __future__ import annotations

import os
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.util import Finalize
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from tests.family import end_with_parent

NAME = os.environ.get("FIELDSHIFT_DEVICE", "elsewhere")
IS_STAND_IN = NAME == "elsewhere"
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten.copy.default}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
READ_BACK = {  # the size of the result, or the result, is a value that the CPU has to know
    aten._local_scalar_dense.default,
    aten.bincount.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
    aten._unique2.default,
    aten.unique_dim.default,
}
waits: Counter[str] = Counter()


def is_elsewhere(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


class Elsewhere(Tensor):
    """A tensor on the device: it holds one of the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        made: Elsewhere = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
            requires_grad=held.requires_grad,
        )
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Elsewhere({self.held})"

    def tolist(self) -> Any:
        wait("tolist")
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"a tensor on the device {NAME} cannot become an array")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class Factories(TorchDispatchMode):
    """Makes tensors that are asked for on the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return run(func, args, kwargs) if is_elsewhere(kwargs.get("device")) else func(*args, **kwargs)


class Lists(TorchFunctionMode):
    """What becomes a tensor of the device within PyTorch, where no dispatch is seen: literals and lists as indices."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and is_elsewhere(kwargs.get("device")):
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is Tensor.new_tensor and isinstance(args[0], Elsewhere):
            return torch.tensor(*args[1:], dtype=kwargs.get("dtype", args[0].dtype)).to(args[0].device)
        if func is Tensor.__getitem__ and isinstance(args[0], Elsewhere):
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = (args[0], tuple(torch.tensor(each).to(NAME) if isinstance(each, list) else each for each in parts))
        return func(*args, **kwargs)


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on what the tensors hold; its result is on the device, unless it was asked for on the CPU."""
    tensors: list[Tensor] = []
    plain_args, plain_kwargs = (replaced(each, partial(plain, tensors)) for each in (args, kwargs))
    strangers = [each for each in tensors if not isinstance(each, Elsewhere) and each.dim() > 0]
    moves = func is aten._to_copy.default or func in COPIES
    if func in INDEXING and isinstance(args[0], Elsewhere):  # takes indices of the CPU, as a GPU does
        if any(each is not None and (each.dtype is torch.bool or not isinstance(each, Elsewhere)) for each in args[1]):
            wait(f"{func}")
    elif strangers and len(strangers) < len(tensors) and not moves:
        raise RuntimeError(f"{func} on {NAME} meets a tensor of shape {tuple(strangers[0].shape)} on the CPU")
    if func in READ_BACK:
        wait(f"{func}")
    asked = kwargs.get("device")
    leaves = asked is not None and not is_elsewhere(asked)
    if moves and not kwargs.get("non_blocking", len(args) > 2 and args[2]):
        places = {isinstance(each, Elsewhere) for each in tensors} | ({not leaves} if asked is not None else set())
        if len(places) > 1:
            wait(f"{func}")
    if asked is not None:
        plain_kwargs["device"] = asked if leaves else "cpu"
    result = func(*plain_args, **plain_kwargs)
    if func is aten.copy_.default and not isinstance(args[0], Elsewhere):
        return args[0]
    if leaves:
        return result.clone() if any(result is each for each in plain_args) else result
    wrapped = replaced(result, Elsewhere)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if tensors else wrapped


def replaced(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """An operation's arguments or results with each tensor changed; PyTorch's own trees take most of the time of a test."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: replaced(each, change) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(replaced(each, change) for each in value)
    return value


def plain(met: list[Tensor], tensor: Tensor) -> Tensor:
    """What a tensor holds; the tensor is added to those met."""
    met.append(tensor)
    return tensor.held if isinstance(tensor, Elsewhere) else tensor


def wait(what: str) -> None:
    """Writes down a wait and the line of ours that asked for it."""
    ours = [f for f in traceback.extract_stack() if "/fieldshift/" in f.filename and "site-packages" not in f.filename]
    place = f"{ours[-1].filename.rpartition('/fieldshift/')[2]}:{ours[-1].lineno}" if ours else "a test"
    waits[f"{what} in {place}"] += 1


def held(tensor: Tensor | None) -> Tensor:
    """What a tensor of the device holds; it has to be on the device."""
    assert tensor is not None
    assert tensor.device.type == NAME, tensor
    return (tensor.held if isinstance(tensor, Elsewhere) else tensor.cpu()).detach()


class Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def _begin() -> None:
    end_with_parent()
    # PyTorch's threads for the device outlive the interpreter, so the process ends without its clean-up.
    Finalize(None, os._exit, args=(0,), exitpriority=-100)
    torch.set_num_threads(1)
    if IS_STAND_IN:
        _setup_privateuseone_for_python_backend(NAME, Backend())
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.cuda.set_sync_debug_mode("warn")
    warnings.simplefilter("always")
    warnings.showwarning = _waited


def _waited(message: Warning | str, *_: Any, **__: Any) -> None:
    """Writes down a wait that the GPU's driver warns of."""
    if "synchroniz" in str(message):
        wait("a synchronisation")


def _within(case: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    waits.clear()
    with ExitStack() as modes:
        if IS_STAND_IN:
            modes.enter_context(Lists())
            modes.enter_context(Factories())
        return case(*arguments)


@contextmanager
def other_device() -> Iterator[Callable[..., Any]]:
    """A process with the device: called with a function and its arguments, it runs them there."""
    with ProcessPoolExecutor(1, get_context("spawn"), _begin) as pool:
        yield lambda case, *arguments: pool.submit(_within, case, arguments).result()
