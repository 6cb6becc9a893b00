"""How files are read: the settings that a person may want to change when loading a data set."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from fieldshift.data.problems import ACCEPTABLE
from fieldshift.errors import UserError, unknown_name

# Pillow itself refuses above this, whatever it is told.
LARGEST_PIXEL_LIMIT = 178_956_970


@dataclass(frozen=True, kw_only=True)
class LoadingConfig:
    """How the files of a data set are read.

    Attributes:
        workers: threads that decode images, beside the one that trains; 0 decodes in that one.
        size: height and width in pixels that images are brought to; None takes the data set's.
        channels: 1 (grey) or 3 (RGB); None takes 1 only where every image looked at is grey.
        memory: MiB of decoded images kept, for train and for test; what fits is decoded once. 0 keeps none.
        test_share: part of the samples, in (0, 1), that becomes the test set where own data names none.
        train_parts: folders (folder:) or lists (voc:) to learn from, where their names do not tell.
        test_parts: folders or lists to test on, likewise.
        classes_on_top: read every folder at the top of folder:PATH as a class, whatever its name and what lies below.
        accept: kinds of findings that are not to stop a run: empty-class, unnamed-label, ignored-pixels, two-labels.
        skip_unreadable: go on without what cannot be used, and count it, instead of stopping at the first such file.
        pixel_limit: pixels above which an image is refused before it is decoded (a small file can unfold to gigabytes).
        download: fetch a named data set that is not there, where torchvision can.
        root: folder that published data sets are looked for in; None takes FIELDSHIFT_DATA, else the cache folder.
        train_limit: training images that are used, with the classes' shares (digit pairs: scenes made); None takes all.
        test_limit: test images that are used, likewise.
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
        if self.workers < 0:
            raise UserError(f"loading.workers is {self.workers}, but must be 0 or more threads.")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 2):
            raise UserError(f"loading.size is {self.size}, but must be (height, width), each at least 2 pixels.")
        if self.channels not in (None, 1, 3):
            raise UserError(f"loading.channels is {self.channels}, but must be 1 (grey), 3 (RGB) or left out.")
        if self.memory < 0:
            raise UserError(f"loading.memory is {self.memory}, but must be 0 or more MiB.")
        if not 0 < self.test_share < 1:
            raise UserError(f"loading.test_share is {self.test_share}, but must lie between 0 and 1, both excluded.")
        if self.classes_on_top and (self.train_parts or self.test_parts):
            raise UserError("loading.classes_on_top means that there are no parts; leave loading.train_parts and"
                            " loading.test_parts out.")  # fmt: skip
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
    """What is read in another way than in a run's training; whatever is None stays as it was there.

    Attributes:
        workers: threads that decode images; None takes the run's, as do all of these.
        size: height and width in pixels that images are brought to.
        channels: 1 (grey) or 3 (RGB).
        memory: MiB of decoded images kept.
        test_share: part of the samples that becomes the test set, of other data that name none.
        train_parts: folders or lists to learn from, of other data.
        test_parts: folders or lists to test on.
        classes_on_top: whether every folder at the top is a class, of other data.
        accept: kinds of findings that are not to stop.
        skip_unreadable: whether to go on without what cannot be used.
        pixel_limit: pixels above which an image is refused before it is decoded.
        download: fetch a named data set that is not there.
        root: folder that published data sets are looked for in.
        train_limit: training images that are used, of other data.
        test_limit: test images that are used.
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
        self.over(LoadingConfig())  # says what is wrong with a value

    def over(self, base: LoadingConfig) -> LoadingConfig:
        """`base` with what is given here in place of its own."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(base, **{name: value for name, value in given.items() if value is not None})
