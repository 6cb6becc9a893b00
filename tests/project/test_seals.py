"""Files that are truncated, changed by one byte, or exchanged are refused in one line; those of earlier versions are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from fieldshift.cluster.trials import TrialFolder, TrialResult
from fieldshift.errors import UserError
from fieldshift.seals import LENGTH
from fieldshift.training import NetworkCard, load_network, save_network
from fieldshift.training.checkpoint import read_checkpoint, write_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "checkpoint.pt", {"weights": torch.arange(5000.0), "epoch": 3})
    return tmp_path / "checkpoint.pt"


def test_a_checkpoint_is_read_with_its_seal_and_without(checkpoint: Path) -> None:
    assert read_checkpoint(checkpoint)["epoch"] == 3
    checkpoint.write_bytes(checkpoint.read_bytes()[:-LENGTH])  # as an earlier version wrote it
    torch.testing.assert_close(read_checkpoint(checkpoint)["weights"], torch.arange(5000.0))


@pytest.mark.parametrize("place", [0, 200, 5000, 12345, -LENGTH - 1, -1])
def test_one_changed_byte_of_a_checkpoint_is_noticed(checkpoint: Path, place: int) -> None:
    content = bytearray(checkpoint.read_bytes())
    content[place] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(UserError, match="is not a readable checkpoint") as error:
        read_checkpoint(checkpoint)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_noticed(checkpoint: Path, share: float) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="is not a readable checkpoint"):
        read_checkpoint(checkpoint)


def saved(folder: Path, seed: int) -> Path:
    card = NetworkCard(
        data="digit-pairs-left", task="classification", classes=("a", "b"), channels=1, size=(16, 16), mean=(0.5,),
        std=(0.5,), network="tiny-resnet", temporal="none",
    )  # fmt: skip
    torch.manual_seed(seed)
    save_network(folder, card.build(), card)
    return folder


def test_weights_of_another_run_are_refused(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "one", 1), saved(tmp_path / "other", 2)
    load_network(one)
    shutil.copyfile(other / "weights.safetensors", one / "weights.safetensors")
    with pytest.raises(
        UserError, match=r"weights.safetensors has changed since network.json .*; train again or restore"
    ):
        load_network(one)
    described = json.loads((one / "network.json").read_text())
    del described["weights_sha256"]  # as an earlier version wrote it
    (one / "network.json").write_text(json.dumps(described))
    load_network(one)


def test_a_finished_trial_that_was_edited_is_refused(tmp_path: Path) -> None:
    folder, trial = TrialFolder(tmp_path), {"key": "das", "size": (8, 8)}
    folder.keep(TrialResult(trial=trial, value={"score": 0.5}, error=None, seconds=1.0, metrics={}))
    kept = folder.kept(trial)
    assert kept is not None
    assert kept.value == {"score": 0.5}
    file = tmp_path / "trials/das.json"
    file.write_text(file.read_text().replace("0.5", "0.9"))
    with pytest.raises(UserError, match=r"das.json is not a finished trial \(its content differs .*; delete it"):
        folder.kept(trial)
    record = json.loads(file.read_text())
    del record["sha256"]
    file.write_text(json.dumps(record))
    older = folder.kept(trial)
    assert older is not None
    assert older.value == {"score": 0.9}
