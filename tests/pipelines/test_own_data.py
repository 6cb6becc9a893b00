"""Own data in every command: one reading, said in one line, and one list of findings that stops all of them alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldshift.cli import main

HERE = ["--cluster.workers", "0", "--tracking.enabled", "false"]
SMALL = ["--recipe.epochs", "1", "--recipe.batch", "8"]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Train/ and Test/ with the classes cat and dog, eight and four pictures each."""
    random = np.random.default_rng(0)
    for part, count in (("Train", 8), ("Test", 4)):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for number in range(count):
                values = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(values).save(tmp_path / "pets" / part / name / f"{number}.png")
    return tmp_path / "pets"


def data_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("data: ")]


def test_every_command_says_in_one_line_how_it_read_the_data(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = str(tmp_path / "run"), ["--data", f"folder:{pets}"]
    words = [
        ["check", *data],
        ["init", *data, "--out", str(tmp_path / "study.yaml")],
        ["train", *data, "--out", out, *SMALL, *HERE],
        ["evaluate", "--run", out, "--out", str(tmp_path / "again")],
    ]
    for command in words:
        assert main(command) == 0
        (line,) = data_lines(capsys.readouterr().out)
        assert line.startswith(f"data: folder:{pets}: 2 classes (cat, dog); trained on Train/, tested on Test/; 16 "), (
            command
        )


@pytest.mark.parametrize("command", ["init", "train", "compare", "search", "study"])
def test_what_makes_numbers_meaningless_stops_every_command_before_any_work(
    command: str, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        shutil.copy(pets / "Train" / "cat" / f"{number}.png", pets / "Train" / "dog" / f"copy{number}.png")
    arms = ["--arms", "none"] if command == "compare" else []  # no arm that needs a policy
    assert main([command, "--data", f"folder:{pets}", *arms]) == 2
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert "copy0.png is of the class dog and the same picture as" in line
    assert "give --loading.accept two-labels to continue anyway" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets"]


def test_a_conflict_is_no_repeat_and_can_be_accepted(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        shutil.copy(pets / "Train" / "cat" / f"{number}.png", pets / "Train" / "dog" / f"copy{number}.png")
    assert main(["check", "--data", f"folder:{pets}"]) == 1
    shown = capsys.readouterr().out
    assert "problem: 2 x two-labels" in shown
    assert "Training stops at two-labels; correct it, or give --loading.accept two-labels" in shown
    assert "repeat another" not in shown
    words = ["--data", f"folder:{pets}", "--loading.accept", "two-labels"]
    assert main(["check", *words]) == 0
    assert main(["train", *words, "--out", str(tmp_path / "run"), *SMALL, *HERE]) == 0
    shown = capsys.readouterr().out
    assert "note: two-labels: " in shown
    assert "(2 pictures have two classes)" in shown


def test_a_class_without_images_is_named_by_its_own_folder(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pets / "Train" / "emu").mkdir()
    assert main(["train", "--data", f"folder:{pets}"]) == 2
    assert f"{pets / 'Train' / 'emu'} is a class without an image" in capsys.readouterr().err
