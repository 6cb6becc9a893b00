"""A mask as stored: its kind of file, and the number or colour of each pixel.

The meaning of a number is decided elsewhere (see `mask_decoding`): a file shows how it stores numbers, the whole set shows
which numbers occur. Grey of 1, 2 or 4 bits is read as the numbers in the file, not as the brightness that Pillow
scales them to. Lossy files change numbers, so they are refused, except black-and-white JPEG: all other values must lie in a
block of 8 x 8 pixels with an edge between the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fieldshift.data.files.formats import JPEGS, is_lossy
from fieldshift.data.files.orientation import SIDEWAYS, TURNS, orientation_of
from fieldshift.data.problems import BadFileError, Problem

Codes = NDArray[Any]

PALETTE, GREY_IN_RGB, COLOUR, BLACK_WHITE_JPEG = "palette", "grey in RGB", "RGB", "black-and-white JPEG"
PALETTE_COLOURS = "colours of a palette"
STORAGES = (
    PALETTE,
    PALETTE_COLOURS,
    *(f"grey of {bits} bit(s)" for bits in (1, 2, 4, 8, 16, 32)),
    GREY_IN_RGB,
    COLOUR,
    BLACK_WHITE_JPEG,
)
BLOCK = 8
BLACK_UP_TO, WHITE_FROM = 63, 192
NEAR_WHITE = 250
NO_COLOUR = -1
GREY_TOLERANCE = 4


@dataclass(frozen=True)
class StoredMask:
    """The pixels of a mask file: `codes` (H, W) are its numbers (uint8 or int32), for RGB 65536 * red + 256 * green +
    blue.

    storage: one of STORAGES. is_turned: whether the file's own EXIF turned it upright. palette: of a palette file, the packed
    colour of each number; see `colours_of_numbers`.
    """

    storage: str
    codes: Codes
    is_turned: bool = False
    palette: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert self.storage in STORAGES, self.storage

    @property
    def size(self) -> tuple[int, int]:
        return self.codes.shape[1], self.codes.shape[0]


def bad_mask(kind: str, path: str | Path, what: str, remedy: str) -> BadFileError:
    return BadFileError(Problem(kind, str(path), what, remedy))


def stored_mask(image: Image.Image, path: str | Path) -> StoredMask:
    """The mask of an opened file. Raises BadFileError for floats, transparency, and lossy files other than
    black-and-white JPEG.
    """
    bits = depth_of(image)
    turn = orientation_of(image)
    largest = largest_of_ppm(image)
    lossy, kind = is_lossy(image, path), image.format
    image.load()
    if turn != 1:
        image = ImageOps.exif_transpose(image)
    if lossy and kind not in JPEGS:
        raise bad_mask("lossy mask", path, f"is stored as {kind} and not known to be lossless: class numbers may have changed",
                       "save masks as PNG, from the original annotations")  # fmt: skip
    stored = of_mode(image, bits, path) if not lossy else black_and_white(image, path)
    if largest and stored.storage in (f"grey of {bits} bit(s)", GREY_IN_RGB):  # Pillow scales to the whole range
        whole = 65535 if image.mode.startswith("I") else 255
        stored = replace(stored, codes=np.rint(stored.codes * (largest / whole)).astype(stored.codes.dtype))
    return replace(stored, is_turned=turn != 1)


def depth_of(image: Image.Image) -> int:
    """Bits per channel, from the header."""
    if largest_of_ppm(image) > 255:
        return 16
    if image.mode in ("1", "I", "F"):
        raw = [str(tile[3]) for tile in getattr(image, "tile", []) if len(tile) > 3]
        return 1 if image.mode == "1" else 16 if any(";16" in mode for mode in raw) else 32
    if image.mode.startswith("I;16"):
        return 16
    found = [
        re.search(r"L;([24])\b|L;([24])[RI]", str(tile[3])) for tile in getattr(image, "tile", []) if len(tile) > 3
    ]
    return next((int(match[1] or match[2]) for match in found if match), 8)


def largest_of_ppm(image: Image.Image) -> int:
    """The largest value that an opened file of numbers (PGM, PPM) says it may hold, where Pillow scales by it; else 0."""
    for tile in getattr(image, "tile", []):
        if tile[0] in ("ppm", "ppm_plain") and isinstance(tile[3], tuple):
            return int(tile[3][1])
    return 0


def of_mode(image: Image.Image, bits: int, path: str | Path) -> StoredMask:
    if image.mode in ("LA", "RGBA", "PA"):
        opaque = np.asarray(image.getchannel("A")) == 255
        if not opaque.all():
            raise bad_mask("transparent mask", path, "is partly transparent", "save it without an alpha channel")
        image = image.convert("L" if image.mode == "LA" else "RGB")
    if image.mode == "F":
        raise bad_mask("float mask", path, "holds floating-point numbers", "save it as whole numbers (8-bit PNG)")
    if image.mode in ("P", "L", "1") or image.mode.startswith("I"):
        codes = np.array(image)
        codes = codes.astype(np.uint8) if image.mode in ("P", "L", "1") else codes.astype(np.int32)
        if image.mode == "P":
            return StoredMask(PALETTE, codes, palette=colours_of_numbers(image))
        if bits in (2, 4):
            codes = codes // (255 // (2**bits - 1))
        return StoredMask(f"grey of {bits} bit(s)", codes)
    if image.mode != "RGB":
        raise bad_mask("coloured mask", path, f"has the mode {image.mode}",
                       "save masks with one channel (or a palette) that holds class numbers, or as RGB")  # fmt: skip
    pixels = np.asarray(image).astype(np.int32)
    if (pixels == pixels[..., :1]).all():
        return StoredMask(GREY_IN_RGB, pixels[..., 0])
    return StoredMask(COLOUR, (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2])


def colours_of_numbers(image: Image.Image) -> tuple[int, ...]:
    """The colour of each number of a palette image, packed; NO_COLOUR for numbers that the palette does not reach.

    255 has one only if no other number has the same: a palette that is filled up to 255 says nothing about it.
    """
    values = image.getpalette("RGB") or []
    colours = [red << 16 | green << 8 | blue for red, green, blue in zip(*[iter(values)] * 3, strict=True)]
    if len(colours) == 256 and colours[-1] in colours[:-1]:
        colours[-1] = NO_COLOUR
    return (*colours, *[NO_COLOUR] * (256 - len(colours)))


def black_and_white(image: Image.Image, path: str | Path) -> StoredMask:
    def refused(why: str) -> BadFileError:
        return bad_mask("lossy mask", path, f"is a JPEG, which changes class numbers, and {why}",
                        "save masks as PNG, from the original annotations")  # fmt: skip

    if image.mode not in ("L", "RGB"):
        raise refused(f"has the mode {image.mode}")
    if image.mode == "RGB" and np.ptp(np.asarray(image).astype(np.int32), axis=2).max() > GREY_TOLERANCE:
        raise refused("has colours")
    grey = np.asarray(image.convert("L")).astype(np.int32)
    if ((grey > BLACK_UP_TO) & (grey < WHITE_FROM)).any():
        raise refused("has values other than black and white")
    white = grey >= WHITE_FROM
    mixed = blockwise_any(white) & blockwise_any(~white)
    if ((~white & (grey > 0) & ~mixed) | (white & (grey < NEAR_WHITE) & ~mixed)).any():
        raise refused("has values other than black and white")
    return StoredMask(BLACK_WHITE_JPEG, np.where(white, 255, 0).astype(np.uint8))


def blockwise_any(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """For every pixel, whether any of its block of 8 x 8 (from the upper left corner, as JPEG has them) is set."""
    height, width = flags.shape
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    padded = np.zeros((rows * BLOCK, columns * BLOCK), dtype=bool)
    padded[:height, :width] = flags
    blocks = padded.reshape(rows, BLOCK, columns, BLOCK).any((1, 3))
    return blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)[:height, :width]


def turned_with(mask: StoredMask, path: str | Path, stored: tuple[int, int], turn: int) -> tuple[StoredMask, bool]:
    """The mask aligned with its upright image, and whether it was turned with it.

    `stored` is the (width, height) of the image file, `turn` its EXIF orientation. A mask of the stored size is turned
    like its image, one of the upright size stays. Raises BadFileError for any other size, and where the sizes are ambiguous.
    """
    upright = stored[::-1] if turn in SIDEWAYS else stored
    if mask.size not in (stored, upright) or (mask.is_turned and mask.size != upright):
        sizes = f"{mask.size[0]} x {mask.size[1]} pixels, its image {upright[0]} x {upright[1]}"
        hint = (
            "turn the mask upright as the image's EXIF says"
            if mask.size == upright[::-1]
            else "give it the size of its image"
        )
        raise bad_mask("mask size", path, f"is {sizes}", hint)
    if turn == 1 or mask.is_turned:
        return mask, False
    if stored == upright:
        if mask.codes.min() == mask.codes.max():
            return mask, False
        raise bad_mask("turned image", path, f"has no EXIF orientation, its image has {turn}, and their sizes do not show"
                       " whether the mask is turned too", "save the image upright, without EXIF, like its mask")  # fmt: skip
    if mask.size == upright:
        return mask, False
    return replace(mask, codes=np.ascontiguousarray(TURNS[turn](mask.codes))), True
