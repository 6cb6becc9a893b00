"""Decides what the numbers and colours in masks mean: once for a set, from the contents of all its masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path

from fieldshift.data.dataset import names_of
from fieldshift.data.files.class_files import ClassTable
from fieldshift.data.files.folder_names import name_key
from fieldshift.data.files.mask_files import COLOUR, GREY_IN_RGB, PALETTE_COLOURS
from fieldshift.data.files.mask_palettes import IGNORED_NUMBER
from fieldshift.data.files.mask_table import MaskTable, Pairs
from fieldshift.data.split import IGNORE
from fieldshift.errors import UserError
from fieldshift.wording import counted

MOST_CLASSES = 254
LARGEST = {"grey of 16 bit(s)": 65535, "grey of 32 bit(s)": 65535}
EXACT = ("grey of 1 bit(s)", "grey of 2 bit(s)", "grey of 4 bit(s)")
GREY = "grey of 8 bit(s)"
SHOWN = 6


@dataclass(frozen=True)
class RunMasks:
    """The decoding of the masks of an earlier run, and its classes.

    scenes: names of the run's samples below the folder of its data; None for other data.
    """

    table: MaskTable
    classes: tuple[str, ...]
    scenes: frozenset[str] | None = None

    def holds(self, named: ClassTable | None) -> bool:
        """Whether the class file, if there is one, has the run's classes in their order, and no values of its own."""
        if named is None:
            return True
        keys = [[name_key(name) for name in names] for names in (named.names, self.classes)]
        return named.values is None and keys[0] == keys[1]

    def named(self, own: ClassTable | None, where: Path) -> ClassTable:
        """The class file, or the run's classes where there is none; with the run's colours where it has none."""
        colours = dict(dict(self.table.pairs).get(COLOUR, ())) or None
        found = own or ClassTable(where, self.classes)
        return found if found.colours else replace(found, colours=colours)

    def numbers(self) -> dict[str, Pairs]:
        """The classes of numbers, by storage; those by colours are not among them."""
        return {storage: found for storage, found in self.table.pairs if storage != COLOUR}

    def new_classes(self, pairs: Pairs, values: Container[int]) -> str:
        """The numbers among `values` that are classes here, and that the masks of the run did not have, in words."""
        known = {code for found in self.numbers().values() for code, _ in found}
        found = sorted(code for code, label in pairs if code in values and code not in known and label != IGNORE)
        return f"numbers that the training did not have ({listed(found)})" if found else ""


@dataclass(frozen=True)
class Decoding:
    """The decoding of a set's masks: the table, the names of the classes, and a description.

    meaning: the table for later use of a training on this set, without the ignored numbers that no mask contains.
    """

    table: MaskTable
    classes: tuple[str, ...]
    words: str
    meaning: MaskTable


def decode(
    seen: Mapping[str, Counter[int]], named: ClassTable | None, where: str, of_run: RunMasks | None = None
) -> Decoding:
    """Decides the meaning of the codes in `seen` (pixels of each, by storage); `named`: the set's class files.

    A number has one meaning in all masks of a set. `of_run`: the meaning of the numbers for an earlier run, which
    is kept. Raises UserError, which names `where`, if the meaning would be a guess.
    """
    numbers = {storage: counts for storage, counts in seen.items() if storage not in (COLOUR, PALETTE_COLOURS)}
    colours = None if named is None else named.colours
    pairs: dict[str, Pairs] = {}
    words = {
        COLOUR: "RGB, by the colours of the class file",
        PALETTE_COLOURS: "palette, by the colours of the class file",
    }
    of_classes = tuple(sorted((colours or {}).items()))
    meaning = {} if colours is None else {COLOUR: of_classes}
    names = None if named is None else named.names
    scaled_names: tuple[str, ...] = ()
    if COLOUR in seen:
        if colours is None:
            raise UserError(
                f"The masks of {where} are RGB with {counted(len(seen[COLOUR]), 'colour')}, and no file names the colours; "
                "write label_colors.txt with one line 'red green blue name' per class, or save class numbers."
            )
        pairs[COLOUR] = of_classes
    if PALETTE_COLOURS in seen and colours is not None:
        pairs[PALETTE_COLOURS] = (*of_classes, (IGNORED_NUMBER, IGNORE))
    if GREY_IN_RGB in numbers and colours is not None:
        pairs[GREY_IN_RGB] = tuple((code >> 16, label) for code, label in of_classes if code == (code >> 16) * 0x010101)
        del numbers[GREY_IN_RGB]
    ranges = {storage: range_of(storage, counts) for storage, counts in sorted(numbers.items())}
    of_storage = {} if of_run is None else of_run.numbers()
    known = {range_of(storage, dict(found)): found for storage, found in of_storage.items()}
    for kind in dict.fromkeys(ranges.values()):
        alike = [storage for storage in ranges if ranges[storage] == kind]
        values = {value for storage in alike for value in numbers[storage]}
        held = known.get(kind) or next((of_storage[storage] for storage in alike if storage in of_storage), ())
        found = numbers_of_run(kind, values, named, where, held)
        if not held:
            check_each_kind({storage: set(numbers[storage]) for storage in alike}, found, named, where)
        pairs |= dict.fromkeys(alike, found)
        meaning |= dict.fromkeys(alike, observed(found, values))
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
    used = [(storage, pairs[storage], set(counts)) for storage, counts in numbers.items()]
    used += [(f"{kind} in the training", found, set(dict(found))) for kind, found in known.items()]
    check_one_meaning(used, names, where)
    descriptions = [
        words.get(storage) or f"{' and '.join(alike)}, {in_words(found, names)}"
        for storage, found in pairs.items()
        if storage == (alike := [other for other in pairs if pairs[other] is found])[0]
    ]
    return Decoding(MaskTable(tuple(pairs.items())), names, "; ".join(descriptions), MaskTable(tuple(meaning.items())))


def observed(pairs: Pairs, values: Container[int]) -> Pairs:
    """The classes of numbers, without the ignored ones that no mask contains."""
    return tuple(pair for pair in pairs if pair[1] != IGNORE or pair[0] in values)


def check_each_kind(seen: Mapping[str, set[int]], found: Pairs, named: ClassTable | None, where: str) -> None:
    """Raises UserError for a number whose meaning follows from all kinds of file, but from none that contains it."""
    labels, alone = dict(found), {}
    for storage, values in seen.items() if len(seen) > 1 else ():
        with suppress(UserError):
            alone[storage] = dict(numbers_of(range_of(storage, values), values, named, where))
    for code in sorted({code for storage in alone for code in seen[storage]} & set(labels)):
        meant = {storage: alone[storage].get(code) for storage in alone if code in seen[storage]}
        if labels[code] not in meant.values():
            raise UserError(
                f"The masks of {where} hold {code} in {' and '.join(meant)}, where it has another meaning by itself than with "
                "the other kinds of file; save all masks in one kind, or write the values in labels.csv (name,value)."
            )


def numbers_of_run(kind: str, values: set[int], named: ClassTable | None, where: str, known: Pairs) -> Pairs:
    """As `numbers_of`, but with the meaning that numbers had in a run (`known`; empty without one).

    Numbers that the run did not have are classes if the masks by themselves have no other meaning for the run's numbers.
    """
    try:
        alone = numbers_of(kind, values, named, where)
    except UserError:
        if not known:
            raise
        return known
    labels = dict(known)
    agrees = all(dict(alone).get(code) == label for code, label in known if code in values)
    return (*known, *(pair for pair in alone if pair[0] not in labels and (agrees or pair[1] == IGNORE)))


def range_of(storage: str, codes: Iterable[int]) -> str:
    """The storages that hold the same numbers in different files, under one name: grey values up to 255."""
    deep = storage in LARGEST and max(codes, default=0) > IGNORE
    return GREY if storage == GREY_IN_RGB or (storage in LARGEST and not deep) else storage


def check_one_meaning(used: Iterable[tuple[str, Pairs, set[int]]], names: tuple[str, ...], where: str) -> None:
    """Raises UserError for a number that is one class in masks of one storage, and another class or ignored in another."""
    meaning: dict[int, tuple[str, int]] = {}
    for storage, found, codes in used:
        labels = dict(found)
        for code in sorted(codes & set(labels)):
            other, label = meaning.setdefault(code, (storage, labels[code]))
            if label != labels[code]:
                meant = ["ignored" if each == IGNORE else f"class {names[each]}" for each in (label, labels[code])]
                raise UserError(
                    f"In masks of {where}, {code} would be {meant[0]} ({other}) and {meant[1]} ({storage}); save all masks in "
                    "one kind of file, or write the values in labels.csv (name,value)."
                )


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
