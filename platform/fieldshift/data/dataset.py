"""What a data set is to the rest of the platform: two splits, their classes and how to normalise them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from fieldshift.data.identity import Identity
from fieldshift.data.split import IGNORE, Split, Task, TensorSplit

SMALLEST_DEVIATION = 1e-3
NAMED = 6
Statistics = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set as a study sees it: `train` to learn from, `test` to be scored on once, everything else is meta data.

    name: as given to `load_dataset`.
    task: "classification" or "segmentation".
    classes: one name a class; the label is the position.
    mean, std: per channel of the training images, in units of [0, 1].
    channels: 1 (grey) or 3 (RGB).
    size: (H, W) of every gathered image, in pixels.
    ignore_index: the mask value that no loss or score counts (255), None for classification.
    protocol: in words, what was trained on and what is tested on, and how images were brought to `size`.
    digest: changes when the samples (their content, labels, masks), their order, or the way to prepare them change.
    identity: own data's samples by their content, to know them again; None for what is built in or published.
    left_out: samples that are in neither part of the split that was asked for (`load_dataset`'s `like`).
    background: per channel, the uint8 value to fill empty space with.
    skipped: files, samples and classes left out because they could not be used (only with `skip_unreadable`).
    leaked: test samples that are in train too, byte for byte; None where that was not looked at (see `inspect_data`).
    findings: what was met on reading that a person should know, a line for each kind.
    from_files: whether the images are files, which `loading.size` can bring to another size.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int
    size: tuple[int, int]
    ignore_index: int | None
    protocol: str
    digest: str
    background: tuple[int, ...]
    skipped: int = 0
    leaked: int | None = None
    findings: tuple[str, ...] = ()
    from_files: bool = False
    identity: Identity | None = None
    left_out: int = 0

    def reading(self) -> str:
        """How the data were read, in one line: classes, what is trained on and tested on, with numbers of images."""
        return f"data: {self.name}: {class_words(self.classes)}; {self.protocol}"

    def record(self) -> dict[str, Any]:
        """What every result says about its data, as plain JSON values."""
        return {"digest": self.digest, "protocol": self.protocol, "leaked": self.leaked}


def class_words(names: tuple[str, ...]) -> str:
    """How many classes there are, and the first of their names."""
    more = f", ... {names[-1]}" if len(names) > NAMED else ""
    return f"{len(names)} classes ({', '.join(names[:NAMED])}{more})"


def ignore_index_of(task: Task) -> int | None:
    return IGNORE if task == "segmentation" else None


def channel_statistics(images: UInt8[Tensor, "samples channels height width"]) -> Statistics:
    """Mean and standard deviation of every channel of uint8 `images` (N, C, H, W), exact, in units of [0, 1].

    A constant channel gets the deviation 0.001, so that normalising never divides by zero.
    """
    return statistics_of(grey_levels(images))


def grey_levels(
    images: UInt8[Tensor, "samples channels height width"], chunk: int = 4096
) -> Int64[Tensor, "channels 256"]:
    """How often each of the 256 values occurs in each channel: whole numbers, so exact for any number of pixels."""
    levels = torch.zeros(images.shape[1], 256, dtype=torch.int64, device=images.device)
    for part in torch.split(images, chunk):
        for channel in range(images.shape[1]):
            levels[channel] += torch.bincount(part[:, channel].reshape(-1), minlength=256)
    return levels


def statistics_of(levels: Int64[Tensor, "channels 256"]) -> Statistics:
    """Mean and standard deviation (at least 0.001) per channel, in units of [0, 1], from the counts of grey levels."""
    share = levels.double() / levels.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64, device=levels.device) / 255
    mean = (share * values).sum(1)
    deviation = (share * (values - mean[:, None]) ** 2).sum(1).sqrt().clamp(min=SMALLEST_DEVIATION)
    return tuple(mean.tolist()), tuple(deviation.tolist())


def digest_of(*parts: object) -> str:
    """A short digest (16 hexadecimal digits) of plain values and tensors; equal values give equal digests anywhere."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            array = part.detach().cpu().contiguous()
            state.update(f"{array.dtype}{tuple(array.shape)}".encode())
            state.update(array.view(torch.uint8).numpy().data)
        else:
            state.update(f"{type(part).__name__}:{part!r};".encode("utf-8", "surrogateescape"))
    return state.hexdigest()[:16]


def digest_of_split(split: TensorSplit) -> str:
    return digest_of(split.images, split.targets, *([] if split.masks is None else [split.masks]))


def black(channels: int) -> tuple[int, ...]:
    return (0,) * channels


def names_of(count: int) -> tuple[str, ...]:
    """Class names for sets that publish none: "0", "1", ..."""
    return tuple(str(index) for index in range(count))
