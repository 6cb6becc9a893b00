"""Activation checkpointing: the blocks of a stage discard their activations; the backward pass recomputes them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from fieldshift.networks.cells import ReadImage, images_of
from fieldshift.networks.insertion import Inserted

_RECOMPUTED = "_stage_class"


@contextlib.contextmanager
def frozen_statistics(stage: nn.Module) -> Iterator[None]:
    """BatchNorm keeps normalising by the batch but does not update its running statistics."""
    norms = [module for module in stage.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    buffers_before = [(norm.running_mean, norm.running_var, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.running_mean, norm.running_var, norm.num_batches_tracked = (
            None if buffer is None else buffer.clone()
            for buffer in (norm.running_mean, norm.running_var, norm.num_batches_tracked)
        )
    try:
        yield
    finally:
        for norm, buffers in zip(norms, buffers_before, strict=True):
            norm.running_mean, norm.running_var, norm.num_batches_tracked = buffers


@contextlib.contextmanager
def again(stage: nn.Module, images: dict[ReadImage, tuple[int, int] | None]) -> Iterator[None]:
    """A stage is computed for the second time, on the images that it read at first, whatever was read in between."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(frozen_statistics(stage))
        for read, size in images.items():
            stack.enter_context(read.at(size))
        yield


@functools.cache
def _recomputed_class(stage_class: type[nn.Module]) -> type[nn.Module]:
    def forward(self: nn.Module, features: Tensor) -> Any:
        plain = functools.partial(stage_class.forward, self)
        if not torch.is_grad_enabled() or torch.compiler.is_dynamo_compiling():
            return plain(features)
        images = images_of(self)
        return checkpoint(
            plain,
            features,
            use_reentrant=False,
            context_fn=lambda: (contextlib.nullcontext(), again(self, images)),
        )

    return type(f"Recomputed{stage_class.__name__}", (stage_class,), {"forward": forward, _RECOMPUTED: stage_class})


def recompute_stages(network: nn.Module, stages: Iterable[str]) -> None:
    """Makes the named stages recompute their activations in the backward pass, in place: less memory, one more forward pass.

    For a stage that is a chain of blocks (nn.Sequential) the maps between the blocks are stored, for any other its input.

    Results, gradients, BatchNorm statistics and the names of parameters are those of the network without it. It
    has no effect in code of torch.compile, which decides itself what to recompute.
    """
    for path in stages:
        stage = network.get_submodule(path)
        for part in stage.children() if _is_chain_of_blocks(stage) else [stage]:
            if not hasattr(type(part), _RECOMPUTED):
                # torch's checkpoint_wrapper renames parameters, and hooks cannot enclose a forward pass; fully_shard of torch
                # exchanges the class likewise.
                part.__class__ = _recomputed_class(type(part))  # type: ignore[arg-type]


def is_recomputed(network: nn.Module) -> bool:
    """Whether any part of the network recomputes its activations."""
    return any(hasattr(type(module), _RECOMPUTED) for module in network.modules())


def _is_chain_of_blocks(stage: nn.Module) -> bool:
    """Whether a stage is a chain of modules that contain layers; a chain of single layers would store every map."""
    if not isinstance(stage, nn.Sequential):
        return False
    parts = [part.wrapped if isinstance(part, Inserted) else part for part in stage]
    return all(any(part.children()) for part in parts)
