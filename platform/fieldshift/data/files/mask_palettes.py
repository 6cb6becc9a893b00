"""Palette masks: whether the numbers or the colours of a set's palettes are its classes."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace

import numpy as np

from fieldshift.data.files.class_files import ClassTable
from fieldshift.data.files.mask_files import NO_COLOUR, PALETTE_COLOURS, StoredMask
from fieldshift.data.split import IGNORE
from fieldshift.errors import UserError

BLACK = 0
IGNORED_NUMBER = 1 << 24
"""The code of number 255 where its colour is no class; no colour has it."""

Used = Mapping[tuple[int, int], str]
"""The numbers that a set's palette masks contain, with their colours; the first file of each."""


def classes_are_colours(used: Used, named: ClassTable | None, where: str) -> bool:
    """Whether the colours of palette masks are their classes, not the numbers; `named` is the set's class table.

    Numbers are the classes where the class file gives no colours, where each number has the colour of the class with this
    number, and where no palette has a colour of the class file but black, which begins most palettes. Raises UserError,
    which names `where`, for masks of one number in two colours without colours in the class file.
    """
    first: dict[int, tuple[int, str]] = {}
    two_colours = None
    for (number, colour), path in used.items():
        if number != IGNORE and colour != NO_COLOUR and first.setdefault(number, (colour, path))[0] != colour:
            two_colours = two_colours or (number, *first[number], colour, path)
    if named is None or named.colours is None:
        if two_colours is None:
            return False
        number, colour, path, other, other_path = two_colours
        raise UserError(
            f"The palette masks of {where} give the number {number} two colours ({in_rgb(colour)} in {path}, {in_rgb(other)} "
            f"in {other_path}), so their numbers are not classes; write label_colors.txt with one line 'red green blue name' "
            "per class, or save class numbers as grey."
        )
    of_classes = named.colours
    counted = {pair: of_classes.get(pair[1]) for pair in used if pair[0] != IGNORE or pair[1] in of_classes}
    if two_colours is not None or any(label not in (None, number) for (number, _), label in counted.items()):
        return True
    shows_classes = any(label is not None and colour != BLACK for (_, colour), label in counted.items())
    return shows_classes and None in counted.values()


def in_rgb(colour: int) -> str:
    return f"({colour >> 16}, {colour >> 8 & 255}, {colour & 255})"


def colour_of(number: int, colour: int, of_classes: Container[int]) -> int:
    """The code of a number by its colour: the colour, or IGNORED_NUMBER for 255 in a colour of no class."""
    return IGNORED_NUMBER if number == IGNORE and colour not in of_classes else colour


def by_colours(mask: StoredMask, of_classes: Container[int]) -> StoredMask:
    """A palette mask with the colours of its numbers as codes."""
    codes = [colour_of(number, colour, of_classes) for number, colour in enumerate(mask.palette)]
    return replace(mask, storage=PALETTE_COLOURS, codes=np.array(codes, dtype=np.int32)[mask.codes])
