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
from torch._guards import detect_fake_mode


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

    def __contains__(self, key: object) -> bool:
        return key in self._made

    def get(self, key: object, make: Callable[[], Made]) -> Made:
        """The one of that key, made if there is none."""
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
            made = self._made[key] = lasting(make)
            self._bytes += made.nbytes
            while len(self._made) > 1 and self._bytes > self.limit:
                self._bytes -= self._made.popitem(last=False)[1].nbytes
            return made


def constant(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The numbers as a tensor (N,), the same one at every call: not to be written to. Code that is traced gets its own."""
    if is_traced():
        return torch.tensor(numbers, dtype=dtype, device=device)
    return _constant(numbers, dtype, device)


def index(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Whole numbers as an index (N,) on the device, as `constant`."""
    return constant(numbers, torch.int64, device)


def are_fixed(matrices: Tensor) -> bool:
    """Whether their values can be looked at without waiting, and stay: what is made of them can be kept."""
    return matrices.device.type == "cpu" and not matrices.requires_grad and not is_traced()


def is_traced() -> bool:
    """Whether what is made now belongs to a compiler, a function transform or a mode without values, and ends with it."""
    transformed = torch._C._functorch.maybe_current_level() is not None
    return torch.compiler.is_compiling() or transformed or detect_fake_mode() is not None


def lasting(make: Callable[[], Made]) -> Made:
    """What is made, fit for training later even where it is first asked for in inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        return make()


def values_of(matrices: Tensor) -> tuple[bytes, torch.Size, torch.dtype]:
    """A key of what is made of fixed matrices."""
    return matrices.double().contiguous().numpy().tobytes(), matrices.shape, matrices.dtype


@lru_cache(maxsize=4096)
def _constant(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return lasting(lambda: torch.tensor(numbers, dtype=dtype, device=device))
