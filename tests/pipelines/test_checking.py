"""A person's own folder of pictures: what `check` says of it, and the study that `init` writes for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from fieldshift.cli import main


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes in train and test; one file is cut off and one test picture is a train picture."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 8)):
        for label in ("cats", "dogs and more"):
            folder = tmp_path / "own" / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                values = generator.integers(0, 256, (24, 30, 3), dtype=np.uint8)
                Image.fromarray(values).save(folder / f"{number}.png")
    own = tmp_path / "own"
    cut = own / "train" / "cats" / "3.png"
    cut.write_bytes(cut.read_bytes()[:300])
    (own / "test" / "cats" / "0.png").write_bytes((own / "train" / "cats" / "5.png").read_bytes())
    return own


def test_check_names_what_is_wrong_and_writes_nothing(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(pictures.rglob("*"))
    assert main(["check", "--data", f"folder:{pictures}"]) == 1
    shown = capsys.readouterr().out
    assert "47 train and 16 test samples" in shown
    assert "3.png" in shown
    assert "1 test sample also in train" in shown
    assert main(["check", "--data", f"folder:{pictures}", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert len(found["problems"]) == len(found["duplicates"]) == 1
    assert sorted(pictures.rglob("*")) == before
    assert main(["check", "--data", "digit-pairs-left", "--train-limit", "40", "--test-limit", "20"]) == 0


def test_init_writes_a_study_that_runs(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["init", "--data", f"folder:{pictures}"]
    assert main(words) == 0
    assert "fieldshift study --config study.yaml" in capsys.readouterr().out
    text = (tmp_path / "study.yaml").read_text()
    settings = yaml.safe_load(text)
    assert settings["loading"] == {"size": [24, 30], "skip_unreadable": True}
    assert settings["recipe"]["batch"] <= 8  # 47 pictures make a few steps per pass
    assert "1 test sample also in train" in text
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    here = ["--cluster.workers", "0", "--cluster.trials_at_once", "0", "--tracking.enabled", "false"]
    less = ["--seeds", "1", "--arms", "none", "das", "--frame_counts", "1", "--stages", "compare"]
    small = ["--search.epochs", "1", "--search.tune_epochs", "0", "--recipe.epochs", "1", "--tta_copies", "0"]
    assert main(["study", "--config", "study.yaml", "--out", "run", *less, *small, *here]) == 0
    assert (tmp_path / "run" / "policy.json").exists()


def test_settings_of_reading_are_written_and_the_whole_set_counts(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["init", "--data", f"folder:{pictures}", "--limit", "3", "--skip-unreadable", "--channels", "1"]
    assert main(words) == 2  # the pictures are coloured
    words[-1] = "3"
    assert main([*words, "--test-share", "0.4"]) == 0
    text = (tmp_path / "study.yaml").read_text()
    assert "47 train and 16 test samples" in text
    reading = yaml.safe_load(text)["loading"]
    assert (reading["channels"], reading["test_share"], reading["skip_unreadable"]) == (3, 0.4, True)


@pytest.mark.parametrize("out", ["study.txt", "study"])
def test_settings_are_yaml(out: str, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--data", f"folder:{pictures}", "--out", out]) == 2
    assert out in capsys.readouterr().err
