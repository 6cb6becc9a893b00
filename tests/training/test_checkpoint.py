from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fieldshift.errors import UserError
from fieldshift.training.checkpoint import read_checkpoint, write_checkpoint


def test_round_trip_and_nothing_temporary_left(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.pt"
    write_checkpoint(path, {"weights": torch.arange(3.0), "epoch": 4, "history": [{"loss": 0.5}]})
    state = read_checkpoint(path)
    assert torch.equal(state["weights"], torch.arange(3.0))
    assert state["epoch"] == 4
    assert state["history"] == [{"loss": 0.5}]
    assert [file.name for file in path.parent.iterdir()] == ["state.pt"]


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    write_checkpoint(path, {"epoch": 1})
    with pytest.raises(Exception, match="pickle"):
        write_checkpoint(path, {"epoch": 2, "function": lambda: None})
    assert read_checkpoint(path)["epoch"] == 1


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken"])
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.pt"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_code_is_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"bomb": Path("/")}, path)
    with pytest.raises(UserError):
        read_checkpoint(path)


def test_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No checkpoint at"):
        read_checkpoint(tmp_path / "none.pt")
