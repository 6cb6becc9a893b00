"""Test-time averaging: over the views of the training, and with a note where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import pipelines
from fieldshift.cli import main
from fieldshift.errors import UserError
from fieldshift.motions import Policy
from fieldshift.run_folder import read_config, read_result
from fieldshift.training import load_network
from pipelines.run_data import align_of

SMALL = ["--loading.train_limit", "64", "--loading.test_limit", "40"]
QUICK = [*SMALL, "--recipe.epochs", "1", "--recipe.batch", "32", "--tracking.enabled", "false"]


def test_evaluate_averages_over_the_views_of_the_training(tmp_path: Path) -> None:
    """With RandAugment's numbers of the training, not the defaults."""
    run, scored = tmp_path / "run", tmp_path / "scored"
    words = ["train", "--arm", "randaugment", "--randaugment", "5", "28", "--tta_copies", "3", "--out", str(run)]
    assert main([*words, *QUICK]) == 0
    assert main(["evaluate", "--run", str(run), "--tta_copies", "3", "--out", str(scored), *SMALL]) == 0
    row, result = read_result(run)["row"], read_result(scored)
    assert (result["score"], result["score_averaged"]) == (row["score"], row["score_tta"])
    assert load_network(run)[1].plan().augmentation.settings["num_ops"] == 5


def test_predict_averages_over_the_views_of_each_picture(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which do not depend on the other pictures."""
    run = tmp_path / "run"
    words = ["train", "--data", f"folder:{made.root}", "--arm", "affine", "--out", str(run), *made.words]
    assert main(words) == 0
    files = sorted(
        str(path) for path in made.root.rglob("*.png") if path.read_bytes() in {each for _, each in made.tested}
    )
    network, card = load_network(run)
    expected = []
    for file in files:
        with torch.no_grad():
            views = [network.fuse(network(video)) for video in card.plan().views(card.reader().image(file)[None], 4)]
        assert len(views) == 5
        expected.append(float(torch.stack(views).mean(0).softmax(-1).max()))
    rows = pipelines.predict(run=str(run), images=files, tta_copies=4)
    assert "--tta_copies" not in capsys.readouterr().out
    assert [row["probability"] for row in rows] == pytest.approx(expected, abs=1e-6)
    plain = pipelines.predict(run=str(run), images=files)
    assert [row["probability"] for row in plain] != pytest.approx(expected, abs=1e-6)
    assert main(["predict", "--run", str(made.run), "--tta_copies", "4", files[0]]) == 0
    assert "note: --tta_copies 4 has no effect: the arm none has no augmented views" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_fewer_than_no_copies_are_refused(command: str, made: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = {"train": [], "evaluate": ["--run", str(made.run)], "predict": ["--run", str(made.run), "a.png"]}[command]
    assert main([command, "--tta_copies", "-1", *words]) == 2
    assert "--tta_copies is -1, but must be 0 or more." in capsys.readouterr().err


def test_averaging_without_views_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", "--tta_copies", "2", "--out", str(run), *QUICK]) == 0
    note = "note: --tta_copies 2 has no effect: the arm none has no augmented views"
    assert note in capsys.readouterr().out
    scored = ["evaluate", "--run", str(run), "--out", str(tmp_path / "scored"), *SMALL, "--tta_copies", "2"]
    assert main(scored) == 0
    assert note in capsys.readouterr().out


def test_an_alignment_without_maps_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", "--align", "false", "--out", str(run), *QUICK]) == 0
    assert "note: --align false has no effect: a classifier has no maps" in capsys.readouterr().out
    scored = ["evaluate", "--run", str(run), *SMALL, "--out"]
    assert main([*scored, str(tmp_path / "aligned"), "--align", "true"]) == 0
    assert "note: --align true has no effect: a classifier has no maps" in capsys.readouterr().out
    assert main([*scored, str(tmp_path / "scored")]) == 0
    assert "--align" not in capsys.readouterr().out
    assert main(["export", "--run", str(run), "--format", "safetensors", "--align", "false"]) == 0
    assert "note: --align false has no effect" in capsys.readouterr().out


def test_exported_weights_keep_how_their_maps_are_fused(scenes: Path, tmp_path: Path) -> None:
    run, policy = tmp_path / "run", tmp_path / "policy.json"
    Policy.single("translate_x", 0.3, frames=3).save(policy)
    words = [
        "--data",
        f"voc:{scenes}",
        "--network",
        "tiny-resnet-fcn",
        "--policy",
        str(policy),
        "--align",
        "false",
        *QUICK,
    ]
    assert main(["train", "--out", str(run), *words]) == 0
    for place, given, kept in (("a", (), False), ("b", ("--align", "true"), True)):
        out = tmp_path / place
        assert main(["export", "--run", str(run), "--format", "safetensors", "--out", str(out), *given]) == 0
        assert align_of(out, None) == kept
        assert main(["evaluate", "--run", str(out), "--out", str(tmp_path / f"{place}-scored")]) == 0
        assert read_config(tmp_path / f"{place}-scored" / "config.yaml")[1]["align"] == kept
    assert read_result(tmp_path / "a-scored")["score"] == read_result(run)["row"]["score"]
    file = tmp_path / "a" / "network.json"
    file.write_text(file.read_text().replace('"align": false', '"align": 3'))
    with pytest.raises(UserError, match=f"{file} has the align '3'"):
        align_of(tmp_path / "a", None)
