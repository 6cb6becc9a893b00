"""The inspection report: what is counted, and everything that is wrong in one go."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldshift.data import inspect_data, load_dataset
from fieldshift.errors import UserError

Draw = Callable[..., Image.Image]


def test_a_clean_folder_is_counted(image_folder: Path) -> None:
    report = inspect_data(f"folder:{image_folder}")
    made = load_dataset(f"folder:{image_folder}")
    assert report.is_clean
    assert (report.problems, report.notes, report.duplicates, report.repeated) == ((), (), (), 0)
    assert report.counts == {"train": 8, "test": 4}
    assert report.classes == {"cat": (4, 2), "dog": (4, 2)}
    assert report.sizes == {(16, 20): 12}
    assert (report.mean, report.std) == (made.mean, made.std)
    assert report.balance() == 1.0
    assert report.looked_at == (12, 12)


def test_everything_that_is_wrong_is_in_one_report(image_folder: Path, tmp_path: Path, picture: Draw) -> None:
    cats = image_folder / "train" / "cat"
    (cats / "0.png").write_bytes(b"")
    (cats / "1.png").write_bytes((cats / "1.png").read_bytes()[:100])
    (cats / "notes.txt").write_text("hello")
    (cats / "out.png").symlink_to(tmp_path)
    picture(70, mode="CMYK").save(cats / "print.jpg")
    picture(71, mode="L").save(cats / "grey.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(72, (16, 20)).save(cats / "turned.jpg", exif=exif)
    Image.fromarray(np.full((16, 20, 4), 90, dtype=np.uint8)).save(cats / "glass.png")
    shutil.copy(cats / "2.png", image_folder / "test" / "cat" / "copy.png")
    shutil.copy(cats / "2.png", cats / "again.png")
    (image_folder / "train" / "eel").mkdir()
    (image_folder / "test" / "fox").mkdir()
    picture(73).save(image_folder / "test" / "fox" / "0.png")
    report = inspect_data(f"folder:{image_folder}")
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["problems_by_kind"] == {
        "empty file": 1, "unreadable": 1, "link outside": 1, "empty class": 1, "class-only-in-test": 1,
    }  # fmt: skip
    assert plain["notes_by_kind"] == {"not an image": 1, "converted": 2, "turned": 1, "transparent": 1}
    assert [pair[1].endswith("copy.png") for pair in report.duplicates] == [True]
    assert report.repeated == 1
    assert report.counts == {"train": 11, "test": 5}
    assert not report.is_clean
    text = "\n".join(report.lines())
    assert "0.png has 0 bytes; copy it again or delete it." in text
    assert "1 test sample also in train" in text


def test_scenes_are_counted_in_pixels(scene_folder: Path) -> None:
    Image.new("L", (20, 16), 9).save(scene_folder / "SegmentationClass" / "s0.png")
    Image.new("L", (20, 15)).save(scene_folder / "SegmentationClass" / "s1.png")
    report = inspect_data(f"voc:{scene_folder}")
    assert {problem.kind for problem in report.problems} == {"unknown label", "mask size"}
    assert report.counts == {"train": 2, "test": 2}
    masks = [np.array(Image.open(scene_folder / "SegmentationClass" / f"s{number}.png")) for number in (2, 3)]
    expected = [int((np.stack(masks) == label).sum()) for label in range(3)]
    assert [train for train, _ in report.classes.values()] == expected
    assert report.ignored == pytest.approx(1 / 16)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_arrays_are_looked_at_as_files_are(task: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (10, 6, 6), dtype=np.uint8)
    labels = np.arange(10) % 2 if task == "classification" else random.integers(0, 2, (10, 6, 6))
    tests = np.concatenate([images[:1], 255 - images[:3]])
    np.savez(tmp_path / "own.npz", train_images=images, train_labels=labels, test_images=tests, test_labels=labels[:4])
    report = inspect_data(f"npz:{tmp_path / 'own.npz'}")
    assert report.duplicates == (("train[0]", "test[0]"),)
    assert report.mean == pytest.approx([images.mean() / 255])
    assert sum(train for train, _ in report.classes.values()) == (10 if task == "classification" else 360)
    assert report.looked_at == (14, 14)


def test_the_built_in_data_is_clean() -> None:
    report = inspect_data("digit-pairs-left", limit=50)
    assert report.is_clean
    assert report.counts == {"train": 50, "test": 50}
    assert report.looked_at == (100, 4000)
    masked = inspect_data("digit-pairs-top", task="segmentation", limit=50)
    assert masked.classes["background"][0] > 40 * 40 * 50 * 0.9
    assert torch.tensor(masked.mean) == pytest.approx(0.043, abs=0.01)


def test_the_same_for_any_number_of_threads_and_limit(image_folder: Path) -> None:
    from fieldshift.data import LoadingConfig

    spec = f"folder:{image_folder}"
    assert inspect_data(spec, loading=LoadingConfig(workers=0)) == inspect_data(spec, loading=LoadingConfig(workers=3))
    assert inspect_data(spec, limit=2).looked_at == (4, 12)
    with pytest.raises(UserError, match="at least 1 sample"):
        inspect_data(spec, limit=0)
    with pytest.raises(UserError, match="is for classification"):
        inspect_data(spec, task="segmentation")


def test_where_nothing_is_left_the_first_problem_is_named(tmp_path: Path) -> None:
    images = np.zeros((4, 5, 5), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=np.array([0, -1, 0, -1]))
    with pytest.raises(UserError, match=r"train_labels\[1\] holds the label -1; number the classes from 0"):
        inspect_data(f"npz:{tmp_path / 'a.npz'}")
