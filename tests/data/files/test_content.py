"""Hashes of files: right after every way to change one, and read again only where need be."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from fieldshift.data.cache import cache_folder
from fieldshift.data.files import content
from fieldshift.data.files.content import FileContents, content_hash

LONG_AGO = 1_000_000_000


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / name for name in ("a", "b", "ünicode", "with\nnewline")]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 100)
    return [str(path) for path in paths]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read, in a set too large to be read anew each time and in which no file is too young."""
    found: list[str] = []

    def read(path: str) -> str:
        found.append(path)
        return content_hash(path)

    monkeypatch.setattr(content, "content_hash", read)
    monkeypatch.setattr(content, "FRESH_FILES", 0)
    monkeypatch.setattr(content, "SETTLED_NS", -(10**12))
    return found


def expected(paths: list[str]) -> list[str]:
    return [hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest() for path in paths]


@pytest.mark.parametrize("workers", [0, 3])
def test_a_hash_is_that_of_the_bytes(files: list[str], workers: int) -> None:
    assert FileContents(workers).of([*files, files[0]]) == expected([*files, files[0]])
    assert FileContents().of([]) == []
    assert FileContents().of([files[0] + "-gone"]) == [""]


def rewrite(path: Path) -> None:
    path.write_bytes(b"x" * 100)


def rewrite_and_set_back_the_time(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"x" * 100)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_an_old_file(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"x" * 100)
    os.utime(other, (LONG_AGO, LONG_AGO))
    other.replace(path)


@pytest.mark.parametrize("change", [rewrite, rewrite_and_set_back_the_time, replace_by_an_old_file])
@pytest.mark.parametrize("large", [False, True])
def test_a_changed_file_of_equal_size_has_another_hash(
    change: object, large: bool, files: list[str], reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not large:
        monkeypatch.setattr(content, "FRESH_FILES", 100)
    before = FileContents().of(files)
    reads.clear()
    change(Path(files[1]))  # type: ignore[operator]
    after = FileContents().of(files)
    assert after == expected(files)
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True, True]
    assert reads == ([files[1]] if large else files)


def test_what_did_not_change_is_not_read_again(files: list[str], reads: list[str], tmp_path: Path) -> None:
    FileContents().of(files[:3])
    assert reads == files[:3]
    assert FileContents().of(files) == expected(files)  # one is new
    assert reads == files
    assert FileContents().of(files) == expected(files)
    assert reads == files


def test_a_file_that_changed_just_now_is_not_trusted(
    files: list[str], reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second change within the clock's step would leave the times as they are."""
    monkeypatch.setattr(content, "SETTLED_NS", 10**12)
    for _ in range(2):
        FileContents().of(files)
    assert reads == [*files, *files]


@pytest.mark.parametrize("damage", [b"", b"no archive"])
def test_a_damaged_cache_is_made_again(damage: bytes, files: list[str], reads: list[str]) -> None:
    before = set(cache_folder().glob("contents-*.npz"))
    FileContents().of(files)
    (made,) = set(cache_folder().glob("contents-*.npz")) - before
    made.write_bytes(damage)
    assert FileContents().of(files) == expected(files)
    assert len(reads) == 8
