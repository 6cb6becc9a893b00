"""Data sets: two splits, their classes and their normalisation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from fieldshift.data.identity import Identity
from fieldshift.data.split import IGNORE, Split, TensorSplit
from fieldshift.tasks import Task

SMALLEST_DEVIATION = 1e-3
NAMED = 6
COUNTED = 4096  # images at once
Statistics = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set as a study uses it: `train` to learn from, `test` to be scored on once, and metadata.

    name: as given to `load_dataset`.
    task: "classification" or "segmentation".
    classes: one name per class; the label is the position.
    mean, std: per channel of the training images, in units of [0, 1].
    size: (H, W) of every gathered image, in pixels.
    protocol: description of the training and test parts, and of how images were brought to `size`.
    digest: depends on the samples (content, labels, masks), their order, and their preparation.
    identity: own data's samples by content, to recognise them later; None for built-in and published sets.
    left_out: samples in neither part of the requested split (`load_dataset`'s `like`).
    recognised: whether these are samples of `like` at another place, so that its split is used in place of a drawn one.
    skipped: files, samples and classes left out as unusable (only with `skip_unreadable`).
    leaked: test samples that are in train too, byte for byte; None where not checked (see `inspect_data`).
    findings: messages for the user from reading, one line per kind.
    from_files: whether the images are files, which `loading.size` can resize.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    protocol: str
    digest: str
    skipped: int = 0
    leaked: int | None = None
    findings: tuple[str, ...] = ()
    from_files: bool = False
    identity: Identity | None = None
    left_out: int = 0
    recognised: bool = False

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return len(self.mean)

    @property
    def ignore_index(self) -> int | None:
        """The mask value excluded from losses and scores (255); None for classification."""
        return IGNORE if self.task == "segmentation" else None

    def reading(self) -> str:
        """Describes the data in one line: classes, training and test parts, with numbers of images."""
        return f"data: {self.name}: {class_words(self.classes)}; {self.protocol}"

    def most_frequent(self) -> dict[str, Any] | None:
        """The class of most test samples and its share of them, the accuracy of always naming it; None for segmentation."""
        if self.task == "segmentation":
            return None
        counts = torch.bincount(self.test.targets, minlength=len(self.classes))
        return {"class": self.classes[int(counts.argmax())], "share": float(counts.max()) / len(self.test)}

    def record(self) -> dict[str, Any]:
        """The data's entry in every result, as plain JSON values."""
        found = {"digest": self.digest, "protocol": self.protocol, "leaked": self.leaked}
        return {**found, "most_frequent": self.most_frequent()}


def class_words(names: tuple[str, ...]) -> str:
    """The number of classes and their first names."""
    more = f", ... {names[-1]}" if len(names) > NAMED else ""
    return f"{len(names)} classes ({', '.join(names[:NAMED])}{more})"


def channel_statistics(images: UInt8[Tensor, "samples channels height width"]) -> Statistics:
    """Mean and standard deviation of each channel of uint8 `images` (N, C, H, W), exact, in units of [0, 1].

    A constant channel gets the deviation 0.001, which avoids division by zero in normalisation.
    """
    return statistics_of(grey_levels(images))


def grey_levels(images: UInt8[Tensor, "samples channels height width"]) -> Int64[Tensor, "channels 256"]:
    """Counts of the 256 values in each channel: whole numbers, so exact for any number of pixels."""
    levels = torch.zeros(images.shape[1], 256, dtype=torch.int64, device=images.device)
    for part in torch.split(images, COUNTED):
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
    """A short digest (16 hexadecimal digits) of plain values and tensors; equal values give equal digests on any machine."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            array = part.detach().cpu().contiguous()
            state.update(f"{array.dtype}{tuple(array.shape)}".encode())
            state.update(array.reshape(-1).view(torch.uint8).numpy().data)
        else:
            state.update(f"{type(part).__name__}:{part!r};".encode("utf-8", "surrogateescape"))
    return state.hexdigest()[:16]


def digest_of_split(split: TensorSplit) -> str:
    return digest_of(split.images, split.targets, *([] if split.masks is None else [split.masks]))


def names_of(count: int) -> tuple[str, ...]:
    """Class names for sets without published names: "0", "1", ..."""
    return tuple(str(index) for index in range(count))
