"""Example inputs for any network, and checks of the names of its layers and of their units."""

from __future__ import annotations

import copy
import difflib
import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, is_lazy

from fieldshift.errors import UserError


def example_like(module: nn.Module, example_input: Tensor | int | tuple[int, int]) -> Tensor:
    """An input for the network: the tensor itself, or a blank one of the size, with its first layer's channels."""
    if isinstance(example_input, Tensor):
        if example_input.dim() not in (4, 5):
            raise UserError(
                f"The example input has shape {tuple(example_input.shape)}; expected (B, C, H, W) or (B, T, C, H, W)."
            )
        return example_input[:1].detach()
    size = (example_input, example_input) if isinstance(example_input, int) else tuple(example_input)
    if len(size) != 2 or min(size) < 1:
        raise UserError(f"The image size is {size}, but must be one or two positive numbers of pixels, such as 224.")
    channels = next((part.in_channels for part in module.modules() if isinstance(part, nn.Conv2d)), 0) or 3
    first = next(itertools.chain(module.parameters(), module.buffers()), torch.zeros(()))
    dtype = first.dtype if first.is_floating_point() else torch.float32
    frames = video_frames(module)
    shape = (1, channels, *size) if frames is None else (1, frames, channels, *size)
    return torch.zeros(shape, device=first.device, dtype=dtype)


def initialised(module: nn.Module, example_input: Tensor | int | tuple[int, int]) -> nn.Module:
    """The network itself, or a copy whose lazy modules got their shapes from a blank image. Raises UserError if that fails."""
    tensors = [*module.parameters(), *module.buffers()]
    if not any(is_lazy(tensor) for tensor in tensors):
        return module
    buffers = {id(part): part for part in tensors if type(part) is UninitializedBuffer}
    blank = {key: UninitializedBuffer() for key in buffers}
    try:
        twin = copy.deepcopy(module, blank).eval()  # torch copies lazy parameters, but not lazy buffers
        with torch.no_grad():
            twin(example_like(twin, example_input))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"The network has lazy modules that get no shape from such an image ({first_line(error)}); run it once first."
        ) from error
    return twin


def video_frames(module: nn.Module) -> int | None:
    """The number of frames T of a video network, None for a network of images."""
    frames = getattr(module, "frames", None)
    return frames if isinstance(frames, int) and hasattr(module, "temporal") else None


def check_layers(module: nn.Module, layers: Iterable[str] | None) -> None:
    """Raises UserError with the nearest names for the first layer that the network does not have."""
    names = [name for name, _ in module.named_modules(remove_duplicate=False)]
    for layer in layers or ():
        if layer not in names:
            nearest = difflib.get_close_matches(layer, names, n=3, cutoff=0.3)
            hint = f" Nearest: {', '.join(nearest)}." if nearest else ""
            raise UserError(f"Unknown layer '{layer}'.{hint} The network has {len(names) - 1} named layers.")


def check_unit(unit: tuple[int, int], map_size: tuple[int, int], layer: str) -> None:
    """Raises UserError for a unit (row, column) outside a layer's map."""
    if not all(0 <= place < length for place, length in zip(unit, map_size, strict=True)):
        raise UserError(
            f"Unit {unit} is outside the map of layer '{layer}'; allowed are rows 0 to {map_size[0] - 1} and columns 0 to "
            f"{map_size[1] - 1}."
        )


def detached(layer: str) -> UserError:
    """The error for a layer whose output carries no gradient back to the image."""
    return UserError(
        f"The gradient of layer '{layer}' is zero at every pixel: its output is detached from the image (detach, "
        "no_grad, or an operation without a gradient before it); choose an earlier layer."
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
