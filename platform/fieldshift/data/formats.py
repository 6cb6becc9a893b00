"""Which picture files are read: everything that Pillow decodes itself, known by its content or by its ending."""

from __future__ import annotations

import functools
from pathlib import Path

from PIL import Image

# Known by their first bytes, so they are tried whatever a file is called.
SIGNED = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "QOI")
# EPS starts another program, IM is deprecated in Pillow; of the others Pillow knows the header only.
NOT_DECODED = ("EPS", "IM", "BUFR", "GRIB", "HDF5", "WMF", "MPEG")
# Several pictures in one file of which the first is the picture: a camera's preview, a drawing's layers.
FIRST_IS_WHOLE = ("MPO", "PSD")
LOSSY = ("JPEG", "MPO")


@functools.cache
def format_of_ending() -> dict[str, str]:
    """Every ending of a picture file that is read, in lower case with its dot, and Pillow's name of its format."""
    Image.init()
    readable = {*Image.OPEN, "MPO"} - set(NOT_DECODED)
    return {ending: name for ending, name in Image.registered_extensions().items() if name in readable}


@functools.cache
def endings() -> tuple[str, ...]:
    """The endings of picture files, such as ".jpg", in lower case."""
    return tuple(format_of_ending())


def formats_of(path: str | Path) -> tuple[str, ...]:
    """The formats that the file at `path` is tried as: those with a signature, and the one that its ending names."""
    named = format_of_ending().get(Path(path).suffix.lower())
    signed = tuple(name for name in SIGNED if name in Image.OPEN)
    return signed if named is None or named in {*signed, "MPO"} else (*signed, named)


def without_ending(name: str) -> str:
    """A file's name without the ending of a picture; other dots are part of the name."""
    found = Path(name)
    return name[: -len(found.suffix)] if found.suffix.lower() in format_of_ending() else name
