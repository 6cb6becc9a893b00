"""The class of every number and colour in the masks of a set."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from numpy.typing import NDArray

from fieldshift.data.files.mask_files import PALETTE, PALETTE_COLOURS, StoredMask
from fieldshift.data.files.mask_palettes import by_colours
from fieldshift.data.split import IGNORE

UNKNOWN_LABEL = 254
ANY = "any"

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class MaskTable:
    """The class of every code (number or packed colour) that a mask may contain, per storage; 255 is ignored.

    A storage that is not listed is looked up under "any". others: the label of a code that has no class.
    """

    pairs: tuple[tuple[str, Pairs], ...]
    others: int = UNKNOWN_LABEL

    def to_plain(self) -> dict[str, list[list[int]]]:
        """[number or colour, label] of every code by storage, for JSON."""
        return {storage: [list(pair) for pair in found] for storage, found in self.pairs}

    @staticmethod
    def from_plain(values: dict[str, list[list[int]]]) -> MaskTable:
        return MaskTable(
            tuple((storage, tuple((code, label) for code, label in found)) for storage, found in values.items())
        )

    def as_decoded(self, mask: StoredMask) -> StoredMask:
        """The mask with the codes of this table: of a palette mask the numbers, or the colours."""
        colours = dict(self.pairs).get(PALETTE_COLOURS)
        return mask if mask.storage != PALETTE or colours is None else by_colours(mask, dict(colours))

    def labels(self, mask: StoredMask) -> UInt8[ndarray, "height width"]:
        """The class numbers (H, W); `others` where a code has none."""
        found, mask = dict(self.pairs), self.as_decoded(mask)
        codes, labels = lookup(found.get(mask.storage, found.get(ANY, ())))
        if not len(codes):
            return np.full(mask.codes.shape, self.others, dtype=np.uint8)
        if mask.codes.dtype == np.uint8:
            every = np.full(256, self.others, dtype=np.uint8)
            every[codes[codes < 256]] = labels[codes < 256]
            return every[mask.codes]
        places = np.searchsorted(codes, mask.codes).clip(max=len(codes) - 1)
        return np.where(codes[places] == mask.codes, labels[places], np.uint8(self.others))


@functools.lru_cache(maxsize=64)
def lookup(pairs: Pairs) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    ordered = sorted(pairs)
    return (np.array([code for code, _ in ordered], dtype=np.int32),
            np.array([label for _, label in ordered], dtype=np.uint8))  # fmt: skip


def table_of_map(label_map: Iterable[int]) -> MaskTable:
    """The table of a published set: the class of each value 0, 1, ..., 254 for values that occur."""
    return MaskTable(((ANY, tuple((code, label) for code, label in enumerate(label_map) if label != UNKNOWN_LABEL)),))


def plain_table(count: int) -> MaskTable:
    """Masks that contain the class numbers themselves, and 255 for ignored pixels."""
    return MaskTable(((ANY, (*((number, number) for number in range(count)), (IGNORE, IGNORE))),))
