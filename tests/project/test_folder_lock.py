"""One process at a time writes to a run folder."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fieldshift.errors import UserError
from fieldshift.folder_lock import LOCK, check_free, locked
from fieldshift.run_folder import check_folder, held_run_folder

CONFIG = {"data": "digits"}
HOLDER = (
    "import sys, time; from pathlib import Path; from fieldshift.folder_lock import locked\n"
    "with locked(Path(sys.argv[1])):\n"
    "    print('held', flush=True); sys.stdin.read()"
)


def refused(folder: Path, process: int) -> object:
    text = f"--out {folder} is in use by process {process} on {socket.gethostname()}; wait until"
    return pytest.raises(UserError, match=re.escape(text))


def test_a_folder_in_use_is_refused_with_and_without_resume_and_is_free_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with held_run_folder(folder, "train", CONFIG, resume=False):
        pass
    before = sorted(path.name for path in folder.iterdir())
    with locked(folder):
        for resume in (False, True):
            with refused(folder, os.getpid()):
                check_folder(str(folder), "train", CONFIG, resume)
            with refused(folder, os.getpid()), held_run_folder(folder, "train", CONFIG, resume):
                pass
        with refused(folder, os.getpid()), locked(folder):
            pass
    assert sorted(path.name for path in folder.iterdir()) == before
    check_folder(str(folder), "train", CONFIG, resume=True)
    with locked(folder):
        pass


def test_of_two_runs_that_start_at_once_the_second_writes_nothing(tmp_path: Path) -> None:
    """The first has taken the lock of a new folder, and has not written its configuration yet."""
    with locked(tmp_path):
        with refused(tmp_path, os.getpid()), held_run_folder(tmp_path, "train", CONFIG, resume=False):
            pass
        assert not (tmp_path / "config.yaml").exists()


def test_a_look_at_a_folder_does_not_keep_a_run_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check_free` of another process holds the lock for a moment, shared."""
    (tmp_path / LOCK).touch()
    with (tmp_path / LOCK).open() as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        monkeypatch.setattr("time.sleep", lambda _: fcntl.flock(look, fcntl.LOCK_UN))
        with locked(tmp_path), refused(tmp_path, os.getpid()):
            check_free(tmp_path)


def test_a_folder_that_is_gone_at_the_end_does_not_change_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with locked(folder):
        shutil.rmtree(folder)
    assert not folder.exists()


def test_a_killed_process_leaves_the_folder_free(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with refused(tmp_path, holder.pid):
            check_free(tmp_path)
        with refused(tmp_path, holder.pid), locked(tmp_path):
            pass
        holder.kill()
    check_free(tmp_path)
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
