"""The orientation of a picture file: how its stored pixels are turned upright, as Pillow turns them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[Any]

TAG = 0x0112
# EXIF orientation: the operation that turns the stored array upright.
TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda stored: stored, 2: lambda stored: stored[:, ::-1], 3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1], 5: lambda stored: stored.T, 6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].T, 8: lambda stored: np.rot90(stored, 1),
}  # fmt: skip
SIDEWAYS = (5, 6, 7, 8)
TIFF_WIDTH, TIFF_HEIGHT = 256, 257


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an opened file, 1 (upright) to 8; 1 if it is missing or damaged.

    TIFF has it as a tag of its own, by which Pillow turns the picture while it decodes. PNG may have EXIF data after the
    pixels; such a file, if it is not decoded yet, is decoded.
    """
    try:
        if image.format == "PNG" and has_exif_after_pixels(getattr(image, "filename", "")):
            image.load()
        turn = image.getexif().get(TAG, 1) if image.format == "TIFF" or image.info.get("exif") else 1
    except Exception:
        return 1  # damaged EXIF data: decoding the file reports it
    return turn if turn in TURNS else 1


def stored_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an opened file before it is turned upright; Pillow shows that of a TIFF as it will be turned."""
    if image.format == "TIFF":
        tags: dict[int, Any] = image.tag_v2  # type: ignore[attr-defined]
        return int(tags[TIFF_WIDTH]), int(tags[TIFF_HEIGHT])
    return image.size


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an opened file once it is turned upright."""
    width, height = stored_size(image)
    return (height, width) if orientation_of(image) in SIDEWAYS else (width, height)


def has_exif_after_pixels(path: str | Path) -> bool:
    """Whether a PNG file has EXIF data after its pixels."""
    seen = False
    with Path(path).open("rb", buffering=0) as file:
        file.seek(len(b"\x89PNG\r\n\x1a\n"))
        while len(head := file.read(8)) == 8:
            if seen and head[4:] == b"eXIf":
                return True
            seen = seen or head[4:] == b"IDAT"
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return False
