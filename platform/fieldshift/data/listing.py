"""Which files a folder holds, without ever leaving it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fieldshift.data.problems import Findings
from fieldshift.data.reading import ENDINGS

CLUTTER = ("Thumbs.db", "desktop.ini", "__MACOSX")


@dataclass
class Listing:
    """The samples of one split as files: `images`, and their class in `targets` or their mask in `masks`."""

    images: list[str]
    targets: list[int]
    masks: list[str] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def kept(self, positions: list[int]) -> Listing:
        masks = None if self.masks is None else [self.masks[place] for place in positions]
        return Listing([self.images[place] for place in positions], [self.targets[place] for place in positions], masks)


def entries(folder: str | Path, root: Path, findings: Findings) -> Iterator[os.DirEntry[str]]:
    """What lies in `folder`, sorted by name, without hidden files and without links that lead out of `root`."""
    try:
        with os.scandir(folder) as found:
            listed = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        findings.add("unreadable folder", folder, f"cannot be listed ({error.strerror})", "give yourself access to it")
        return
    for entry in listed:
        if entry.name.startswith(".") or entry.name in CLUTTER:
            continue
        if entry.is_symlink() and not stays_inside(entry.path, root, findings):
            continue
        yield entry


def stays_inside(path: str, root: Path, findings: Findings) -> bool:
    target = Path(os.path.realpath(path))
    if not target.exists():
        findings.add("broken link", path, "is a link to nothing", "copy the file there or delete the link")
        return False
    if not target.is_relative_to(root):
        findings.add("link outside", path, "is a link that points outside the data folder",
                     "copy the file into the folder")  # fmt: skip
        return False
    if target.is_dir():
        findings.add("link to folder", path, "is a link to a folder", "move the folder there or delete the link")
        return False
    return True


def subfolders(folder: Path, root: Path, findings: Findings) -> dict[str, Path]:
    """The folders in `folder` by name, in NFC (so a name typed on another system is the same name)."""
    found = [entry for entry in entries(folder, root, findings) if entry.is_dir(follow_symlinks=False)]
    return {unicodedata.normalize("NFC", entry.name): Path(entry.path) for entry in found}


def image_files(folder: str | Path, root: Path, findings: Findings) -> Iterator[str]:
    """Every image below `folder`, by its ending (whatever its case), in the order of the names."""
    for entry in entries(folder, root, findings):
        if entry.is_dir(follow_symlinks=False):
            yield from image_files(entry.path, root, findings)
        elif entry.name.lower().endswith(ENDINGS):
            yield entry.path
        else:
            findings.note("not an image", entry.path, "has no ending of an image file", f"use {', '.join(ENDINGS)}")


def facts(path: str) -> tuple[int, int]:
    """The size in bytes and the time of the last change in ns; zeros where there is no such file."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path for each of a million files takes longer than the call
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
