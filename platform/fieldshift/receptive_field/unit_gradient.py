"""The gradient of one unit of one layer with respect to the network's input images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.receptive_field.examples import check_unit, detached


class _ReachedError(Exception):
    """Ends a forward pass at the requested layer."""


class UnitGradient:
    """Computes the gradient of one unit of a layer with respect to the images, stopping the network at that layer."""

    def __init__(self, network: nn.Module, layer: str, unit: tuple[int, int] | None) -> None:
        self.network, self.layer = network, layer
        self._wanted_unit = unit
        self.unit = (0, 0)
        self._calls, self._last = 0, 0
        self._output: Any = None

    def __enter__(self) -> UnitGradient:
        self._handle = self.network.get_submodule(self.layer).register_forward_hook(self._keep)
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.remove()

    def _keep(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        del module, args
        self._calls += 1
        self._output = output
        if self._calls == self._last:  # a module that is used several times counts with its last use, as in the theory
            raise _ReachedError

    def count_calls(self, example: Tensor) -> None:
        """Runs once without gradients to find how often the layer is used, and its centre unit."""
        with torch.no_grad():
            self.network(example)
        self._last = self._calls
        output = self._output
        if not isinstance(output, Tensor) or output.dim() < 4:
            raise UserError(
                f"Layer '{self.layer}' does not output a map (B, C, H, W) of units; choose a convolution or a block."
            )
        height, width = output.shape[-2:]
        row, column = self._wanted_unit or (height // 2, width // 2)
        check_unit((row, column), (height, width), self.layer)
        self.unit = (row, column)

    def units(self, example: Tensor, images: int) -> Tensor:
        """The unit's channels in every frame, (B, T, C), of that number of images; T is 1 if the layer has no frames.

        Raises UserError if nothing connects the layer to the images.
        """
        self._calls = 0
        with torch.enable_grad(), contextlib.suppress(_ReachedError):
            self.network(example)
        at_unit = self._output[..., self.unit[0], self.unit[1]]  # (B * T, C) or (B, T, C)
        self._output = None
        if not at_unit.requires_grad:
            raise detached(self.layer)
        units: Tensor = at_unit.reshape(images, -1, at_unit.shape[-1])
        return units

    def back(self, output: Tensor, source: Tensor, weights: Tensor | None = None, *, keep: bool = False) -> Tensor:
        """The gradient of `output`, weighted unless it is a single number, with respect to `source`.

        keep: whether another gradient follows. Raises UserError if nothing connects the two.
        """
        (gradient,) = torch.autograd.grad(output, source, weights, retain_graph=keep, allow_unused=True)
        if gradient is None:
            raise detached(self.layer)
        return gradient


@contextlib.contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients for the weights, during a measurement."""
    modes = {part: part.training for part in network.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in network.parameters()}
    network.eval().requires_grad_(False)
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        for parameter, flag in wanted.items():
            parameter.requires_grad_(flag)
