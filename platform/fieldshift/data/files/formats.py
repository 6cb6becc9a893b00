"""Supported picture files: all formats that Pillow decodes itself, identified by content or by ending."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from PIL import Image

# Identified by their first bytes, so they are tried for any file name.
SIGNED = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "QOI")
# EPS starts another program, IM is deprecated in Pillow; of the others Pillow reads only the header.
NOT_DECODED = ("EPS", "IM", "BUFR", "GRIB", "HDF5", "WMF", "MPEG")
# Files with several pictures of which the first is the picture: a camera's preview, a drawing's layers.
FIRST_IS_WHOLE = ("MPO", "PSD")
JPEGS = ("JPEG", "MPO")
# Some of these can be lossless, too, but do not show it.
LOSSY = (*JPEGS, "JPEG2000", "AVIF", "BLP", "DDS", "FPX", "FTEX", "ICNS", "IPTC", "MIC", "PCD")
LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")


@functools.cache
def format_of_ending() -> dict[str, str]:
    """Every supported ending of picture files, in lower case with its dot, with Pillow's name of its format."""
    Image.init()
    readable = {*Image.OPEN, "MPO"} - set(NOT_DECODED)
    return {ending: name for ending, name in Image.registered_extensions().items() if name in readable}


@functools.cache
def endings() -> tuple[str, ...]:
    """The endings of picture files, such as ".jpg", in lower case."""
    return tuple(format_of_ending())


def formats_of(path: str | Path) -> tuple[str, ...]:
    """The formats tried for the file at `path`: those with a signature, and the one of its ending."""
    named = format_of_ending().get(Path(path).suffix.lower())
    signed = tuple(name for name in SIGNED if name in Image.OPEN)
    return signed if named is None or named in {*signed, "MPO"} else (*signed, named)


def is_lossy(image: Image.Image, path: str | Path) -> bool:
    """Whether the file of an opened image may have changed the values of its pixels."""
    if image.format == "TIFF":
        return image.info.get("compression") in LOSSY_IN_TIFF
    return image.format in LOSSY or (image.format == "WEBP" and "VP8L" not in chunks_of_webp(path))


def chunks_of_webp(path: str | Path) -> list[str]:
    """The names of the chunks of a WebP file; pixels without loss are in the chunk VP8L."""
    names = []
    with Path(path).open("rb") as file:
        file.seek(len("RIFF....WEBP"))
        while len(head := file.read(8)) == 8:
            names.append(head[:4].decode("latin-1"))
            size = int.from_bytes(head[4:], "little")
            file.seek(size + size % 2, os.SEEK_CUR)
    return names


def without_ending(name: str) -> str:
    """A file's name without the ending of a picture; other dots are part of the name."""
    stem, _, ending = name.rpartition(".")  # a Path for each of a million files takes longer than their listing
    is_named = bool(stem) and not stem.endswith(os.sep)
    return stem if is_named and f".{ending.lower()}" in format_of_ending() else name
