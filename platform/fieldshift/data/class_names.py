"""Matches classes by name: data whose classes are in another order get the numbers that a network knows."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from fieldshift.data.dataset import DataSet
from fieldshift.data.files.folder_names import name_key
from fieldshift.data.split import Split
from fieldshift.errors import UserError

LABELS = 256


class RenumberedSplit(Split):
    """A split with replaced class numbers: `table[old] = new`; in masks, numbers beyond the classes stay unchanged."""

    def __init__(self, inner: Split, table: Int64[Tensor, " old"], *, masks: bool) -> None:
        self.inner, self.table, self.masks = inner, table, masks
        self.targets = inner.targets if masks else table.to(inner.targets.device)[inner.targets]
        if hasattr(inner, "files"):
            self.files = inner.files

    def gather(
        self, indices: Int64[Tensor, " batch"]
    ) -> tuple[UInt8[Tensor, "batch channels height width"], Int64[Tensor, "batch ..."]]:
        images, targets = self.inner.gather(indices)
        return images, self.table.to(targets.device)[targets]

    def subset(self, indices: Int64[Tensor, " kept"]) -> RenumberedSplit:
        return RenumberedSplit(self.inner.subset(indices), self.table, masks=self.masks)

    def to(self, device: torch.device | str) -> RenumberedSplit:
        return RenumberedSplit(self.inner.to(device), self.table, masks=self.masks)

    def ready(self) -> None:
        self.inner.ready()

    @property
    def streams(self) -> bool:
        return self.inner.streams

    def prefetch(self, indices: Int64[Tensor, " batch"]) -> None:
        self.inner.prefetch(indices)


def with_classes(dataset: DataSet, classes: tuple[str, ...]) -> DataSet:
    """The data set with its labels numbered as in `classes`, matched by name as folders are: "Cat" is "cat".

    Raises UserError unless both have the same names.
    """
    own = dataset.classes
    if own == classes:
        return dataset
    keys, wanted = [name_key(name) for name in own], [name_key(name) for name in classes]
    if sorted(keys) != sorted(wanted) or len(set(keys)) < len(keys):
        raise UserError(
            f"The classes of {dataset.name} are not the network's: it has {listed(own, classes)}, the network "
            f"{listed(classes, own)}; use the same names, or give other data."
        )
    masks = dataset.task == "segmentation"
    table = torch.arange(LABELS if masks else len(own))
    table[: len(own)] = torch.tensor([wanted.index(key) for key in keys])
    train, test = (RenumberedSplit(split, table, masks=masks) for split in (dataset.train, dataset.test))
    return replace(dataset, classes=classes, train=train, test=test)


def listed(names: tuple[str, ...], others: tuple[str, ...]) -> str:
    """Up to four of the names, those missing from the others first."""
    ordered = [name for name in names if name not in others] + [name for name in names if name in others]
    shown = ", ".join(f"'{name}'" for name in ordered[:4])
    return f"{len(names)} ({shown}{', ...' if len(names) > 4 else ''})"
