"""Lists the files of a folder without leaving it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fieldshift.data.files.folder_names import name_key, plain_name
from fieldshift.data.files.formats import endings
from fieldshift.data.problems import Findings
from fieldshift.errors import UserError

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


def is_clutter(name: str) -> bool:
    """Whether a name is hidden or one that operating systems leave behind."""
    return name.startswith(".") or name in CLUTTER


def entries(folder: str | Path, root: Path, findings: Findings) -> Iterator[os.DirEntry[str]]:
    """The entries of `folder`, sorted by name, without hidden files and links that lead out of `root`."""
    try:
        with os.scandir(folder) as found:
            listed = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        findings.add("unreadable folder", folder, f"cannot be listed ({error.strerror})", "change its permissions")
        return
    for entry in listed:
        if is_clutter(entry.name):
            continue
        if entry.is_symlink() and not stays_inside(entry.path, root, findings):
            continue
        yield entry


def stays_inside(path: str, root: Path, findings: Findings) -> bool:
    target = Path(os.path.realpath(path))
    if not target.exists():
        findings.add("broken link", path, "links to a missing file", "copy the file there or delete the link")
        return False
    if not target.is_relative_to(root):
        findings.add("link outside", path, "is a link that points outside the data folder",
                     "copy the file into the folder")  # fmt: skip
        return False
    if target.is_dir():
        findings.add("link to folder", path, "is a link to a folder", "move the folder there or delete the link")
        return False
    return True


def subfolders(folder: Path, root: Path, findings: Findings, *, joined: bool = True) -> dict[str, list[Path]]:
    """The folders in `folder` by name; folders with the same name (see `name_key`) are grouped, with a note if `joined`."""
    found: dict[str, list[Path]] = {}
    shown: dict[str, str] = {}
    for entry in entries(folder, root, findings):
        if not entry.is_dir(follow_symlinks=False):
            continue
        name = shown.setdefault(name_key(entry.name), plain_name(entry.name))
        if name in found and joined:
            findings.note("one name", entry.path, f"has the name of {found[name][0].name}/ and is read with it",
                          "rename it if it is a different one")  # fmt: skip
        found.setdefault(name, []).append(Path(entry.path))
    return found


def image_files(
    folder: str | Path, root: Path, findings: Findings, *, without: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Image files (by their endings) below `folder` but not below a folder of `without`, sorted by name."""
    for entry in entries(folder, root, findings):
        if entry.is_dir(follow_symlinks=False):
            if entry.path not in without:
                yield from image_files(entry.path, root, findings, without=without)
        elif entry.name.lower().endswith(endings()):
            yield entry.path
        else:
            findings.note("not an image", entry.path, "has no ending of a picture that Pillow reads",
                          "save it as .png or .jpg if it is one")  # fmt: skip


def only(paths: list[Path]) -> Path:
    """The one of several paths in a folder that have the same name (see `name_key`). Raises UserError for more than one."""
    if len(paths) > 1:
        first, second = paths[:2]
        raise UserError(
            f"{first.parent} has both {first.name} and {second.name}, which count as one name; keep or rename one of them, so "
            "that it is clear which to read."
        )
    return paths[0]


def text_lines(path: Path, holds: str) -> list[str]:
    """The lines of a text file that are not empty, without surrounding spaces and byte-order marks; UTF-8, or UTF-16 with
    its mark. Raises UserError, which states what the file `holds`, for any other.
    """
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        return [line for line in map(plain_name, content.decode(encoding).splitlines()) if line]
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8, {holds}.") from None


def facts(path: str) -> tuple[int, int]:
    """The size in bytes and the modification time in ns; zeros if there is no such file."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path for each of a million files takes longer than the call
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
