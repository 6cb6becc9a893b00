"""Reads images and masks from files: decoded with Pillow, checked before decoding, brought to one size.

A file that cannot be used raises BadFileError and no other error, whatever its bytes. Conversions that need no
guess are applied: palette and CMYK to RGB, grey to three channels, transparency onto
black, photographs turned upright by their EXIF data together with their masks. Anything that would need a guess is
refused: 16 bits (which range?), several frames (which one?), a side of one pixel. Mask contents: see `mask_files`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import PIL
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from fieldshift.data.dataset import digest_of
from fieldshift.data.files.formats import FIRST_IS_WHOLE, format_of_ending, formats_of
from fieldshift.data.files.mask_files import (
    COLOUR,
    PALETTE_COLOURS,
    StoredMask,
    largest_of_ppm,
    stored_mask,
    turned_with,
)
from fieldshift.data.files.mask_palettes import in_rgb
from fieldshift.data.files.mask_table import UNKNOWN_LABEL, MaskTable
from fieldshift.data.files.orientation import orientation_of, stored_size
from fieldshift.data.problems import BadFileError, Problem
from fieldshift.data.split import IGNORE
from fieldshift.errors import one_line

SMALLEST_SIDE = 2
SEARCHED_BYTES = 2**16
READING = 5  # raised with every change of what is read from a file, or refused

Fitting = Literal["crop", "pad"]
Read = TypeVar("Read")

# Pillow warns about damaged tags; a file that cannot be used is refused here, in one line.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+ImagePlugin")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def reading_digest(*parts: object) -> str:
    """A digest for the cache of what is read from files: of `parts`, of the way in which files are read, and of Pillow."""
    return digest_of(READING, PIL.__version__, *parts)


def bad(kind: str, path: str | Path, what: str, remedy: str) -> BadFileError:
    return BadFileError(Problem(kind, str(path), what, remedy))


def open_image(path: str | Path, pixel_limit: int, *, deep: bool = False) -> Image.Image:
    """Opens the image at `path` and checks its header without decoding pixels; more than 8 bits only if `deep`, and in
    one channel.

    Raises BadFileError.
    """
    try:
        if Path(path).stat().st_size == 0:
            raise bad("empty file", path, "has 0 bytes", "copy it again or delete it")
        image = Image.open(path, formats=formats_of(path))
    except BadFileError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_large(path, pixel_limit) from None
    except FileNotFoundError:
        raise bad("missing file", path, "is missing", "put it back, or name another") from None
    except Exception as error:
        raise unreadable(path, error) from error
    try:
        check_header(path, image, pixel_limit)
        if (
            image.format == "TIFF"
        ):  # with a name Pillow maps the file, and takes rows of a wrong length if it lies sideways
            image.filename = ""
        if is_deep(image, path) and not (deep and image.mode[0] in "IF"):  # others are reduced to 8 bits by Pillow
            raise bad("deep pixels", path, f"has more than 8 bits per channel (mode {image.mode})",
                      "scale its values to 0 .. 255 in a way that suits your data and save it with 8 bits")  # fmt: skip
    except BadFileError:
        image.close()
        raise
    except Exception as error:
        image.close()
        raise unreadable(path, error) from error
    return image


def check_header(path: str | Path, image: Image.Image, pixel_limit: int) -> None:
    width, height = image.size
    if width * height > pixel_limit:
        raise too_large(path, pixel_limit, f"{width} x {height} pixels")
    if min(width, height) < SMALLEST_SIDE:
        raise bad("too small", path, f"is {width} x {height} pixels", "delete it or replace it with the whole image")
    if image.format not in FIRST_IS_WHOLE and getattr(image, "n_frames", 1) > 1:
        frames = getattr(image, "n_frames", 1)
        raise bad("several frames", path, f"has {frames} frames", "save the frame you need as a separate PNG")


def is_deep(image: Image.Image, path: str | Path) -> bool:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return True
    # Pillow reduces deep RGB files to 8 bits by itself; only their raw mode shows it.
    tiles = [tile for tile in getattr(image, "tile", []) if len(tile) > 3]
    if any(";16" in str(tile[3]) or tile[0] == "SGI16" for tile in tiles):
        return True
    if image.format == "JPEG2000":
        return jpeg2000_bits(path) > 8
    return largest_of_ppm(image) > 255


def jpeg2000_bits(path: str | Path) -> int:
    """The bits per channel of a JPEG 2000 file, by its codestream's first segment; 8 if that is not found."""
    with Path(path).open("rb") as file:
        head = file.read(SEARCHED_BYTES)
    start = head.find(b"\xff\x4f\xff\x51")  # SOC and SIZ; the bits less one follow the sizes and the number of channels
    depths = head[start + 42 : start + 42 + 3 * int.from_bytes(head[start + 40 : start + 42], "big") : 3]
    return max(((depth & 0x7F) + 1 for depth in depths), default=8) if start >= 0 else 8


def too_large(path: str | Path, limit: int, size: str = "more pixels than Pillow allows") -> BadFileError:
    return bad("too large", path, f"has {size}, over the limit of {limit}",
               "make it smaller, or raise --loading.pixel_limit if you trust it")  # fmt: skip


def unreadable(path: str | Path, error: Exception) -> BadFileError:
    if isinstance(error, PermissionError):
        return bad("unreadable", path, "cannot be read (permission denied)", "change its permissions")
    # Some of Pillow's messages repeat the whole path or object.
    reason = one_line(error).replace(repr(str(path)), "").strip()[:120]
    is_picture = Path(path).suffix.lower() in format_of_ending()
    remedy = "copy it again or delete it" if is_picture else "leave it out if it is no picture"
    return bad("unreadable", path, f"cannot be decoded ({reason})", remedy)


def decoded(path: str | Path, pixel_limit: int, finish: Callable[[Image.Image], Read], *, deep: bool = False) -> Read:
    with open_image(path, pixel_limit, deep=deep) as image:
        try:
            return finish(image)
        except BadFileError:
            raise
        except Exception as error:
            raise unreadable(path, error) from error


def load_upright(path: str | Path, channels: int, pixel_limit: int, *, to_grey: bool = False) -> Image.Image:
    """The image as "L" (`channels` 1) or "RGB" (3), turned upright; colour is made grey only with `to_grey`.

    Raises BadFileError.
    """

    def finish(image: Image.Image) -> Image.Image:
        image.load()
        if image.info.get("exif"):
            image = ImageOps.exif_transpose(image)
        if channels == 1 and image.mode not in ("L", "1") and not to_grey:
            raise bad("colour", path, f"is not grey (mode {image.mode}), but all images are read as grey",
                      "save it as grey, or train with --loading.channels 3")  # fmt: skip
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            image = Image.composite(rgba.convert("RGB"), Image.new("RGB", rgba.size), rgba.getchannel("A"))
        wanted = "L" if channels == 1 else "RGB"
        return image if image.mode == wanted else image.convert("RGB").convert(wanted)

    return decoded(path, pixel_limit, finish)


def unknown_labels(path: str | Path, codes: list[int], storage: str) -> BadFileError:
    shown = ", ".join(in_rgb(code) if storage in (COLOUR, PALETTE_COLOURS) else str(code)
                      for code in [code for code in codes if code >= 0][:8])  # fmt: skip
    return bad("unknown label", path, f"holds labels that no class has: {shown}",
               f"name them in the class file, or use {IGNORE} for ignored pixels")  # fmt: skip


def load_mask(path: str | Path, pixel_limit: int) -> StoredMask:
    """The numbers or colours of a mask as stored in the file; for palette images the numbers. Raises BadFileError."""
    return decoded(path, pixel_limit, lambda image: stored_mask(image, path), deep=True)


def load_scene_mask(path: str | Path, mask_path: str | Path, pixel_limit: int) -> tuple[StoredMask, bool]:
    """The mask aligned with the upright image at `path`, and whether it was turned with it. Raises BadFileError."""
    with open_image(path, pixel_limit) as image:
        size, turn = stored_size(image), orientation_of(image)
    return turned_with(load_mask(mask_path, pixel_limit), mask_path, size, turn)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Converts the files of one data set to tensors of one size.

    size: (H, W) of the result. channels: 1 or 3. pixel_limit: as in LoadingConfig.
    fitting: "crop" scales an image to cover `size` and crops its centre; "pad" scales it down to fit, never up, and
    fills the right and lower rest with black (masks: 255, ignored). An image of `size` is unchanged.
    cover: with "crop", the fraction of the shorter side that the crop keeps (0.875 is usual for ImageNet: 224 of 256).
    to_grey: whether colour images are converted to grey where `channels` is 1; otherwise they are refused.
    masks: the class of every number or colour that a mask may contain; None without masks.
    """

    size: tuple[int, int]
    channels: int
    pixel_limit: int
    fitting: Fitting
    cover: float = 1.0
    to_grey: bool = False
    masks: MaskTable | None = None

    def image(self, path: str | Path) -> UInt8[Tensor, "channels height width"]:
        """The image at `path` as uint8 (C, H, W). Raises BadFileError."""
        image = load_upright(path, self.channels, self.pixel_limit, to_grey=self.to_grey)
        return as_tensor(self.fitted(image, Image.Resampling.BILINEAR, 0))

    def scene(
        self, path: str | Path, mask_path: str | Path
    ) -> tuple[UInt8[Tensor, "channels height width"], UInt8[Tensor, "height width"]]:
        """The image and its mask, resized alike to `size`. Raises BadFileError."""
        image, mask = self.whole_scene(path, mask_path)
        labels = as_tensor(self.fitted(mask, Image.Resampling.NEAREST, IGNORE))
        return as_tensor(self.fitted(image, Image.Resampling.BILINEAR, 0)), labels[0]

    def whole_scene(self, path: str | Path, mask_path: str | Path) -> tuple[Image.Image, Image.Image]:
        """The image and its mask (class numbers) in their original size. Raises BadFileError."""
        image = load_upright(path, self.channels, self.pixel_limit)
        mask, _ = load_scene_mask(path, mask_path, self.pixel_limit)
        if mask.size != image.size:  # damaged EXIF data
            raise bad(
                "mask size", mask_path, "differs in size from its upright image", "save the image upright, without EXIF"
            )
        assert self.masks is not None
        mask = self.masks.as_decoded(mask)
        labels = self.masks.labels(mask)
        if (labels == UNKNOWN_LABEL).any():
            unknown = np.unique(mask.codes[labels == UNKNOWN_LABEL]).tolist()
            raise unknown_labels(mask_path, unknown, mask.storage)
        return image, Image.fromarray(labels)

    def fitted(self, image: Image.Image, resampling: Image.Resampling, outside: int) -> Image.Image:
        height, width = self.size
        if image.size == (width, height) and self.cover == 1.0:
            return image
        if self.fitting == "crop":
            scaled = covering_size(image.size, (width, height), self.cover)
            image = image.resize(scaled, resampling)
            left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
            return image.crop((left, top, left + width, top + height))
        inner = self.inner_size(image.size)
        if inner != image.size:
            image = image.resize(inner, resampling)
        canvas = Image.new(image.mode, (width, height), outside if image.mode == "L" else (outside,) * 3)
        canvas.paste(image, (0, 0))
        return canvas

    def inner_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) that "pad" gives an image of `size` (width, height): the upper left part of the result."""
        height, width = self.size
        scale = min(1.0, width / size[0], height / size[1])
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def fitting_of(task: str) -> Fitting:
    """The fitting of a task's images: scenes are padded, so that no pixel of their masks is lost."""
    return "pad" if task == "segmentation" else "crop"


def covering_size(size: tuple[int, int], target: tuple[int, int], cover: float) -> tuple[int, int]:
    """(width, height) to scale `size` to, with the same aspect, so that `target` is `cover` of the area to cover.

    The longer side is truncated to whole pixels as in torchvision's Resize.
    """
    wanted = tuple(int(side / cover) for side in target)
    if size[0] * wanted[1] <= size[1] * wanted[0]:
        return wanted[0], max(wanted[1], int(wanted[0] * size[1] / size[0]))
    return max(wanted[0], int(wanted[1] * size[0] / size[1])), wanted[1]


def as_tensor(image: Image.Image) -> UInt8[Tensor, "channels height width"]:
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))
