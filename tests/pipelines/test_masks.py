"""`predict` of a segmenter: masks as files, in the pictures' own sizes, whose overlap is what `evaluate` reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fieldshift.cli import main
from fieldshift.motions import Policy
from fieldshift.run_folder import read_result

QUICK = ["--recipe.epochs", "4", "--recipe.batch", "4", "--tracking.enabled", "false"]


@pytest.fixture(scope="module")
def segmenter(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that reads videos and fuses their maps in the reference frame."""
    root = tmp_path_factory.mktemp("segmenter")
    Policy.single("translate_x", 0.2, frames=3).save(root / "policy.json")
    words = ["train", "--data", f"voc:{scenes}", "--network", "tiny-resnet-fcn", *QUICK, "--arm", "das"]
    assert main([*words, "--policy", str(root / "policy.json"), "--out", str(root / "run")]) == 0
    return root / "run"


def test_masks_overlap_as_evaluate_says(
    segmenter: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = (scenes / "ImageSets" / "Segmentation" / "test.txt").read_text().split()
    pictures = [str(scenes / "JPEGImages" / f"{name}.jpg") for name in names]
    words = ["predict", "--run", str(segmenter), "--out", str(tmp_path / "masks"), "--json", *pictures]
    assert main(words) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(row["mask"]) for row in rows] == [tmp_path / "masks" / f"{name}.png" for name in names]
    counts = np.zeros((2, 2))
    for name, row in zip(names, rows, strict=True):
        with Image.open(row["mask"]) as opened:
            mask = np.array(opened)  # class numbers, not colours
        with Image.open(scenes / "SegmentationClass" / f"{name}.png") as opened:
            truth = np.array(opened)
        counts += np.histogram2d(truth[truth < 2], mask[truth < 2], bins=(2, 2), range=((0, 2), (0, 2)))[0]
        assert row["classes"] == {
            label: pytest.approx((mask == number).mean())
            for number, label in enumerate(("ground", "square"))
            if (mask == number).any()
        }
    overlap = np.diag(counts) / (counts.sum(0) + counts.sum(1) - np.diag(counts))
    assert main(["evaluate", "--run", str(segmenter), "--out", str(tmp_path / "scored")]) == 0
    assert read_result(tmp_path / "scored")["score"] == pytest.approx(overlap.mean())
    capsys.readouterr()
    assert main([*words[:3], "--out", str(tmp_path / "again"), pictures[0]]) == 0
    *rows, folder = capsys.readouterr().out.splitlines()
    assert f" {names[0]}.png  ground " in rows[1]
    assert folder == f"  {tmp_path / 'again'}"


def test_pictures_of_other_sizes_and_of_one_name(segmenter: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 90, 3), dtype=np.uint8)
    files = [tmp_path / folder / "same.png" for folder in "ab"] + [tmp_path / "SAME-2.jpg"]
    for file, size in zip(files, ((90, 37), (20, 31), (25, 25)), strict=True):
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).resize(size).save(file)
    sideways = Image.Exif()
    sideways[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=sideways)
    out = tmp_path / "masks"
    assert (
        main(["predict", "--run", str(segmenter), "--out", str(out), *map(str, [*files, tmp_path / "turned.jpg"])]) == 0
    )
    found = {}
    for path in out.iterdir():
        with Image.open(path) as opened:
            found[path.name] = (opened.mode, opened.size)
    assert found.pop("turned.png") == ("P", (37, 90))
    assert found == {"same.png": ("P", (90, 37)), "same-2.png": ("P", (20, 31)), "SAME-2-2.png": ("P", (25, 25))}


def test_a_folder_is_predicted_in_batches_as_its_pictures_are_one_by_one(
    segmenter: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = sorted((scenes / "JPEGImages").iterdir())[0]
    folder = tmp_path / "pictures"
    for number in range(18):  # more than the 16 of a batch
        (folder / f"{number % 3}").mkdir(parents=True, exist_ok=True)
        with Image.open(scene) as opened:
            opened.rotate(20 * number).save(folder / f"{number % 3}" / f"{number:02}.png")
    words = ["predict", "--run", str(segmenter), "--out"]
    assert main([*words, str(tmp_path / "at-once"), str(folder)]) == 0
    assert "predicting 100%" in capsys.readouterr().out
    files = sorted(folder.rglob("*.png"))
    assert main([*words, str(tmp_path / "first"), str(files[0])]) == 0
    assert "predicting" not in capsys.readouterr().out
    written = sorted(path.name for path in (tmp_path / "at-once").iterdir())
    assert written == sorted(file.name for file in files)
    masks = [np.array(Image.open(tmp_path / place / files[0].name)) for place in ("at-once", "first")]
    assert np.mean(masks[0] == masks[1]) > 0.999


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "holds a segmenter, whose masks are files; add --out FOLDER."),
        (["--out", "FULL"], "is not empty; name a new folder."),
        (["--out", "FILE"], "is a file; name a new folder."),
        (["--out", "NEW", "--top", "2"], "--top is for classifiers"),
        (["--out", "NEW", "BROKEN"], "cannot be decoded"),
    ],
)
def test_mistakes_write_nothing(
    given: list[str], said: str, segmenter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {name: tmp_path / name.lower() for name in ("FULL", "FILE", "NEW", "BROKEN")}
    places["FULL"].mkdir()
    (places["FULL"] / "kept.txt").touch()
    places["FILE"].touch()
    places["BROKEN"].write_bytes(b"\x89PNG no picture")
    picture = tmp_path / "picture.png"
    Image.new("RGB", (30, 30)).save(picture)
    before = sorted(tmp_path.rglob("*"))
    words = [str(places.get(word, word)) for word in given]
    assert main(["predict", "--run", str(segmenter), str(picture), *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert sorted(tmp_path.rglob("*")) == before


def test_a_classifier_has_no_masks(made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "--run", str(made.run), "--out", str(tmp_path / "masks"), str(made.path(tested=True))]
    assert main(words) == 2
    assert "--out is for the masks of a segmenter" in capsys.readouterr().err
    assert not (tmp_path / "masks").exists()
