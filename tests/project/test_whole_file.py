"""Files appear whole or not at all, and leave nothing else."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from fieldshift.errors import UserError
from fieldshift.tracking.spool import Spool, unsent
from fieldshift.training.checkpoint import read_checkpoint, write_checkpoint
from fieldshift.whole_file import whole_file, write_whole


def test_a_file_replaces_an_earlier_one_in_a_folder_that_is_created(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    assert write_whole(path, "one") == path
    write_whole(path, "zwei ä")
    assert path.read_text(encoding="utf-8") == "zwei ä"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_earlier_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = write_whole(tmp_path / "a.txt", "whole")
    with pytest.raises(error), whole_file(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "whole"
        raise error
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_ends_in_one_line_and_leaves_what_was_there(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "result.json", "before")
    refusal = r"result.json cannot be written: No space left on device. Free some space"
    with pytest.raises(UserError, match=refusal) as error, whole_file(path):
        Path("/dev/full").write_text("x" * 10)
    assert "\n" not in str(error.value)
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["result.json"]
    with pytest.raises(PermissionError), whole_file(path):
        raise PermissionError


opened = Path.open


def on_full_disk(_path: Path, mode: str) -> Any:
    return opened(Path("/dev/full"), mode)


def test_a_checkpoint_on_a_full_disk_keeps_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, {"epoch": 1})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", on_full_disk)
        with pytest.raises(UserError, match="checkpoint.pt cannot be written"):
            write_checkpoint(path, {"epoch": 2, "weights": torch.zeros(10**5)})
    gc.collect()  # what the error held
    assert read_checkpoint(path)["epoch"] == 1


def test_messages_on_a_full_disk_are_lost_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path)
    spool.write("run", "close", {"status": "FINISHED"})
    kept, spool.file = spool.file, Path("/dev/full")
    for _ in range(2):
        spool.write("run", "metrics", {"metrics": {"loss": 1.0}, "step": 0, "time": 0})
    assert [record.message.count("is full") for record in caplog.records] == [1]
    assert len(unsent(kept)) == 1
