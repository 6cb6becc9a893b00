"""Communication between workers. Every function is the identity in a single process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fieldshift.errors import UserError
from fieldshift.wording import counted

T = TypeVar("T")


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    return dist.get_rank() if is_distributed() else 0


def average_across_workers(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean over workers of each tensor, sent as one flat buffer (one message for any number of tensors)."""
    if not is_distributed():
        return list(tensors)
    flat = torch.cat([tensor.detach().reshape(-1).double() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    pieces = flat.split([tensor.numel() for tensor in tensors])
    return [piece.view_as(tensor).to(tensor.dtype) for piece, tensor in zip(pieces, tensors, strict=True)]


def sum_across_workers(tensor: Tensor) -> Tensor:
    """The sum over workers, as a new tensor."""
    total = tensor.clone()
    if is_distributed():
        dist.all_reduce(total)
    return total


def gather_across_workers(values: Sequence[Any]) -> list[Any]:
    """The values of all workers, ordered by rank, on every worker; plain values and small objects only."""
    if not is_distributed():
        return list(values)
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, list(values))
    return [value for part in parts for value in part]


def from_first(value: Callable[[], T]) -> T:
    """Returns rank 0's result on every rank; other ranks do not call. A UserError of rank 0 is raised on every rank."""
    if not is_distributed():
        return value()
    sent: list[Any] = [None, None]
    if rank() == 0:
        try:
            sent[0] = value()
        except UserError as error:
            sent[1] = str(error)
    dist.broadcast_object_list(sent, src=0)
    if sent[1] is not None:
        raise UserError(sent[1])
    return sent[0]  # type: ignore[no-any-return]


def broadcast_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrites every tensor in place with rank 0's values."""
    if is_distributed():
        for tensor in tensors:
            dist.broadcast(tensor.data, src=0)


def assert_equal_across_workers(tensor: Tensor, name: str) -> None:
    """Raises RuntimeError if any rank's values differ from rank 0's: a desynchronised search must stop, not drift."""
    if not is_distributed():
        return
    first = tensor.detach().clone()
    dist.broadcast(first, src=0)
    differs = torch.tensor(float(not torch.equal(first, tensor.detach())), device=tensor.device)
    dist.all_reduce(differs)
    if differs.item() > 0:
        raise RuntimeError(
            f"{name} differs between workers on {counted(int(differs.item()), 'rank')}: the ranks are out of step."
        )
