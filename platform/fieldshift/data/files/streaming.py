"""A split whose images stay in files: decoded when gathered, by several threads, ahead of use."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from fieldshift.data.files.reading import Reader
from fieldshift.data.problems import BadFileError, Problem
from fieldshift.data.split import Split, TensorSplit

Decoded = tuple[Tensor, Tensor | None]
MIB = 2**20
AT_ONCE = 256  # images that are decoded ahead


class FileStore:
    """Image files (with their masks, if any) and the images decoded so far.

    `memory` is in MiB: images are cached once decoded if all of them fit. At most two batches are decoded
    ahead, by `workers` threads; 0 decodes in the caller's thread.
    """

    def __init__(
        self, images: Sequence[str], masks: Sequence[str] | None, reader: Reader, *, workers: int, memory: int
    ) -> None:
        self.images, self.masks, self.reader, self.workers = images, masks, reader, workers
        height, width = reader.size
        values = len(images) * height * width * (reader.channels + (masks is not None))
        self.kept: tuple[Tensor, Tensor | None] | None = None
        self.fits = values <= memory * MIB
        self.is_kept = torch.zeros(len(images), dtype=torch.bool)
        self.pending: dict[int, tuple[Future[list[Decoded]], int]] = {}
        self.pool: ThreadPoolExecutor | None = None

    def decode(self, position: int) -> Decoded:
        if self.masks is None:
            return self.reader.image(self.images[position]), None
        return self.reader.scene(self.images[position], self.masks[position])

    def decode_all(self, positions: Sequence[int]) -> list[Decoded]:
        return [self.decode(position) for position in positions]

    def start(self, positions: Sequence[int]) -> None:
        """Starts decoding those of `positions` that are neither cached nor already being decoded."""
        if self.workers == 0:
            return
        missing = [place for place in positions if not self.is_kept[place] and place not in self.pending]
        if not missing:
            return
        if self.pool is None:
            self.pool = ThreadPoolExecutor(self.workers, thread_name_prefix="fieldshift-decode")
        # A few chunks per thread: fewer hand-overs than one per image, and no thread waits for long.
        step = max(1, -(-len(missing) // (self.workers * 2)))
        for begin in range(0, len(missing), step):
            piece = missing[begin : begin + step]
            future = self.pool.submit(self.decode_all, piece)
            self.pending.update((place, (future, offset)) for offset, place in enumerate(piece))

    def fetch(self, positions: Int64[Tensor, " batch"]) -> tuple[Tensor, Tensor | None]:
        """The images (B, C, H, W) and masks (B, H, W) at `positions`, uint8. Raises BadFileError."""
        if self.fits:
            kept, masks = self.keep(positions)
            return kept[positions], None if masks is None else masks[positions]
        wanted = positions.tolist()
        self.start(wanted)
        images, masks = self.room(len(wanted))
        for row, place in enumerate(wanted):
            self.put(place, images, masks, row)
        return images, masks

    def keep(self, positions: Int64[Tensor, " batch"]) -> tuple[Tensor, Tensor | None]:
        """The cache of all images and masks, in which those at `positions` are decoded; only where all of them fit."""
        if self.kept is None:
            self.kept = self.room(len(self.images))
        missing = positions[~self.is_kept[positions]]
        for number, part in enumerate(parts := missing.split(AT_ONCE)):
            for coming in parts[number : number + 2]:
                self.start(coming.tolist())
            for place in part.tolist():
                if not self.is_kept[place]:
                    self.put(place, *self.kept, place)
                    self.is_kept[place] = True
        return self.kept

    def room(self, count: int) -> tuple[Tensor, Tensor | None]:
        """Memory for that many images and masks."""
        height, width = self.reader.size
        images = torch.empty((count, self.reader.channels, height, width), dtype=torch.uint8)
        return images, None if self.masks is None else torch.empty((count, height, width), dtype=torch.uint8)

    def put(self, place: int, images: Tensor, masks: Tensor | None, row: int) -> None:
        """Decodes the image and mask at `place`, if no thread has, into a row."""
        if place in self.pending:
            future, offset = self.pending.pop(place)
            image, mask = future.result()[offset]
        else:
            image, mask = self.decode(place)
        images[row] = image
        if masks is not None and mask is not None:
            masks[row] = mask

    def problems(self) -> list[Problem | None]:
        """The problem of each sample, None for usable ones; decodes all of them without caching."""

        def look(position: int) -> Problem | None:
            try:
                self.decode(position)
            except BadFileError as error:
                return error.problem
            return None

        places = range(len(self.images))
        if self.workers == 0:
            return [look(place) for place in places]
        with ThreadPoolExecutor(self.workers, thread_name_prefix="fieldshift-verify") as pool:
            return list(pool.map(look, places))


class StreamedSplit(Split):
    """A split of a FileStore: the samples at `positions` of the store, with `targets` (N,) int64."""

    def __init__(
        self, store: FileStore, positions: Int64[Tensor, " samples"], targets: Int64[Tensor, " samples"]
    ) -> None:
        assert positions.shape == targets.shape, (positions.shape, targets.shape)
        self.store, self.positions, self.targets = store, positions, targets

    def gather(
        self, indices: Int64[Tensor, " batch"]
    ) -> tuple[UInt8[Tensor, "batch channels height width"], Int64[Tensor, "batch ..."]]:
        indices = indices.cpu()
        images, masks = self.store.fetch(self.positions[indices])
        return images, self.targets[indices] if masks is None else masks.long()

    def subset(self, indices: Int64[Tensor, " kept"]) -> StreamedSplit:
        indices = indices.cpu()
        return StreamedSplit(self.store, self.positions[indices], self.targets[indices])

    def to(self, device: torch.device | str) -> Split:
        """All samples decoded, in the cache itself on the CPU; the split itself if they exceed loading.memory."""
        if not self.store.fits:
            return self
        whole = torch.arange(len(self.store.images))
        images, masks = self.store.keep(self.positions)
        if torch.equal(self.positions, whole):
            return TensorSplit(images, self.targets, masks).to(device)
        part = TensorSplit(images, torch.zeros_like(whole), masks).subset(self.positions)
        part.targets = self.targets
        return part.to(device)

    def ready(self) -> None:
        if self.store.fits:
            self.store.keep(self.positions)

    @property
    def streams(self) -> bool:
        return not bool(self.store.is_kept[self.positions].all())

    def prefetch(self, indices: Int64[Tensor, " batch"]) -> None:
        self.store.start(self.positions[indices.cpu()].tolist())

    def files(self, index: int) -> tuple[str, str | None]:
        """The paths of the image and the mask of the sample at `index`."""
        place = int(self.positions[index])
        return self.store.images[place], None if self.store.masks is None else self.store.masks[place]
