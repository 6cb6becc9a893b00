"""Own images, one folder per class: what is found, what is refused, and what is gone on without."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from fieldshift.data import BadFileError, DataSet, LoadingConfig, load_dataset
from fieldshift.data.problems import MeaninglessDataError
from fieldshift.errors import UserError

Draw = Callable[..., Image.Image]
GO_ON = LoadingConfig(skip_unreadable=True)


def load(root: Path, loading: LoadingConfig | None = None, **settings: int) -> DataSet:
    return load_dataset(f"folder:{root}", loading=loading, **settings)  # type: ignore[arg-type]


def test_images_and_classes_are_those_that_torchvision_finds(image_folder: Path) -> None:
    made = load(image_folder)
    for part, split in (("train", made.train), ("test", made.test)):
        reference = ImageFolder(str(image_folder / part))
        images, labels = split.gather(torch.arange(len(split)))
        assert labels.tolist() == reference.targets == split.targets.tolist()
        for image, (expected, _) in zip(images, reference, strict=True):
            assert torch.equal(image, torch.from_numpy(np.array(expected)).permute(2, 0, 1))
    assert made.classes == ("cat", "dog")
    assert (made.size, made.channels, made.task, made.ignore_index) == ((16, 20), 3, "classification", None)
    pixels = made.train.gather(torch.arange(8))[0].double() / 255
    assert made.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert made.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist())


def test_without_parts_a_seeded_share_of_every_class_is_set_apart(image_folder: Path, picture: Draw) -> None:
    root = image_folder / "train"
    for number in range(10, 16):
        picture(number).save(root / "dog" / f"{number}.png")
    first, again, other = load(root), load(root), load(root, seed=1)
    assert (len(first.train), len(first.test)) == (11, 3)
    assert torch.bincount(first.test.targets).tolist() == [1, 2]
    assert first.digest == again.digest
    assert {load(root, seed=seed).digest for seed in range(4)} != {first.digest}
    assert other.classes == first.classes
    half = load(root, LoadingConfig(test_share=0.5))
    assert torch.bincount(half.test.targets).tolist() == [2, 5]


def test_a_class_without_a_test_image_is_noted_where_the_test_part_is_drawn(tmp_path: Path, picture: Draw) -> None:
    for number in range(12):
        (tmp_path / f"c{number:02}").mkdir()
        for place in range(3):
            picture(3 * number + place).save(tmp_path / f"c{number:02}" / f"{place}.png")
    made = load(tmp_path)
    missing = sorted(set(range(12)) - set(made.test.targets.tolist()))
    assert len(missing) == 5
    (finding,) = made.findings
    assert finding.startswith(
        f"class not in test: {tmp_path}/c{missing[0]:02} is a class that has no test image (and 4 more)"
    )
    assert "raise --loading.test_share" in finding
    assert load(tmp_path, LoadingConfig(test_share=0.5)).findings == ()


def test_val_stands_in_for_test_and_is_named(image_folder: Path) -> None:
    (image_folder / "test").rename(image_folder / "val")
    assert "tested on val/" in load(image_folder).protocol
    shutil.copytree(image_folder / "val", image_folder / "test")
    assert "val/ is not used" in load(image_folder).protocol


def test_images_of_many_sizes_become_one_square(image_folder: Path, picture: Draw) -> None:
    for number, size in enumerate([(30, 60), (400, 300), (90, 31)]):
        picture(number + 50, size).save(image_folder / "train" / "cat" / f"big{number}.jpg")
    assert load(image_folder).size == (16, 16)
    assert load(image_folder, LoadingConfig(size=(24, 12))).train.gather(torch.arange(3))[0].shape == (3, 3, 24, 12)


def test_grey_images_keep_one_channel(image_folder: Path) -> None:
    for path in image_folder.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert load(image_folder).channels == 1
    assert load(image_folder, LoadingConfig(channels=3)).channels == 3


def test_names_in_any_script_are_names(image_folder: Path, picture: Draw) -> None:
    for part, form in (("train", "NFC"), ("test", "NFD")):  # as different systems write the same name
        folder = image_folder / part / unicodedata.normalize(form, "bjørn-é")
        folder.mkdir()
        for number in range(2):
            picture(ord(part[1]) + number).save(folder / f"ünï 写真 {number}.PNG")
    made = load(image_folder)
    assert made.classes == ("bjørn-é", "cat", "dog")
    assert torch.bincount(made.train.targets).tolist() == [2, 4, 4]


def test_names_that_are_not_unicode_are_names_too(image_folder: Path, picture: Draw) -> None:
    path = os.fsdecode(os.fsencode(image_folder / "train" / "cat") + b"/bad \xff name.png")
    picture(99).save(path)
    assert len(load(image_folder).train) == 9
    Path(path).write_bytes(b"")
    with pytest.raises(BadFileError, match="0 bytes"):
        load(image_folder)
    assert load(image_folder, GO_ON).skipped == 1


def test_links_that_point_outside_are_refused(image_folder: Path, tmp_path: Path, picture: Draw) -> None:
    picture(1).save(tmp_path / "secret.png")
    link = image_folder / "train" / "cat" / "link.png"
    link.symlink_to(tmp_path / "secret.png")
    with pytest.raises(BadFileError, match="points outside the data folder; copy the file into the folder"):
        load(image_folder)
    assert (load(image_folder, GO_ON).skipped, len(load(image_folder, GO_ON).train)) == (1, 8)
    link.unlink()
    link.symlink_to(image_folder / "train" / "cat" / "0.png")
    assert len(load(image_folder).train) == 9
    link.unlink()
    link.symlink_to(image_folder / "nowhere.png")
    with pytest.raises(BadFileError, match="links to a missing file"):
        load(image_folder)
    link.unlink()
    (image_folder / "train" / "loop").symlink_to(image_folder / "train")
    with pytest.raises(BadFileError, match="link to a folder"):
        load(image_folder)


def test_the_data_folder_itself_may_be_a_link(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(image_folder)
    assert load(tmp_path / "link").digest == load(image_folder).digest


def test_an_empty_class_is_refused_or_left_out(image_folder: Path) -> None:
    (image_folder / "train" / "eel").mkdir()
    (image_folder / "train" / "eel" / "notes.txt").write_text("none yet")
    with pytest.raises(BadFileError, match="eel is a class without an image; add images or delete the folder"):
        load(image_folder)
    made = load(image_folder, GO_ON)
    assert (made.classes, made.skipped) == (("cat", "dog"), 1)


def test_a_class_only_in_test_is_refused_or_left_out(image_folder: Path) -> None:
    (image_folder / "test" / "dog").rename(image_folder / "test" / "wolf")
    with pytest.raises(MeaninglessDataError, match="holds the class 'wolf' that train lacks"):
        load(image_folder)
    made = load(image_folder, LoadingConfig(accept=["class-only-in-test"]))
    assert (made.classes, len(made.test)) == (("cat", "dog"), 2)
    assert any("'wolf'" in finding for finding in made.findings)
    with pytest.raises(MeaninglessDataError):
        load(image_folder, GO_ON)


def test_a_misspelt_class_of_the_test_part_names_the_one_that_is_meant(image_folder: Path) -> None:
    (image_folder / "test" / "dog").rename(image_folder / "test" / "dogg")
    with pytest.raises(MeaninglessDataError, match=r"holds the class 'dogg' .* did you mean 'dog'\? Rename the folder"):
        load(image_folder)


def test_a_bad_file_is_named_and_can_be_left_out(image_folder: Path) -> None:
    bad = image_folder / "train" / "dog" / "2.png"
    bad.write_bytes(bad.read_bytes()[:150])
    with pytest.raises(BadFileError, match=r"dog/2.png cannot be decoded .*; copy it again or delete it"):
        load(image_folder)
    made = load(image_folder, GO_ON)
    assert (len(made.train), made.skipped) == (7, 1)
    assert "1 left out as unusable" in made.protocol
    assert torch.bincount(made.train.targets).tolist() == [4, 3]
    assert made.train.gather(torch.arange(7))[0].shape == (7, 3, 16, 20)
    assert load(image_folder, GO_ON).digest == made.digest  # the second time from what was remembered


def test_limits_keep_the_shares(image_folder: Path) -> None:
    made = load(image_folder, train_limit=4, test_limit=2)
    assert torch.bincount(made.train.targets).tolist() == [2, 2]
    assert torch.bincount(made.test.targets).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ([], "0 class folder"),
        (["cat/0.png"], "1 class folder"),
        (["test/cat/0.png", "test/dog/0.png"], "'test' but no 'train'"),
        (["train/cat/0.png", "train/dog/0.png", "test/cat/note.txt"], "no test image"),
        (["cat/0.png", "dog/0.png"], "too few images|cannot be split"),
    ],
)
def test_layouts_that_are_none_are_refused(layout: list[str], words: str, tmp_path: Path, picture: Draw) -> None:
    for name in layout:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(1).save(tmp_path / name, "PNG")
    with pytest.raises(UserError, match=words) as refusal:
        load(tmp_path)
    assert len(str(refusal.value).splitlines()) == 1


def test_paths_that_are_no_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        load(tmp_path / "file")
