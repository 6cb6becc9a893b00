"""Checkpoints that are written whole or not at all, and hold tensors and plain values only."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch

from fieldshift.errors import UserError, reason_of
from fieldshift.training import distributed


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` (tensors and plain Python values) to `path` under a temporary name, then renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.writing")
    torch.save(state, temporary)
    temporary.replace(path)


def checkpoint_of_first(path: Path) -> dict[str, Any] | None:
    """The checkpoint that rank 0 finds at `path`, on every rank, its tensors on the CPU; None where it finds none.

    Ranks that read for themselves could start from different passes, where their folders are not one. Raises UserError on
    every rank where the file cannot be read.
    """
    return distributed.from_first(lambda: read_checkpoint(path) if path.exists() else None)


def read_checkpoint(path: Path, map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads what `write_checkpoint` wrote, without ever unpickling code. Raises UserError when it is not a checkpoint."""
    try:
        with warnings.catch_warnings():  # torch's own words about old formats
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"No checkpoint at {path}; give the folder of a run that has one.") from None
    except Exception as error:
        raise UserError(
            f"{path} is not a checkpoint that can be read ({reason_of(error)}); delete it to start anew, or give another."
        ) from error
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, not a checkpoint; give the folder of a run.")
    return state
