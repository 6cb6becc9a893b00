"""Samples of a torch `Dataset` as a split."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from fieldshift.data.split import TensorSplit
from fieldshift.errors import UserError, one_line
from fieldshift.wording import counted


class MapStyle(Protocol):
    """A map-style dataset of (image, target) samples, such as those of torchvision."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def read_dataset(dataset: MapStyle) -> TensorSplit:
    """Reads all samples of a map-style torch `Dataset` into memory.

    A sample is (image, target). An image is a PIL image in grey or colour, or a uint8 tensor (1 or 3, H, W); a target is a
    class number, or for segmentation a mask of class numbers as a PIL image or an integer tensor (H, W), 255 where ignored.
    All images have one size and one number of channels, without random transforms and without conversion to floats, which a
    search does itself. Raises UserError for anything else, naming the sample.
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise UserError(f"A {type(dataset).__name__} has no length or cannot be indexed; give a map-style dataset.")
    if len(dataset) == 0:
        raise UserError("The dataset has no sample; give one with samples.")
    images: list[Tensor] = []
    targets: list[Tensor] = []
    for place in range(len(dataset)):
        image, target = sample_of(dataset, place)
        images.append(image_of(image, place))
        targets.append(target_of(target, place))
        check_alike(images, targets)
    together = torch.stack(targets)
    if together.ndim == 1:
        return TensorSplit(torch.stack(images), together)
    if not 0 <= int(together.min()) <= int(together.max()) <= 255:
        raise UserError(
            "The masks of the dataset have values below 0 or above 255; give class numbers, 255 for ignored."
        )
    return TensorSplit(torch.stack(images), torch.zeros(len(images), dtype=torch.int64), together.to(torch.uint8))


def sample_of(dataset: MapStyle, place: int) -> tuple[Any, Any]:
    """The sample at a place. Raises UserError for one that cannot be read, or that is no pair."""
    try:
        sample = dataset[place]
    except Exception as error:
        raise UserError(f"Sample {place} of the dataset cannot be read ({one_line(error, 200)}).") from error
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        given = f"{len(sample)} values" if isinstance(sample, tuple | list) else f"a {type(sample).__name__}"
        raise UserError(f"Sample {place} of the dataset is {given}, but must be (image, target).")
    return sample[0], sample[1]


def check_alike(images: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    """Raises UserError where the last sample has another size, number of channels or kind of target than the first."""
    place, (channels, *size) = len(images) - 1, images[-1].shape
    first_channels, *first_size = images[0].shape
    if size != first_size:
        raise UserError(
            f"The image of sample {place} is {size[0]} x {size[1]} pixels, that of sample 0 {first_size[0]} x {first_size[1]}; "
            "resize all to one size."
        )
    if channels != first_channels:
        raise UserError(
            f"The image of sample {place} has {counted(channels, 'channel')}, that of sample 0 {first_channels}; convert all "
            "to colour, or all to grey: of PIL images by .convert('RGB') or .convert('L')."
        )
    if targets[-1].ndim != targets[0].ndim or (targets[-1].ndim == 2 and list(targets[-1].shape) != size):
        raise UserError(
            f"The target of sample {place} is {tuple(targets[-1].shape)}; give class numbers for all samples, or masks of the "
            f"size of the images ({size[0]} x {size[1]})."
        )


def image_of(value: Any, place: int) -> Tensor:
    """An image (1 or 3, H, W) uint8. Raises UserError for one that is not."""
    if isinstance(value, Image.Image):
        if value.mode not in {"L", "RGB"}:
            raise UserError(
                f"The image of sample {place} has the mode {value.mode}, but must have RGB or L; convert it by .convert('RGB')."
            )
        return pil_to_tensor(value)
    if not isinstance(value, Tensor) or value.dtype != torch.uint8 or value.ndim != 3 or value.shape[0] not in {1, 3}:
        given = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise UserError(
            f"The image of sample {place} is {given}, but must be a PIL image or a uint8 tensor (1 or 3, H, W); leave out "
            "transforms that convert it, such as ToTensor."
        )
    return value


def target_of(value: Any, place: int) -> Tensor:
    """A class number () or a mask (H, W), int64. Raises UserError for anything else."""
    target = None
    if isinstance(value, Image.Image):
        target = pil_to_tensor(value)
        target = target[0] if len(target) == 1 else target
    else:
        with suppress(TypeError, ValueError, RuntimeError):
            target = torch.as_tensor(value)
    if target is None or target.is_floating_point() or target.is_complex() or target.ndim not in (0, 2):
        given = f"a {type(value).__name__}" if target is None else f"{target.dtype} {tuple(target.shape)}"
        raise UserError(
            f"The target of sample {place} is {given}, but must be a class number, or a mask of class numbers (H, W)."
        )
    return target.long()
