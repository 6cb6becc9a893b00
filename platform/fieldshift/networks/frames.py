"""Conversion between a batch of videos and the rows of a 2D network.

Rows are batch-major: row b * T + t is frame t of sample b. B batch, T frames.
"""

from __future__ import annotations

from torch import Tensor

from fieldshift.errors import UserError


def check_frames(frames: int) -> None:
    """Raises UserError unless there is at least one frame."""
    if frames < 1:
        raise UserError(f"The value of `frames` is {frames}, but must be at least 1.")


def split_frames(rows: Tensor, frames: int, reader: str = "A video network") -> Tensor:
    """(B * T, ...) -> (B, T, ...), a view in every memory format; ValueError where the rows are not whole videos."""
    if rows.shape[0] % frames != 0:
        raise ValueError(f"{reader} expected B * T rows with T = {frames} frames, received {rows.shape[0]} rows.")
    return rows.reshape(rows.shape[0] // frames, frames, *rows.shape[1:])
