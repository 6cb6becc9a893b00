"""Pictures that a command names, files or folders of them, read for a trained network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from fieldshift.console import progress
from fieldshift.errors import UserError
from pipelines.options import check_pictures

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fieldshift.data.files.reading import Reader
    from fieldshift.data.files.streaming import StreamedSplit
    from fieldshift.data.loading import LoadingConfig


def picture_files(named: Sequence[str]) -> list[str]:
    """The files that are named, and all picture files below the folders that are named, each folder's sorted by name.

    Pictures in folders are recognised by their endings; hidden files are left out. Raises UserError for a path that does
    not exist, and for a folder that has no picture or cannot be listed.
    """
    from fieldshift.data.files.listing import image_files
    from fieldshift.data.problems import BadFileError, Findings

    files: list[str] = []
    for name in named:
        path = Path(name)
        if not path.is_dir():
            check_pictures([name])
            files.append(name)
            continue
        try:
            found = list(image_files(name, path.resolve(), Findings(skip=False)))
        except BadFileError as error:
            raise UserError(error.problem.line()) from None
        if not found:
            raise UserError(f"{name} is a folder without pictures; name pictures, or a folder of them.")
        files += found
    return files


def readable_pictures(
    files: Sequence[str], reader: Reader, loading: LoadingConfig, batch: int, *, shown: bool
) -> StreamedSplit:
    """The pictures as a split without classes (targets 0), after all of them were decoded once.

    They stay in memory if `loading.memory` holds them, else they are decoded again when used. Raises UserError for the first
    that cannot be used. `shown`: whether to report the progress.
    """
    import torch

    from fieldshift.data.files.streaming import FileStore, StreamedSplit
    from fieldshift.data.problems import BadFileError

    store = FileStore(files, None, reader, workers=loading.workers, memory=loading.memory)
    split = StreamedSplit(store, torch.arange(len(files)), torch.zeros(len(files), dtype=torch.int64))
    try:
        for _ in picture_batches(split, batch, "reading", shown=shown):
            pass
    except BadFileError as error:
        raise UserError(error.problem.line()) from None
    return split


def picture_batches(
    split: StreamedSplit, batch: int, title: str, *, shown: bool, device: torch.device | str = "cpu"
) -> Iterator[Tensor]:
    """Yields all pictures in their order, uint8 (B, C, H, W); reports the progress if `shown` and there are several batches."""
    from fieldshift.data.batching import batches

    with progress(title, len(split)) if shown and len(split) > batch else nullcontext() as bar:
        for images, _, _ in batches(split, batch, seed=0, epoch=0, shuffle=False, device=device):
            yield images
            if bar is not None:
                bar.advance(len(images))
