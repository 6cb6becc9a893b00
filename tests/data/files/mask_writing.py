"""Masks as files, written byte by byte where Pillow would not write them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Numbers = NDArray[np.int64]


def write_png(path: Path, numbers: Numbers, bits: int) -> None:
    """A grey PNG whose samples of `bits` bits are `numbers` themselves."""
    height, width = numbers.shape
    samples = numbers.astype(np.uint32)
    rows = b""
    for row in samples:
        digits = "".join(f"{value:0{bits}b}" for value in row)
        digits += "0" * (-len(digits) % 8)
        rows += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
                   for kind, data in chunks)
    )  # fmt: skip


def write_palette(path: Path, numbers: Numbers) -> None:
    image = Image.fromarray(numbers.astype(np.uint8))
    image.putpalette([value for number in range(256) for value in (255 - number, 7, number)])
    image.save(path)


def write_quantised(path: Path, numbers: Numbers, colours: dict[int, tuple[int, int, int]]) -> None:
    """A palette of the colours in the order in which they occur, from the last pixel, as if colours had been reduced."""
    found = list(dict.fromkeys(numbers.ravel()[::-1].tolist()))
    image = Image.fromarray(np.array([found.index(number) if number in found else 0 for number in range(256)],
                                     dtype=np.uint8)[numbers])  # fmt: skip
    image.putpalette([value for number in found for value in colours[number]])
    image.save(path)


def write_colours(path: Path, numbers: Numbers, colours: dict[int, tuple[int, int, int]]) -> None:
    pixels = np.zeros((*numbers.shape, 3), dtype=np.uint8)
    for number, colour in colours.items():
        pixels[numbers == number] = colour
    Image.fromarray(pixels).save(path)


def save_with_exif(image: Image.Image, path: Path, exif: Image.Exif, kind: str) -> None:
    """The image as `path` with the ending of its kind: png, png-last (EXIF data after the pixels), tif, tif-lzw or webp."""
    path = path.with_suffix(f".{kind.partition('-')[0]}")
    match kind:
        case "webp":
            image.save(path, exif=exif, lossless=True)
        case "tif-lzw":
            image.save(path, exif=exif, compression="tiff_lzw")
        case _:
            image.save(path, exif=exif)
    if kind == "png-last":
        content = path.read_bytes()
        start = content.index(b"eXIf") - 4
        length = 12 + int.from_bytes(content[start : start + 4], "big")
        end = content.index(b"IEND") - 4
        moved = content[start : start + length]
        path.write_bytes(content[:start] + content[start + length : end] + moved + content[end:])


def write_scenes(root: Path, write: object, numbers: list[Numbers], image: tuple[int, int] | None = None) -> None:
    """Scenes s0, s1, ... in JPEGImages, each with the mask that `write(path, numbers)` makes."""
    assert callable(write)
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for place, found in enumerate(numbers):
        size = (*found.shape, 3) if image is None else (*image, 3)
        pixels = np.random.default_rng(place).integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"s{place}.png")
        write(root / "SegmentationClass" / f"s{place}.png", found)
