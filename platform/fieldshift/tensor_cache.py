"""Caches of tensors: small constants on a device, and a least-recently-used cache limited by bytes.

Copying a list or a new tensor to a GPU makes the CPU wait for all pending GPU work, so each is copied only once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

import torch
from cachetools import LRUCache
from torch import Tensor
from torch._guards import detect_fake_mode


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


Value = TypeVar("Value", bound=Sized)
Result = TypeVar("Result")


class TensorCache(Generic[Value]):
    """A least-recently-used cache limited by bytes; an entry larger than the limit is the only one."""

    def __init__(self, limit: int) -> None:
        self._entries: LRUCache[object, Value] = LRUCache(limit, getsizeof=lambda value: min(value.nbytes, limit))
        self._lock = threading.Lock()

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def get(self, key: object, compute: Callable[[], Value]) -> Value:
        """The entry of that key, computed if absent."""
        with self._lock:
            if key not in self._entries:
                self._entries[key] = outside_inference(compute)
            return self._entries[key]


def constant(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The numbers as a read-only tensor (N,), the same object at every call. Traced code gets its own copy."""
    if is_traced():
        return torch.tensor(numbers, dtype=dtype, device=device)
    return _constant(numbers, dtype, device)


def index(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Whole numbers as an index (N,) on the device, as `constant`."""
    return constant(numbers, torch.int64, device)


def are_fixed(matrices: Tensor) -> bool:
    """Whether the values can be read without waiting for the device and do not change, so that results can be cached."""
    return matrices.device.type == "cpu" and not matrices.requires_grad and not is_traced()


def is_traced() -> bool:
    """Whether results belong to a compiler, a function transform or a mode without values, and must not be cached."""
    # torch has no public function that tells whether code runs inside a torch.func transform or a fake mode. Its
    # is_compiling is that of all threads: it is true in one that computes while another compiles.
    transformed = torch._C._functorch.maybe_current_level() is not None
    return torch.compiler.is_dynamo_compiling() or transformed or detect_fake_mode() is not None


def outside_inference(compute: Callable[[], Result]) -> Result:
    """Computes tensors that can be used in training later, even when first requested in inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        return compute()


def values_of(matrices: Tensor) -> tuple[bytes, torch.Size, torch.dtype]:
    """A cache key for results computed from fixed matrices."""
    return matrices.double().contiguous().numpy().tobytes(), matrices.shape, matrices.dtype


@lru_cache(maxsize=4096)
def _constant(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return outside_inference(lambda: torch.tensor(numbers, dtype=dtype, device=device))
