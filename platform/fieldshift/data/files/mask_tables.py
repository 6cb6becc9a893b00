"""Maps the numbers and colours in masks to classes: decided once for a set, from the contents of all its masks."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from numpy.typing import NDArray

from fieldshift.data.dataset import names_of
from fieldshift.data.files.class_files import ClassTable
from fieldshift.data.files.mask_files import COLOUR, GREY_IN_RGB, PALETTE, PALETTE_COLOURS, StoredMask
from fieldshift.data.files.mask_palettes import IGNORED_NUMBER, by_colours
from fieldshift.data.split import IGNORE
from fieldshift.errors import UserError
from fieldshift.wording import counted

UNKNOWN_LABEL = 254
MOST_CLASSES = 254
ANY = "any"
LARGEST = {"grey of 16 bit(s)": 65535, "grey of 32 bit(s)": 65535}
EXACT = ("grey of 1 bit(s)", "grey of 2 bit(s)", "grey of 4 bit(s)")
SHOWN = 6

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class MaskTable:
    """The class of every code (number or packed colour) that a mask may contain, per storage; 255 is ignored.

    A storage that is not listed is looked up under "any". others: the label of a code that has no class.
    """

    pairs: tuple[tuple[str, Pairs], ...]
    others: int = UNKNOWN_LABEL

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


@dataclass(frozen=True)
class Decoding:
    """The decoding of a set's masks: the table, the names of the classes, and a description."""

    table: MaskTable
    classes: tuple[str, ...]
    words: str


def decode(seen: Mapping[str, Counter[int]], named: ClassTable | None, where: str) -> Decoding:
    """Decides the meaning of the codes in `seen` (pixels of each, by storage); `named`: the set's class files.

    Raises UserError, which names `where`, if that would be a guess.
    """
    numbers = {storage: counts for storage, counts in seen.items() if storage not in (COLOUR, PALETTE_COLOURS)}
    colours = None if named is None else named.colours
    pairs: dict[str, Pairs] = {}
    words = {
        COLOUR: "RGB, by the colours of the class file",
        PALETTE_COLOURS: "palette, by the colours of the class file",
    }
    names = None if named is None else named.names
    scaled_names: tuple[str, ...] = ()
    if COLOUR in seen:
        if colours is None:
            raise UserError(
                f"The masks of {where} are RGB with {counted(len(seen[COLOUR]), 'colour')}, and no file names the colours; "
                "write label_colors.txt with one line 'red green blue name' per class, or save class numbers."
            )
        pairs[COLOUR] = tuple(sorted(colours.items()))
    if PALETTE_COLOURS in seen and colours is not None:
        pairs[PALETTE_COLOURS] = (*sorted(colours.items()), (IGNORED_NUMBER, IGNORE))
    if GREY_IN_RGB in numbers and colours is not None:
        pairs[GREY_IN_RGB] = tuple((code >> 16, label) for code, label in sorted(colours.items())
                                   if code == (code >> 16) * 0x010101)  # fmt: skip
        del numbers[GREY_IN_RGB]
    for storage, counts in sorted(numbers.items()):
        found = numbers_of(storage, set(counts), named, where)
        pairs[storage] = found
        if names is None and any(code != label for code, label in found if label != IGNORE):
            scaled_names = max(
                scaled_names, tuple(str(code) for code, label in sorted(found) if label != IGNORE), key=len
            )
    if names is None:
        count = max((label for found in pairs.values() for _, label in found if label != IGNORE), default=-1) + 1
        if count < 2:
            raise UserError(f"The masks of {where} hold {counted(count, 'class', 'classes')}, but must hold 2 to "
                            f"{MOST_CLASSES}: number them from 0 ({IGNORE} is ignored).")  # fmt: skip
        names = scaled_names if len(scaled_names) == count else names_of(count)
    descriptions = [words.get(storage) or f"{storage}, {in_words(found, names)}" for storage, found in pairs.items()]
    return Decoding(MaskTable(tuple(pairs.items())), names, "; ".join(descriptions))


def numbers_of(storage: str, values: set[int], named: ClassTable | None, where: str) -> Pairs:
    """The class of every number that masks of one storage may contain. Numbers without a class are left out."""
    largest = LARGEST.get(storage, IGNORE) if max(values) > IGNORE else IGNORE
    ignored: Pairs = () if storage in EXACT else ((largest, IGNORE),) if largest == IGNORE else (
        (IGNORE, IGNORE), (largest, IGNORE))  # fmt: skip
    if named is not None and named.values is not None:
        return (*((code, label) for code, label in named.values.items()),
                *(pair for pair in ignored if pair[0] not in named.values))  # fmt: skip
    if named is not None:
        count = len(named.names)
        plain = values - {code for code, _ in ignored} <= set(range(count))
        if storage not in EXACT and (not plain or (values <= {0, largest} and largest in values)):
            steps = evenly_spaced(values, count, largest)
            if steps is not None:
                return steps
        return (*((number, number) for number in range(count)), *ignored)
    known = sorted(values - {code for code, _ in ignored})
    if storage in EXACT:
        return tuple((number, number) for number in range(max(known, default=-1) + 1))
    if values == {0, largest}:
        return ((0, 0), (largest, 1))
    if len(known) > MOST_CLASSES or (known and known[-1] >= MOST_CLASSES and gcd(*known) < 2):
        raise UserError(f"The masks of {where} ({storage}) hold {len(known)} different numbers up to {known[-1]}, but must "
                        f"hold class numbers from 0 to {MOST_CLASSES - 1}; number the classes from 0.")  # fmt: skip
    if len(known) > 1 and known[0] == 0 and gcd(*known) > 1:
        if largest in values and evenly_spaced(values, len(values), largest) is not None:
            raise UserError(f"The masks of {where} hold {listed(sorted(values))}, of which {largest} may be a class or mean "
                            "ignored; write classes.txt with one class name per line.")  # fmt: skip
        return (*((number, place) for place, number in enumerate(known)), *ignored)
    return (*((number, number) for number in range(max(known, default=-1) + 1)), *ignored)


def evenly_spaced(values: set[int], count: int, largest: int) -> Pairs | None:
    """`count` classes spread over the grey values, as drawing programs save them for visibility; None if they are not.

    Either over the whole range (0, 127 or 128, 255), where the largest value is a class, or in steps from 0, where it
    is ignored.
    """
    if count < 2:
        return None
    whole = [{number * largest // (count - 1), round(number * largest / (count - 1))} for number in range(count)]
    if largest in values and all(any(value in slot for slot in whole) for value in values) and (
        count == 2 or all(values & slot for slot in whole)
    ):  # fmt: skip
        return tuple((value, label) for label, slot in enumerate(whole) for value in sorted(slot))
    known = sorted(values - {largest})
    if len(known) == count and known[0] == 0 and known[1] > 1:
        step = known[1]
        if known == [step * number for number in range(count)]:
            return (*((value, label) for label, value in enumerate(known)), (largest, IGNORE))
    return None


def in_words(found: Pairs, names: tuple[str, ...]) -> str:
    used = [(code, label) for code, label in sorted(found) if label != IGNORE]
    if all(code == label for code, label in used):
        return "class numbers" + (f", {IGNORE} ignored" if len(used) < len(found) else "")
    texts = [f"{code} is class {names[label]}" for code, label in used[:SHOWN]]
    more = f" and {len(used) - SHOWN} more" if len(used) > SHOWN else ""
    ignored = sorted({code for code, label in found if label == IGNORE})
    return ", ".join(texts) + more + (f", {listed(ignored)} ignored" if ignored else "")


def listed(values: Iterable[object]) -> str:
    shown = [str(value) for value in values]
    return ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")
