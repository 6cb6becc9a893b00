"""What is made once and kept: small tensors of fixed numbers, and larger ones up to a number of bytes.

Bringing a list or a new tensor to a GPU makes the CPU wait until the GPU has done all its work; doing it once does not.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


Made = TypeVar("Made", bound=Sized)


class Kept(Generic[Made]):
    """What was last used, up to a number of bytes; the one in use is always kept."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._bytes = 0
        self._made: OrderedDict[object, Made] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], Made]) -> Made:
        """The one of that key, made if there is none."""
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
            made = self._made[key] = make()
            self._bytes += made.nbytes
            while len(self._made) > 1 and self._bytes > self.limit:
                self._bytes -= self._made.popitem(last=False)[1].nbytes
            return made


def constant(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The numbers as a tensor (N,), the same one at every call: not to be written to. Code that is compiled gets its own."""
    if torch.compiler.is_compiling():
        return torch.tensor(numbers, dtype=dtype, device=device)
    return _constant(numbers, dtype, device)


def index(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Whole numbers as an index (N,) on the device, as `constant`."""
    return constant(numbers, torch.int64, device)


def are_fixed(matrices: Tensor) -> bool:
    """Whether their values can be looked at without waiting, and stay: what is made of them can be kept."""
    return matrices.device.type == "cpu" and not matrices.requires_grad and not torch.compiler.is_compiling()


def values_of(matrices: Tensor) -> tuple[bytes, torch.Size, torch.dtype]:
    """A key of what is made of fixed matrices."""
    return matrices.contiguous().numpy().tobytes(), matrices.shape, matrices.dtype


@lru_cache(maxsize=4096)
def _constant(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=dtype, device=device)
