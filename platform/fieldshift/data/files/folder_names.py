"""Comparison of names, and the words by which folders and files are parts, pictures or masks."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

Role = Literal["train", "val", "test", "unlabelled"]

ROLES: dict[Role, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "learn", "learning"),
    "val": ("val", "valid", "validation", "validate", "dev", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "holdout", "heldout"),
    "unlabelled": ("pred", "predict", "prediction", "unlabelled", "unlabeled", "unlabel", "inference"),
}
FOLDS = ("fold", "split", "part", "cv", "partition", "subset")
# Words next to the part's own that change nothing: training_set, test_data, train_images.
FILLERS = ("set", "data", "dataset", "images", "image", "imgs", "img", "folder", "split", "the", "new")
PICTURE_WORDS = ("image", "images", "img", "imgs", "jpegimages", "jpg", "jpeg", "picture", "pictures", "photo",
                 "photos", "rgb", "leftimg8bit", "original", "originals")  # fmt: skip
MASK_WORDS = ("mask", "masks", "label", "labels", "annotation", "annotations", "gt", "groundtruth", "ground", "truth",
              "seg", "segmentation", "segmentationclass", "segmentations", "segmap", "target", "targets", "gtfine",
              "labelids", "trainids", "l")  # fmt: skip
JOINED = tuple(f"{word}{filler}" for word in ("training", "train", "test", "testing", "validation", "val")
               for filler in ("set", "data", "images"))  # fmt: skip


def plain_name(text: str) -> str:
    """A name for display: in Unicode's form NFC, without a byte-order mark or surrounding spaces."""
    return unicodedata.normalize("NFC", text).strip("\ufeff \t\r\n")


def name_key(text: str) -> str:
    """A key equal for names that differ only in Unicode form, case, a byte-order mark or surrounding spaces."""
    return unicodedata.normalize("NFC", plain_name(text).casefold())


def words_of(name: str) -> list[str]:
    """The words of a name in lower case: "Training_set-2" has "training", "set" and "2"."""
    return re.findall(r"[^\W\d_]+|\d+", name_key(name))


def role_of(name: str) -> tuple[Role | None, str]:
    """The part that a folder or list is named after, regardless of case, and the remaining words of its name.

    ("train", "") for Train, training_set and train2017; ("test", "seg") for seg_test; (None, ...) for any other name.
    """
    words = words_of(name)
    if "".join(words) in JOINED:
        words = [next(word for word in sorted(sum(ROLES.values(), ()), key=len, reverse=True)
                      if "".join(words).startswith(word))]  # fmt: skip
    found = [(role, word) for word in words for role, names in ROLES.items() if word in names]
    if len({role for role, _ in found}) != 1:
        return None, " ".join(words)
    rest = [word for word in words if word != found[0][1] and word not in FILLERS and not word.isdigit()]
    return found[0][0], " ".join(rest)


def is_fold(name: str) -> bool:
    """Whether a name is one of a numbered series of parts: fold0, split_2, cv-3."""
    words = words_of(name)
    return len(words) == 2 and words[0] in FOLDS and words[1].isdigit()


def is_picture_word(name: str) -> bool:
    return "".join(words_of(name)) in PICTURE_WORDS or only_of(name, PICTURE_WORDS)


def is_mask_word(name: str) -> bool:
    return "".join(words_of(name)) in MASK_WORDS or only_of(name, MASK_WORDS)


def only_of(name: str, allowed: tuple[str, ...]) -> bool:
    words = words_of(name)
    return (
        bool(words) and all(word in (*allowed, *FILLERS) for word in words) and any(word in allowed for word in words)
    )


def core_of(stem: str, left_out: Iterable[str]) -> str:
    """A file name without the words for picture or mask: "s1_mask" and "mask-s1" are "s1"."""
    words = set(left_out)
    kept = [part for part in re.split(r"[\s_\-.]+", name_key(stem)) if part and part not in words]
    return "_".join(kept)


class NameIndex(Mapping[str, str]):
    """Files by name. A name is looked up literally, then by `name_key`; two files with one name match nothing."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = dict(files)
        self.by_key: dict[str, list[str]] = defaultdict(list)
        for name in self.files:
            self.by_key[name_key(name)].append(name)

    def __getitem__(self, name: str) -> str:
        if name in self.files:
            return self.files[name]
        alike = self.by_key.get(name_key(name), [])
        if len(alike) != 1:
            raise KeyError(name)
        return self.files[alike[0]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)
