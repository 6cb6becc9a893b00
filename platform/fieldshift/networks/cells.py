"""The cells of a feature map in pixels of the image, where the network's stride does not divide the image's side.

A map then has a rounded number of cells: 360 pixels at stride 32 give 12 cells, not 11.25. A motion given as a fraction of
the image moves a map by that fraction of 11.25 cells, as it moves the image. Strides are measured once, on shapes alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

SIDE = 960  # pixels: a multiple of every usual stride


class Cells(NamedTuple):
    """The cells of a map whose number of rows or columns is rounded: the image's size (H, W) and the stride in pixels."""

    image: tuple[int, int]
    stride: int

    @classmethod
    def of(cls, size: tuple[int, int], image: tuple[int, int] | None, stride: int | None) -> Cells | None:
        """The cells of a map of that size; None where the stride is unknown, divides the image, or is not that of the map."""
        if image is None or stride is None:
            return None
        exact = all(side % stride == 0 for side in image)
        rounded = all(n in (side // stride, -(-side // stride)) for n, side in zip(size, image, strict=True))
        return cls(image, stride) if rounded and not exact else None

    def matrices(self, pixels: Float[Tensor, "*batch 2 3"]) -> Float[Tensor, "*batch 2 3"]:
        """Forward matrices in cells, about the map's centre, of forward matrices in pixels."""
        return torch.cat([pixels[..., :2], pixels[..., 2:] / self.stride], dim=-1)


class InImage(nn.Module):
    """Common base of the folded modules, which know where in a network their maps are."""

    image: tuple[int, int] | None = None
    """Height and width of the image that the network is reading, in pixels; None if unknown."""
    stride: int | None = None
    """Pixels from one cell of the map to the next; None if unknown."""

    def cells_of(self, size: tuple[int, int]) -> Cells | None:
        """The cells of a map of that size (H, W), where their number is rounded."""
        return Cells.of(size, self.image, self.stride)


def strides_at(network: nn.Module, places: Sequence[tuple[str, bool]]) -> list[int | None]:
    """The pixels from one cell to the next at the input (True) or the output of the modules of these names.

    None where the stride is unknown, no whole number, or differs between rows and columns. Runs a copy of the network
    without data on two image sizes.
    """
    sizes: list[list[tuple[int, int]]] = [[], []]
    with suppress(Exception), ExitStack() as opened:  # any error of a network that does not run without data
        opened.enter_context(torch.random.fork_rng(devices=[]))
        opened.enter_context(torch.no_grad())
        opened.enter_context(torch.device("meta"))
        tensors = [*network.parameters(), *network.buffers()]
        twin = copy.deepcopy(network, {id(tensor): tensor.detach().to("meta") for tensor in tensors}).eval()
        for module in twin.modules():
            if isinstance(module, InImage):
                module.forward = lambda features: features  # what moves already keeps its map's size
        first = next(module for module in twin.modules() if isinstance(module, nn.Conv2d))
        for found, side in zip(sizes, (SIDE, 2 * SIDE), strict=True):
            seen: dict[str, tuple[int, int]] = {}
            handles = [_watch(twin.get_submodule(path), before, path, seen) for path, before in places]
            twin(torch.empty(1, first.in_channels, side, side, dtype=first.weight.dtype))
            for handle in handles:
                handle.remove()
            found += [seen[path] for path, _ in places]
    if len(sizes[1]) < len(places):
        return [None] * len(places)
    return [_stride(*pair) for pair in zip(*sizes, strict=True)]


def _watch(module: nn.Module, before: bool, path: str, seen: dict[str, tuple[int, int]]) -> Any:
    def note(value: Any) -> None:
        seen[path] = (int(value.shape[-2]), int(value.shape[-1]))

    if before:
        return module.register_forward_pre_hook(lambda _, args: note(args[0]))
    return module.register_forward_hook(lambda *call: note(call[2]))


def _stride(small: tuple[int, int], large: tuple[int, int]) -> int | None:
    rows, columns = (more - few for few, more in zip(small, large, strict=True))
    return SIDE // rows if rows == columns and rows > 0 and SIDE % rows == 0 else None
