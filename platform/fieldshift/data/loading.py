"""Settings for reading the files of a data set."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from fieldshift.data.problems import ACCEPTABLE
from fieldshift.errors import UserError, unknown_name
from fieldshift.settings import accept_fields

# Pillow itself refuses larger images, whatever its limit.
LARGEST_PIXEL_LIMIT = 178_956_970


@dataclass(frozen=True, kw_only=True)
class LoadingConfig:
    """Settings for reading the files of a data set.

    Attributes:
        workers: number of threads that decode images in the background; 0 decodes in the training thread.
        size: height and width in pixels that images are resized to; None uses the data set's.
        channels: 1 (grey) or 3 (RGB); None uses 1 only if every image checked is grey.
        memory: MiB of decoded images to cache, for train and for test; a part that fits is decoded once. 0 caches none.
        test_share: fraction of the samples, in (0, 1), held out as test set where own data name none.
        train_parts: folders (folder:) or lists (voc:) to train on, if their names do not identify them.
        test_parts: folders or lists to test on, if their names do not identify them.
        classes_on_top: read every folder at the top of folder:PATH as a class, whatever its name and contents.
        accept: kinds of findings that should not stop a run: empty-class, unnamed-label, ignored-pixels, two-labels,
            class-only-in-test.
        skip_unreadable: skip and count files that cannot be used, instead of stopping at the first one.
        pixel_limit: pixels above which an image is refused before it is decoded (a small file can decode to gigabytes).
        download: download a named data set that is missing, where torchvision can.
        root: folder of published data sets; None uses FIELDSHIFT_DATA, else the cache folder.
        train_limit: number of training images, in the proportions of the classes (digit pairs: scenes); None uses all.
        test_limit: number of test images, likewise.
    """

    workers: int = 4
    size: tuple[int, int] | None = None
    channels: int | None = None
    memory: int = 2048
    test_share: float = 0.2
    train_parts: list[str] | None = None
    test_parts: list[str] | None = None
    classes_on_top: bool = False
    accept: list[str] | None = None
    skip_unreadable: bool = False
    pixel_limit: int = 89_478_485
    download: bool = False
    root: str | None = None
    train_limit: int | None = None
    test_limit: int | None = None

    def __post_init__(self) -> None:
        accept_fields(self, "loading")
        if self.workers < 0:
            raise UserError(f"loading.workers is {self.workers}, but must be 0 or more threads.")
        if self.size is not None and min(self.size) < 2:
            raise UserError(f"loading.size is {self.size}, but must be (height, width), each at least 2 pixels.")
        if self.channels not in (None, 1, 3):
            raise UserError(f"loading.channels is {self.channels}, but must be 1 (grey), 3 (RGB) or left out.")
        if self.memory < 0:
            raise UserError(f"loading.memory is {self.memory}, but must be 0 or more MiB.")
        if not 0 < self.test_share < 1:
            raise UserError(f"loading.test_share is {self.test_share}, but must be above 0 and below 1.")
        if self.classes_on_top and (self.train_parts or self.test_parts):
            raise UserError("loading.classes_on_top means that there are no parts; leave out loading.train_parts and"
                            " loading.test_parts.")  # fmt: skip
        for kind in self.accept or ():
            if kind not in ACCEPTABLE:
                raise unknown_name("kind of finding in loading.accept", str(kind), ACCEPTABLE)
        if not 1 <= self.pixel_limit <= LARGEST_PIXEL_LIMIT:
            raise UserError(
                f"loading.pixel_limit is {self.pixel_limit}, but must be 1 to {LARGEST_PIXEL_LIMIT} pixels; make larger"
                " images smaller first."
            )


@dataclass(frozen=True, kw_only=True)
class LoadingOverrides:
    """Settings that replace those of a run's training; None keeps the run's value.

    Attributes:
        workers: number of threads that decode images; None uses the run's, here and below.
        size: height and width in pixels that images are resized to.
        channels: 1 (grey) or 3 (RGB).
        memory: MiB of decoded images to cache.
        test_share: fraction of the samples held out as test set, for other data that name none.
        train_parts: folders or lists to train on, for other data.
        test_parts: folders or lists to test on.
        classes_on_top: whether every folder at the top is a class, for other data.
        accept: kinds of findings that should not stop.
        skip_unreadable: whether to skip files that cannot be used.
        pixel_limit: pixels above which an image is refused before it is decoded.
        download: download a named data set that is missing.
        root: folder of published data sets.
        train_limit: number of training images, for other data.
        test_limit: number of test images.
    """

    workers: int | None = None
    size: tuple[int, int] | None = None
    channels: int | None = None
    memory: int | None = None
    test_share: float | None = None
    train_parts: list[str] | None = None
    test_parts: list[str] | None = None
    classes_on_top: bool | None = None
    accept: list[str] | None = None
    skip_unreadable: bool | None = None
    pixel_limit: int | None = None
    download: bool | None = None
    root: str | None = None
    train_limit: int | None = None
    test_limit: int | None = None

    def __post_init__(self) -> None:
        accept_fields(self, "loading")
        self.over(LoadingConfig())  # validates the values

    def over(self, base: LoadingConfig) -> LoadingConfig:
        """`base` with its values replaced by those given here."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(base, **{name: value for name, value in given.items() if value is not None})
