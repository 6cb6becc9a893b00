"""A split of a data set: images by index, as uint8, with their labels.

Shapes: B batch, N samples of the split, C channels, H, W.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

IGNORE = 255


class Split(ABC):
    """One part (train or test) of a data set, from which samples are gathered by index.

    `targets` is (N,) int64: the class of each sample; for segmentation sets it only serves to draw stratified parts (it
    is zero where a scene has no single class), and `gather` returns the masks.
    """

    targets: Int64[Tensor, " samples"]

    def __len__(self) -> int:
        return int(self.targets.shape[0])

    @abstractmethod
    def gather(
        self, indices: Int64[Tensor, " batch"]
    ) -> tuple[UInt8[Tensor, "batch channels height width"], Int64[Tensor, "batch ..."]]:
        """The samples at `indices`: images uint8 (B, C, H, W) and targets int64, (B,) classes or (B, H, W) masks."""

    @abstractmethod
    def subset(self, indices: Int64[Tensor, " kept"]) -> Split:
        """The split of the samples at `indices` only, in that order."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Split:
        """The split with its pixels on `device`; meant for sets that fit there as one uint8 tensor."""

    def ready(self) -> None:  # noqa: B027 - nothing to do where nothing is decoded
        """Decodes the samples to be cached, so that an unusable file is reported now (BadFileError) instead of later."""

    @property
    def streams(self) -> bool:
        """Whether gathering decodes files, so that prefetching is useful."""
        return False

    def prefetch(self, indices: Int64[Tensor, " batch"]) -> None:  # noqa: B027 - nothing to do where nothing is decoded
        """Starts decoding the samples at `indices` in the background, which speeds up the next `gather` of them."""


class TensorSplit(Split):
    """A split held as one uint8 tensor, so that a batch is one indexing operation.

    `images` is (N, C, H, W) uint8, `targets` (N,) int64, `masks` (N, H, W) uint8 or None; all on one device. A subset
    shares the pixels of the whole, which may hold rows that were never read; its own are copied only when moved to another
    device, and when pickled.
    """

    def __init__(
        self,
        images: UInt8[Tensor, "samples channels height width"],
        targets: Int64[Tensor, " samples"],
        masks: UInt8[Tensor, "samples height width"] | None = None,
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"Images must be uint8 (N, C, H, W), got {images.dtype} {tuple(images.shape)}.")
        if targets.dtype != torch.int64 or targets.shape != images.shape[:1]:
            masks_go = " Masks are the third argument, masks=, in uint8; the targets are then zeros." * (
                targets.ndim == 3
            )
            raise ValueError(
                f"Targets must be int64 ({images.shape[0]},), got {targets.dtype} {tuple(targets.shape)}.{masks_go}"
            )
        if masks is not None and masks.shape != (images.shape[0], *images.shape[2:]):
            raise ValueError(
                f"Masks must be ({images.shape[0]}, {images.shape[2]}, {images.shape[3]}), got {tuple(masks.shape)}."
            )
        self.pixels, self.targets, self.labels = images, targets, masks
        self.places: Int64[Tensor, " samples"] | None = None

    def __reduce__(self) -> tuple[type[TensorSplit], tuple[Tensor, Tensor, Tensor | None]]:
        return TensorSplit, (self.images, self.targets, self.masks)

    @property
    def images(self) -> UInt8[Tensor, "samples channels height width"]:
        return self.pixels if self.places is None else self.pixels[self.places]

    @property
    def masks(self) -> UInt8[Tensor, "samples height width"] | None:
        return self.labels if self.places is None or self.labels is None else self.labels[self.places]

    def gather(
        self, indices: Int64[Tensor, " batch"]
    ) -> tuple[UInt8[Tensor, "batch channels height width"], Int64[Tensor, "batch ..."]]:
        chosen = indices.to(self.pixels.device)
        places = chosen if self.places is None else self.places[chosen]
        if self.labels is None:
            return self.pixels.index_select(0, places), self.targets[chosen]
        return self.pixels.index_select(0, places), self.labels.index_select(0, places).long()

    def subset(self, indices: Int64[Tensor, " kept"]) -> TensorSplit:
        chosen = indices.to(self.pixels.device)
        part = TensorSplit.__new__(TensorSplit)
        part.pixels, part.labels, part.targets = self.pixels, self.labels, self.targets[chosen]
        part.places = chosen if self.places is None else self.places[chosen]
        return part

    def to(self, device: torch.device | str) -> TensorSplit:
        if torch.empty(0, device=device).device == self.pixels.device:
            return self
        masks = self.masks
        return TensorSplit(self.images.to(device), self.targets.to(device), None if masks is None else masks.to(device))
