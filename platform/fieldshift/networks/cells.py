"""The cells of a feature map in pixels of the image, where the network's stride does not divide the image's side.

A map then has a rounded number of cells: 360 pixels at stride 32 give 12 cells, not 11.25. A motion given as a fraction of
the image moves a map by that fraction of 11.25 cells, as it moves the image. Strides are measured once, on shapes alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldshift.networks.twin import twin

# Devices and sides of square images, in pixels: multiples of every usual stride.
WAYS = (("meta", 960), ("cpu", 192))


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
        return cls(image, stride) if cls.fit(size, image, stride) and not exact else None

    @staticmethod
    def fit(size: tuple[int, int], image: tuple[int, int], stride: int) -> bool:
        """Whether a map of that size can be that of the image."""
        return all(n in (side // stride, -(-side // stride)) for n, side in zip(size, image, strict=True))

    def matrices(self, pixels: Float[Tensor, "*batch 2 3"]) -> Float[Tensor, "*batch 2 3"]:
        """Forward matrices in cells, about the map's centre, of forward matrices in pixels."""
        return torch.cat([pixels[..., :2], pixels[..., 2:] / self.stride], dim=-1)


class ReadImage:
    """The size of the image that a network is reading; the network and the convolution that reads the image note it.

    The convolution also knows it where features are read without the network's forward pass, the network where the
    convolution was exchanged. Every thread reads an image of its own; one that has read none has the size of the last one.
    """

    def __init__(self) -> None:
        self._own = threading.local()
        self._last: tuple[int, int] | None = None
        self._fitting: dict[tuple[tuple[int, int], int], tuple[int, int]] = {}

    def note(self, _: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Keeps the size of the map that a module receives, if it receives one: its forward pre-hook."""
        for value in (*args, *named.values()):
            if isinstance(value, Tensor) and value.ndim == 4:
                self._own.size = self._last = (int(value.shape[-2]), int(value.shape[-1]))
                return

    @contextmanager
    def at(self, size: tuple[int, int] | None) -> Iterator[None]:
        """The size within the block, in this thread: a part of the network is computed again."""
        before = vars(self._own).copy()
        self._own.size = size
        try:
            yield
        finally:
            vars(self._own).clear()
            vars(self._own).update(before)

    def image_of(self, size: tuple[int, int], stride: int | None) -> tuple[int, int] | None:
        """The size of the image that has a map of that size: the one being read; in a backward pass perhaps an earlier one.

        There a part of the network may be computed again for an earlier image, as `torch.utils.checkpoint` does.
        """
        image = self.size
        if image is None or stride is None:
            return image
        if not Cells.fit(size, image, stride):
            is_backward = torch._C._current_graph_task_id() != -1
            return self._fitting.get((size, stride), image) if is_backward else image
        self._fitting[size, stride] = image
        return image

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width in pixels; None where nothing was read."""
        size: tuple[int, int] | None = getattr(self._own, "size", self._last)
        return size

    def __reduce__(self) -> tuple[type[ReadImage], tuple[()]]:
        return ReadImage, ()  # the copy of a network has read nothing


class InImage(nn.Module):
    """Common base of the folded modules, which know where in a network their maps are."""

    read: ReadImage | None = None
    """The image that the network is reading, common to all its modules; None if unknown."""
    stride: int | None = None
    """Pixels from one cell of the map to the next; None if unknown."""

    def cells_of(self, size: tuple[int, int]) -> Cells | None:
        """The cells of a map of that size (H, W), where their number is rounded."""
        return None if self.read is None else Cells.of(size, self.read.image_of(size, self.stride), self.stride)


def images_of(part: nn.Module) -> dict[ReadImage, tuple[int, int] | None]:
    """The images that the folded modules of a part of a network are reading."""
    found = [module.read for module in part.modules() if isinstance(module, InImage)]
    return {read: read.size for read in found if read is not None}


class Strides(NamedTuple):
    """The pixels from one cell to the next at places of a network, and the name of the convolution that reads the image."""

    at: list[int | None]
    reader: str | None


def strides_at(network: nn.Module, places: Sequence[tuple[str, bool]]) -> Strides:
    """The strides at the input (True) or the output of the modules of these names.

    A stride is None where it is unknown, no whole number, or differs between rows and columns. Runs a copy of the network on
    two image sizes: without data, or where that fails, as with a check of values, on small black images.
    """
    for device, side in WAYS:
        with suppress(Exception):  # any error of a network that does not run in this way
            (small, reader), (large, _) = _sizes(network, places, device, (side, 2 * side))
            strides = [_stride(few, many, side) for few, many in zip(small, large, strict=True)]
            return Strides(strides if reader is not None else [None] * len(places), reader)
    return Strides([None] * len(places), None)


def _sizes(
    network: nn.Module, places: Sequence[tuple[str, bool]], device: str, sides: tuple[int, int]
) -> list[tuple[list[tuple[int, int]], str | None]]:
    """For each side: the sizes of the maps at the places, and the first convolution that reads the whole image."""
    found = []
    seen: dict[str, tuple[int, int]] = {}
    readers: list[str] = []

    def note_reader(name: str, args: tuple[Any, ...]) -> None:
        if tuple(args[0].shape[-2:]) == (side, side):
            readers.append(name)

    def stop_if_all_are_seen(*_: object) -> None:
        if readers and len(seen) == len(places):
            raise _AllSeenError

    eager = torch.compiler.set_stance("force_eager")
    with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device(device), eager:
        copied = twin(network, device).eval()
        convolutions = {name: module for name, module in copied.named_modules() if isinstance(module, nn.Conv2d)}
        for module in copied.modules():
            if isinstance(module, InImage):
                module.forward = lambda features: features  # what moves already keeps its map's size
        for path, before in places:
            _watch(copied.get_submodule(path), before, path, seen)
        for module in copied.modules():
            module.register_forward_hook(stop_if_all_are_seen)
        for name, module in convolutions.items():
            module.register_forward_pre_hook(lambda _, args, name=name: note_reader(name, args))
        first = next(iter(convolutions.values()))
        for side in sides:
            seen.clear()
            readers.clear()
            with suppress(_AllSeenError):
                copied(torch.zeros(1, first.in_channels, side, side, dtype=first.weight.dtype))
            found.append(([seen[path] for path, _ in places], next(iter(readers), None)))
    return found


class _AllSeenError(Exception):
    """Ends the run of a copy of a network that has shown everything."""


def _watch(module: nn.Module, before: bool, path: str, seen: dict[str, tuple[int, int]]) -> None:
    def note(value: Any) -> None:
        seen[path] = (int(value.shape[-2]), int(value.shape[-1]))

    if before:
        module.register_forward_pre_hook(lambda _, args: note(args[0]))
    else:
        module.register_forward_hook(lambda *call: note(call[2]))


def _stride(small: tuple[int, int], large: tuple[int, int], side: int) -> int | None:
    rows, columns = (more - few for few, more in zip(small, large, strict=True))
    return side // rows if rows == columns and rows > 0 and side % rows == 0 else None
