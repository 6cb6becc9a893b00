"""A run folder leaves a cluster as text and arrives whole, or not at all."""

from __future__ import annotations

import errno
import os
import tarfile
from pathlib import Path

import pytest

from fieldshift.cluster import parcel
from fieldshift.cluster.parcel import BEGIN, REFUSED, pack, unpack
from fieldshift.errors import RunFailedError, UserError
from fieldshift.folder_lock import LOCK


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for name in (
        "result.json",
        "trials/a b/weights.safetensors",
        "artifacts/\u00e9.png",
        "ray/state",
        "trials/a b/checkpoint.pt",
        LOCK,
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(3000) + name.encode())
    (folder / "link").symlink_to("/etc/hostname")
    return folder


def test_files_arrive_as_they_left(run: Path, tmp_path: Path) -> None:
    unpack(f"Ray said something\n{pack(run)}\nand more\n", tmp_path / "here" / "run")
    arrived = {
        str(path.relative_to(tmp_path / "here/run")): path.read_bytes()
        for path in (tmp_path / "here/run").rglob("*")
        if path.is_file()
    }
    expected = ["result.json", "trials/a b/weights.safetensors", "artifacts/\u00e9.png"]
    assert arrived == {name: (run / name).read_bytes() for name in expected}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("fieldshift-parcel-end", ""),
        lambda text: text.replace(text.splitlines()[2], "A" * len(text.splitlines()[2])),
        lambda text: "\n".join(line for number, line in enumerate(text.splitlines()) if number != 3),
        lambda text: text.replace(BEGIN, "begin"),
        lambda _text: "",
    ],
)
def test_what_is_damaged_leaves_nothing(run: Path, tmp_path: Path, damage: object) -> None:
    with pytest.raises(RunFailedError, match="again"):
        unpack(damage(pack(run)), tmp_path / "out")  # type: ignore[operator]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_full_disk_is_the_folders_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    with pytest.raises(UserError, match=r"out cannot be written \(No space left on device\); free space"):
        unpack(pack(run), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_the_sender_says_why_it_refuses(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parcel, "LARGEST", 2**10)
    monkeypatch.setattr("sys.argv", ["parcel", str(run)])
    parcel.main()
    said = capsys.readouterr().out
    assert said.startswith(REFUSED)
    with pytest.raises(UserError, match="copy the folder"):
        unpack(said, tmp_path / "out")
    with pytest.raises(UserError, match="moved or deleted"):
        pack(tmp_path / "nothing")


def test_leftovers_of_a_broken_arrival_are_not_mixed_in(run: Path, tmp_path: Path) -> None:
    left = tmp_path / ".out.arriving" / "weights.safetensors"
    left.parent.mkdir()
    left.write_text("of another run")
    (run / "tracking-spool").mkdir()
    (run / "tracking-spool/1.jsonl").write_text("{}")
    unpack(pack(run), tmp_path / "out")
    assert not (tmp_path / "out/weights.safetensors").exists()
    assert not (tmp_path / "out/tracking-spool").exists()
    assert not left.parent.exists()
