"""Single pictures for a trained network, converted to the channels and the size that it was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from fieldshift.data.files.reading import Fitting, Reader, as_tensor, load_upright
from fieldshift.data.loading import LoadingConfig
from fieldshift.data.problems import BadFileError
from fieldshift.errors import UserError


def picture_reader(
    channels: int,
    size: tuple[int, int],
    pixel_limit: int = LoadingConfig().pixel_limit,
    *,
    fitting: Fitting = "crop",
    cover: float = 1.0,
) -> Reader:
    """The reader of pictures for a network: brought to `size` (H, W) as Reader says; `channels` 1 or 3, colour made grey."""
    return Reader(size=size, channels=channels, pixel_limit=pixel_limit, fitting=fitting, cover=cover, to_grey=True)


def open_picture(path: str | Path, reader: Reader) -> Image.Image:
    """An image file in its own size, upright, with the reader's channels. Raises UserError where it cannot be used."""
    try:
        return load_upright(path, reader.channels, reader.pixel_limit, to_grey=reader.to_grey)
    except BadFileError as error:
        raise UserError(error.problem.line()) from None


def fitted_picture(picture: Image.Image, reader: Reader) -> UInt8[Tensor, "channels height width"]:
    """A picture of the reader's channels as uint8 (C, H, W) of its size."""
    return as_tensor(reader.fitted(picture, Image.Resampling.BILINEAR, 0))


def read_picture(path: str | Path, reader: Reader) -> UInt8[Tensor, "channels height width"]:
    """An image file as uint8 (C, H, W). Raises UserError where it cannot be used."""
    return fitted_picture(open_picture(path, reader), reader)


def mask_of_picture(
    mask: UInt8[np.ndarray, "height width"], size: tuple[int, int], reader: Reader
) -> Int64[np.ndarray, "own_height own_width"]:
    """A mask of a padded picture, for the picture itself: `size` (width, height) before the padding and the scaling.

    The padding is cut off; where the picture was scaled down, every pixel takes the class of the nearest one.
    """
    width, height = reader.inner_size(size)
    inner = Image.fromarray(np.ascontiguousarray(mask[:height, :width]))
    return np.array(inner if inner.size == size else inner.resize(size, Image.Resampling.NEAREST)).astype(np.int64)
