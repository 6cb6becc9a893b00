"""Checkpoints, written atomically and sealed with their SHA-256, with tensors and plain values only."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import torch

from fieldshift.errors import UserError, reason_of
from fieldshift.seals import check_seal, seal
from fieldshift.training import distributed
from fieldshift.whole_file import whole_file


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` (tensors and plain Python values) to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        packed = io.BytesIO()  # torch hides the error of a full disk
        torch.save(state, packed)
        # Python below 3.12.3 crashes when it collects a view that an error keeps, here or in `Path.write_bytes`.
        with packed.getbuffer() as view, temporary.open("wb") as file:
            file.write(view)
        seal(temporary)


def checkpoint_of_first(path: Path) -> dict[str, Any] | None:
    """Returns rank 0's checkpoint at `path` on every rank, with its tensors on the CPU; None if it finds none.

    Ranks that read separately could start from different epochs if their folders differ. Raises UserError on
    every rank if the file cannot be read.
    """
    return distributed.from_first(lambda: read_checkpoint(path) if path.exists() else None)


def read_checkpoint(path: Path, map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a file of `write_checkpoint`, without ever unpickling code. Raises UserError if it is none, or changed."""
    try:
        check_seal(path)
        with warnings.catch_warnings():  # torch's warnings about old formats
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"No checkpoint at {path}; give the folder of a run that has one.") from None
    except Exception as error:
        raise UserError(
            f"{path} is not a readable checkpoint ({reason_of(error)}); delete it to start again, or give another."
        ) from error
    if not isinstance(state, dict):
        raise UserError(f"{path} contains a {type(state).__name__}, not a checkpoint; give the folder of a run.")
    return state
