"""Motions as operators that torch.compile keeps whole: a motion is looked up when the compiled code runs.

Its movements are computed once per size of the map and cached behind a lock, which a tracer cannot follow: the graph would
break at every place. The operators take the motion's name instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fieldshift.networks.cells import Cells
from fieldshift.networks.movement import Movement

MovementOf = Callable[[tuple[int, int], Tensor, "Cells | None"], Movement]

# A CUDA graph would record the addresses of cached tensors, which the cache may free.
OUTSIDE_CUDA_GRAPHS = (torch.Tag.cudagraph_unsafe,)

_motions: dict[str, MovementOf] = {}


def register(name: str, motion: MovementOf) -> None:
    """Makes a motion known by its name, which must depend on all that it computes."""
    _motions[name] = motion


def is_compiling() -> bool:
    """Whether torch.compile is tracing, not an export, whose graph must have operations that every runtime has."""
    return torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting()


@torch.library.custom_op("fieldshift::move", mutates_args=(), tags=OUTSIDE_CUDA_GRAPHS)
def move(features: Tensor, motion: str, width: int, image: Sequence[int], stride: int) -> Tensor:
    """The map (B, C, H, W) with its first `width` channels moved by a registered motion.

    `image` (H, W) is that of the image and `stride` the pixels per cell; empty and 0 where they are unknown.
    """
    moved = _movement(features, motion, image, stride).move(features, width)
    return _laid_out(moved, features)


@torch.library.custom_op("fieldshift::move_back", mutates_args=(), tags=OUTSIDE_CUDA_GRAPHS)
def move_back(gradient: Tensor, motion: str, width: int, image: Sequence[int], stride: int) -> Tensor:
    """The gradient of the map, given that of `move`'s result."""
    return _laid_out(_movement(gradient, motion, image, stride).move_back(gradient, width), gradient)


def _movement(features: Tensor, motion: str, image: Sequence[int], stride: int) -> Movement:
    size = int(features.shape[-2]), int(features.shape[-1])
    cells = Cells.of(size, (image[0], image[1]), stride) if image else None
    return _motions[motion](size, features, cells)


def _laid_out(moved: Tensor, like: Tensor) -> Tensor:
    """A tensor of its own with the strides of `empty_like`, as an operator promises."""
    result = torch.empty_like(like)
    return moved if moved.stride() == result.stride() and moved is not like else result.copy_(moved)


@move.register_fake
@move_back.register_fake
def _(features: Tensor, motion: str, width: int, image: Sequence[int], stride: int) -> Tensor:  # noqa: ARG001
    return torch.empty_like(features)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch's signature
    ctx.described = inputs[1:]


def _back(ctx: Any, gradient: Tensor) -> Any:
    return move_back(gradient, *ctx.described), None, None, None, None


move.register_autograd(_back, setup_context=_keep)
