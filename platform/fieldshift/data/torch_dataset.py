"""Samples of a torch `Dataset` as a split."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from fieldshift.data.split import TensorSplit
from fieldshift.errors import UserError


class MapStyle(Protocol):
    """A map-style dataset of (image, target) samples, such as those of torchvision."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def read_dataset(dataset: MapStyle) -> TensorSplit:
    """Reads all samples of a map-style torch `Dataset` into memory.

    A sample is (image, target). An image is a PIL image or a uint8 tensor (C, H, W); a target is a class number, or for
    segmentation a mask of class numbers as a PIL image or an integer tensor (H, W), 255 where ignored. All images have
    one size: without random transforms and without conversion to floats, which a search does itself. Raises UserError
    for anything else, naming the sample.
    """
    if len(dataset) == 0:
        raise UserError("The dataset has no sample; give one with samples.")
    images: list[Tensor] = []
    targets: list[Tensor] = []
    for place in range(len(dataset)):
        sample = dataset[place]
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise UserError(f"Sample {place} of the dataset is a {type(sample).__name__}, but must be (image, target).")
        images.append(image_of(sample[0], place))
        targets.append(target_of(sample[1], place))
        for name, read in (("image", images), ("target", targets)):
            if read[-1].shape != read[0].shape:
                raise UserError(
                    f"The {name} of sample {place} is {tuple(read[-1].shape)}, that of sample 0 {tuple(read[0].shape)}; "
                    "resize all to one size."
                )
    together = torch.stack(targets)
    if together.ndim == 1:
        return TensorSplit(torch.stack(images), together)
    if not 0 <= int(together.min()) <= int(together.max()) <= 255:
        raise UserError(
            "The masks of the dataset have values below 0 or above 255; give class numbers, 255 for ignored."
        )
    return TensorSplit(torch.stack(images), torch.zeros(len(images), dtype=torch.int64), together.to(torch.uint8))


def image_of(value: Any, place: int) -> Tensor:
    """An image (C, H, W) uint8. Raises UserError for one that is not."""
    image = value if isinstance(value, Tensor) else picture(value)
    if image is None or image.dtype != torch.uint8 or image.ndim != 3:
        given = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else f"a {type(value).__name__}"
        raise UserError(
            f"The image of sample {place} is {given}, but must be a PIL image or a uint8 tensor (C, H, W); leave out "
            "transforms that convert it, such as ToTensor."
        )
    return image


def target_of(value: Any, place: int) -> Tensor:
    """A class number () or a mask (H, W), int64. Raises UserError for anything else."""
    target = picture(value)
    if target is not None:
        target = target[0] if len(target) == 1 else target
    elif not isinstance(value, str):
        target = torch.as_tensor(value)
    if target is None or target.is_floating_point() or target.is_complex() or target.ndim not in (0, 2):
        given = f"a {type(value).__name__}" if target is None else f"{target.dtype} {tuple(target.shape)}"
        raise UserError(
            f"The target of sample {place} is {given}, but must be a class number, or a mask of class numbers (H, W)."
        )
    return target.long()


def picture(value: Any) -> Tensor | None:
    """The pixels (C, H, W) of a PIL image; None for anything else."""
    from PIL import Image

    return pil_to_tensor(value) if isinstance(value, Image.Image) else None
