"""A data set before it is loaded: its files, or the arrays they contain, and how to prepare them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from fieldshift.data.cache import cached_arrays
from fieldshift.data.copies import conflicting, report_conflicts
from fieldshift.data.dataset import (
    DataSet,
    Statistics,
    channel_statistics,
    digest_of,
    digest_of_split,
)
from fieldshift.data.files.content import FileContents
from fieldshift.data.files.headers import note_headers, probe
from fieldshift.data.files.listing import Listing
from fieldshift.data.files.mask_table import MaskTable
from fieldshift.data.files.reading import Reader, fitting_of, reading_digest
from fieldshift.data.files.streaming import FileStore, StreamedSplit
from fieldshift.data.identity import Identity, repeated
from fieldshift.data.loading import LoadingConfig
from fieldshift.data.names import existing_folder
from fieldshift.data.partition import limited
from fieldshift.data.problems import UNTESTED, Findings, Problem, summaries
from fieldshift.data.samples import array_identity, arrays_like, file_identity, files_like, joined, merged
from fieldshift.data.split import Split, TensorSplit
from fieldshift.errors import UserError
from fieldshift.tasks import Task

MEASURED = 256
ALL_TESTED = "none is kept for training"
KNOWN_SPLIT = "those of the training are used"


@dataclass(kw_only=True)
class FileCollection:
    """A data set of image files. A `size` of None is derived from the images; `masks` is as in Reader.

    meaning: what the numbers in masks mean, for later use of a training on own data.
    drawn: the words of the protocol on a test part drawn from all samples; empty where the data name one.
    unsplit: the reason why no parts can be drawn, as an error; empty where they can.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    train: Listing
    test: Listing
    protocol: str
    size: tuple[int, int] | None = None
    channels: int | None = None
    cover: float = 1.0
    masks: MaskTable | None = None
    meaning: MaskTable | None = None
    statistics: Statistics | None = None
    is_own: bool = False
    drawn: str = ""
    unsplit: str = ""

    def reader(self, loading: LoadingConfig) -> Reader:
        """The reader of the files; the settings take precedence, then the collection, then the images."""
        size, channels = loading.size or self.size, loading.channels or self.channels
        if size is None or channels is None:
            seen_size, seen_channels = probe([*self.train.images, *self.test.images], self.task, loading.pixel_limit)
            size, channels = size or seen_size, channels or seen_channels
        return Reader(size=size, channels=channels, pixel_limit=loading.pixel_limit, fitting=fitting_of(self.task),
                      cover=self.cover, masks=self.masks)  # fmt: skip

    def load(
        self,
        loading: LoadingConfig,
        findings: Findings,
        *,
        seed: int,
        train_limit: int | None,
        test_limit: int | None,
        like: Identity | None = None,
        whole: bool | None = None,
    ) -> DataSet:
        reader, contents = self.reader(loading), FileContents(loading.workers)
        parts = {"train": self.train, "test": self.test}
        if loading.skip_unreadable:
            parts = {name: usable_part(part, reader, loading, findings, contents) for name, part in parts.items()}
        limited_to = {"train": train_limit, "test": test_limit}
        is_limited = any(limit is not None for limit in limited_to.values())
        left_out, known = 0, None
        if like is not None and (self.drawn or is_limited):
            known = files_like(
                self.name, like, parts, self.root, contents, drawn=bool(self.drawn), other=whole is not None
            )
        if known is not None:
            parts, left_out = known
        if tests_all := bool(whole and self.drawn and known is None):
            parts = {**parts, "test": merged(parts)}
            findings.forget(UNTESTED)
        elif self.unsplit:
            raise UserError(self.unsplit)
        chosen: dict[str, Listing] = {}
        for part, limit in limited_to.items():
            if not len(parts[part]):
                raise UserError(f"The {part} part of {self.name} has no usable image; see `fieldshift check`.")
            chosen[part] = files_at_most(parts[part], limit, seed)
        identity = file_identity(self.classes, chosen, self.root, contents, own=self.is_own)
        if self.is_own:
            paths = [*chosen["train"].images, *chosen["test"].images]
            note_headers(chosen["test"].images if tests_all else paths, reader, contents, findings)  # every file once
            check_labels(identity, paths, findings)
        train, test = (streamed(chosen[part], reader, loading) for part in ("train", "test"))
        mean, std = self.statistics or measure(train, seed)
        recognised = bool(self.drawn) and known is not None and whole is not None
        said = said_of_parts(self.protocol, self.drawn, is_known=recognised, whole=tests_all)
        skipped = len(findings.problems)
        unusable = f"; {skipped} left out as unusable" if skipped else ""
        return DataSet(
            name=self.name,
            task=self.task,
            classes=self.classes,
            train=train,
            test=test,
            mean=mean,
            std=std,
            size=reader.size,
            protocol=f"{said}; {amounts(train, test, whole=tests_all)}; {described(reader)}{unusable}",
            # The limit on file size does not change what is read.
            digest=digest_of(replace(reader, pixel_limit=0), identity),
            skipped=skipped,
            leaked=repeated(identity.train, identity.test) if self.is_own and not tests_all else None,
            findings=summaries(findings.notes),
            from_files=True,
            identity=replace(identity, masks=self.meaning) if self.is_own else None,
            left_out=0 if is_limited else left_out,
            recognised=recognised,
        )

    @property
    def root(self) -> str:
        """The folder of own data, to which names are relative; empty for published sets."""
        return str(existing_folder(self.name.partition(":")[2], "data")) if self.is_own else ""


@dataclass(kw_only=True)
class ArrayCollection:
    """A data set of arrays: images uint8 (N, C, H, W), targets int64 (N,), masks uint8 (N, H, W) or None, per split.

    meaning: as in FileCollection.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    train: TensorSplit
    test: TensorSplit
    protocol: str
    meaning: MaskTable | None = None
    is_own: bool = False
    drawn: str = ""

    def load(
        self,
        loading: LoadingConfig,
        findings: Findings,
        *,
        seed: int,
        train_limit: int | None,
        test_limit: int | None,
        like: Identity | None = None,
        whole: bool | None = None,
    ) -> DataSet:
        for setting, value in (("size", loading.size), ("channels", loading.channels)):
            if value is not None:
                raise UserError(
                    f"loading.{setting} does not apply to {self.name}, whose images are arrays; leave it out."
                )
        limited_to = {"train": train_limit, "test": test_limit}
        is_limited = any(limit is not None for limit in limited_to.values())
        parts, left_out = {"train": self.train, "test": self.test}, 0
        chosen = {name: at_most(part, limited_to[name], seed) for name, part in parts.items()}
        identity = array_identity(self.classes, chosen)
        known = (parts, 0) if identity == like else None
        if known is None and like is not None and (self.drawn or is_limited):
            known = arrays_like(self.name, like, parts, drawn=bool(self.drawn), other=whole is not None)
        if known is not None:
            parts, left_out = known
        if tests_all := bool(whole and self.drawn and known is None):
            parts = {**parts, "test": joined(self.train, self.test)}
            findings.forget(UNTESTED)
        if tests_all or (known is not None and identity != like):
            chosen = {name: at_most(part, limited_to[name], seed) for name, part in parts.items()}
            identity = array_identity(self.classes, chosen)
        train, test = chosen["train"], chosen["test"]
        if self.is_own:
            names = [f"{self.name}:{part}[{place}]" for part, split in chosen.items() for place in range(len(split))]
            check_labels(identity, names, findings)
        mean, std = channel_statistics(train.images)
        height, width = train.images.shape[2:]
        recognised = bool(self.drawn) and known is not None and whole is not None
        said = said_of_parts(self.protocol, self.drawn, is_known=recognised, whole=tests_all)
        skipped = len(findings.problems)
        return DataSet(
            name=self.name,
            task=self.task,
            classes=self.classes,
            train=train,
            test=test,
            mean=mean,
            std=std,
            size=(height, width),
            protocol=f"{said}; {amounts(train, test, whole=tests_all)}",
            digest=digest_of(self.task, digest_of_split(train), digest_of_split(test)),
            skipped=skipped,
            leaked=None if tests_all else repeated(identity.train, identity.test),
            findings=summaries(findings.notes),
            identity=replace(identity, masks=self.meaning) if self.is_own else None,
            left_out=0 if is_limited else left_out,
            recognised=recognised,
        )


Collection = FileCollection | ArrayCollection


def check_labels(identity: Identity, names: list[str], findings: Findings) -> None:
    """Raises MeaninglessDataError where one picture has two classes; `names` are train's samples, then test's."""
    labels = [*identity.train.labels, *identity.test.labels]
    pairs = conflicting([*identity.train.contents, *identity.test.contents], labels)
    report_conflicts(pairs, names, [identity.classes[label] for label in labels], findings)


def at_most(split: TensorSplit, limit: int | None, seed: int) -> TensorSplit:
    return split if limit is None else split.subset(limited(split.targets, limit, seed))


def files_at_most(listing: Listing, limit: int | None, seed: int) -> Listing:
    return listing.kept(limited(torch.tensor(listing.targets, dtype=torch.int64), limit, seed).tolist())


def said_of_parts(protocol: str, drawn: str, *, is_known: bool, whole: bool) -> str:
    """The protocol with true words in place of `drawn`: all are tested, or these are the training's data at another place."""
    if not drawn:
        return protocol
    return protocol.replace(drawn, ALL_TESTED if whole else KNOWN_SPLIT if is_known else drawn)


def amounts(train: Split, test: Split, *, whole: bool) -> str:
    return f"{len(test)} to test" if whole else f"{len(train)} to train, {len(test)} to test"


def described(reader: Reader) -> str:
    height, width = reader.size
    if reader.fitting == "pad":
        return f"images scaled down to fit {height} x {width} where larger and padded (padding is ignored)"
    return (
        f"scaled to cover {height} x {width}"
        + (f" / {reader.cover}" if reader.cover != 1 else "")
        + " and cut to the centre"
    )


def measure(split: StreamedSplit, seed: int) -> Statistics:
    """Mean and standard deviation per channel over at most 256 seeded images, in units of [0, 1]."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:MEASURED].sort().values
    return channel_statistics(split.gather(order)[0])


def streamed(listing: Listing, reader: Reader, loading: LoadingConfig) -> StreamedSplit:
    store = FileStore(listing.images, listing.masks, reader, workers=loading.workers, memory=loading.memory)
    return StreamedSplit(store, torch.arange(len(listing)), torch.tensor(listing.targets, dtype=torch.int64))


def usable_part(
    listing: Listing, reader: Reader, loading: LoadingConfig, findings: Findings, contents: FileContents
) -> Listing:
    """The usable samples; the others are added to `findings`. Decodes every file once and caches the result."""
    files = [*listing.images, *(listing.masks or [])]
    state = list(zip(files, contents.of(files), strict=True))

    def look() -> dict[str, np.ndarray]:
        found = enumerate(streamed(listing, reader, loading).store.problems())
        rows = [(place, problem) for place, problem in found if problem is not None]
        texts = [[problem.kind, problem.path, problem.what, problem.remedy] for _, problem in rows]
        return {
            "places": np.array([place for place, _ in rows], dtype=np.int64),
            "texts": np.array(texts, dtype=np.str_).reshape(-1, 4),
        }

    stored = cached_arrays(f"unusable-{reading_digest(reader, state)}", look)
    for row in stored["texts"].tolist():
        findings.keep(Problem(*row))
    refused = set(stored["places"].tolist())
    return listing.kept([place for place in range(len(listing)) if place not in refused])
