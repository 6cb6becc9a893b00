"""Pretrained weights from a file through the commands: what matched is said, what cannot fit stops before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import pipelines
from fieldshift.data import LoadingConfig
from fieldshift.errors import UserError
from fieldshift.networks import NetworkConfig, video_network
from fieldshift.training import Recipe

FEW = LoadingConfig(train_limit=32, test_limit=16)


def test_train_says_what_matched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = video_network("tiny-resnet", temporal="none", frames=1, num_classes=7, in_channels=1).network.state_dict()
    torch.save(plain, tmp_path / "w.pth")
    monkeypatch.chdir(tmp_path)
    trained = pipelines.train(
        recipe=Recipe(epochs=1, batch=16), loading=FEW, architecture=NetworkConfig(weights="w.pth"), out="run"
    )
    assert "tensors matched" in trained.row["weights"]
    assert "other shape 2 (fc.weight, fc.bias)" in capsys.readouterr().out


def test_weights_that_do_not_fit_stop_before_the_run_folder_is_made(tmp_path: Path) -> None:
    state = video_network("tiny-resnet", temporal="none", frames=1, num_classes=7, in_channels=1).network.state_dict()
    torch.save(state | {"blocks.0.conv2.weight": torch.zeros(24, 24, 3, 3)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"blocks\.0\.conv2\.weight \(24, 24, 3, 3\) instead of \(24, 24, 1, 1\)"):
        pipelines.train(
            loading=FEW, architecture=NetworkConfig(weights=str(tmp_path / "w.pth")), out=str(tmp_path / "run")
        )
    assert not (tmp_path / "run").exists()
