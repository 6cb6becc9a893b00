"""Single pictures for a trained network, converted to the channels and the size that it was trained on."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from fieldshift.data.files.reading import Reader
from fieldshift.data.loading import LoadingConfig
from fieldshift.data.problems import BadFileError
from fieldshift.errors import UserError


def picture_reader(channels: int, size: tuple[int, int], pixel_limit: int = LoadingConfig().pixel_limit) -> Reader:
    """The reader of pictures for a network: scaled to cover `size` (H, W) and cropped at the centre; `channels` 1 or 3."""
    return Reader(size=size, channels=channels, pixel_limit=pixel_limit, fitting="crop", to_grey=True)


def read_picture(path: str | Path, reader: Reader) -> UInt8[Tensor, "channels height width"]:
    """An image file as uint8 (C, H, W). Raises UserError where it cannot be used."""
    try:
        return reader.image(path)
    except BadFileError as error:
        raise UserError(error.problem.line()) from None
