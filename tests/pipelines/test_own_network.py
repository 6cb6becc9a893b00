"""Commands with a network of one's own by import path, and with torchvision's others."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fieldshift.cli import main
from fieldshift.motions import Policy
from fieldshift.run_folder import read_result

OWN = """
from torch import nn

def small(num_classes, in_channels=3):
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""
SMALL = ["--loading.train_limit", "64", "--loading.test_limit", "32"]
FEW = [*SMALL, "--tracking.enabled", "false"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mine_for_commands.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine_for_commands", raising=False)
    Policy.single("translate_x", 0.4, frames=3).save(tmp_path / "policy.json")
    return "mine_for_commands:small"


def test_a_network_of_ones_own_trains_and_its_run_is_used_as_any_other(
    own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--policy", "policy.json", "--network", own, "--recipe.epochs", "1", "--recipe.batch", "32", *FEW]
    assert main(["train", *words, "--architecture.places", "2", "--out", "run"]) == 0
    assert read_result(Path("run"))["row"]["arm"] == "das"
    assert main(["evaluate", "--run", "run", "--out", "scored", *SMALL]) == 0
    assert read_result(Path("scored"))["score"] == read_result(Path("run"))["row"]["score"]
    assert main(["compare-fields", "--runs", "run", "--images", "2", "--out", "field", *FEW]) == 0
    capsys.readouterr()
    assert main(["train", *words, "--out", "other"]) == 2
    assert (
        "name the modules to insert at with places='PATTERN' (--architecture.places PATTERN)" in capsys.readouterr().err
    )
    assert main(["train", *words, "--architecture.places", "2", "--arm", "wide-field", "--out", "other"]) == 2
    assert not Path("other").exists()


def test_its_theory_is_shown_with_and_without_places(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["receptive-field", "--network", own, "--size", "32", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert (plain["feature_extractor"]["name"], plain["feature_extractor"]["size"]) == ("3", [7, 7])
    words = ["receptive-field", "--network", own, "--size", "32", "--architecture.places", "2"]
    assert main([*words, "--policy", "policy.json", "--json"]) == 0
    video = json.loads(capsys.readouterr().out)
    assert video["feature_extractor"]["temporal_reach"] == 1
    assert video["reshaped"]
    assert main(words) == 2  # places without a temporal module
    assert "--temporal none inserts nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "size", "unbounded"),
    [
        ("vgg16", [212, 212], ""),
        ("fasterrcnn_mobilenet_v3_large_fpn", [659, 659], "mean"),
        ("swin_t", None, "attention"),
    ],
)
def test_the_theory_of_torchvisions_others(
    name: str, size: list[int] | None, unbounded: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["receptive-field", "--network", name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["feature_extractor"]
    assert found["unbounded_by"] == unbounded
    assert size is None or found["size"] == size


def test_a_detectors_backbone_reads_single_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["receptive-field", "--network", "ssd300_vgg16", "--temporal", "tsm", "--frames", "3"]) == 2
    assert "only the backbone is analysed" in capsys.readouterr().err


def test_other_networks_are_described_where_places_are_named(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["describe", "--size", "64", "--speed", "false", "--classes", "4"]
    assert main([*words, "--network", "densenet121", "--architecture.places", "features.transition?"]) == 0
    assert "3 modules inserted" in capsys.readouterr().out
    assert main([*words, "--network", own, "--architecture.places", "2"]) == 0
    assert "TSM before 2, 8 channels" in capsys.readouterr().out
    assert main([*words, "--network", "torch.nn:Identity", "--temporal", "none", "--frames", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
