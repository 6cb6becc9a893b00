"""A table of folder layouts: how each is read, or why it is refused. Only names of files matter here, so all are small."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fieldshift.data import DataSet, LoadingConfig, load_dataset
from fieldshift.data.files.formats import format_of_ending
from fieldshift.errors import UserError


def write(root: Path, *places: str, count: int = 3, ending: str = "png") -> None:
    """`count` pictures at every place, no two of them alike."""
    for place in places:
        (root / place).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            seed = [*f"{place}/{number}".encode()]
            pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / place / f"{number}.{ending}")


def load(root: Path, **settings: Any) -> DataSet:
    return load_dataset(f"folder:{root}", loading=LoadingConfig(**settings))


@dataclass(frozen=True)
class Layout:
    """Folders of three pictures each, with what is given to the reader; the numbers it has to find, or words it refuses with.

    test: None where a share of a fifth of `train` images is held out.
    """

    places: tuple[str, ...]
    train: int = 0
    test: int | None = None
    classes: tuple[str, ...] = ("cat", "dog")
    refused: str = ""
    told: dict[str, Any] = field(default_factory=dict)


def both(*parts: str) -> tuple[str, ...]:
    return tuple(f"{part}/{name}" for part in parts for name in ("cat", "dog"))


LAYOUTS = {
    "classes": Layout(("cat", "dog"), train=6),
    "train, test": Layout(both("train", "test"), train=6, test=6),
    "Train, Test": Layout(both("Train", "Test"), train=6, test=6),
    "train, Test": Layout(both("train", "Test"), train=6, test=6),
    "TRAIN, VAL": Layout(both("TRAIN", "VAL"), train=6, test=6),
    "training_set, test_set": Layout(both("training_set", "test_set"), train=6, test=6),
    "trainset, testset": Layout(both("trainset", "testset"), train=6, test=6),
    "Training, Validation": Layout(both("Training", "Validation"), train=6, test=6),
    "train, dev": Layout(both("train", "dev"), train=6, test=6),
    "train, holdout": Layout(both("train", "holdout"), train=6, test=6),
    "train2017, val2017": Layout(both("train2017", "val2017"), train=6, test=6),
    "train_images, test_images": Layout(both("train_images", "test_images"), train=6, test=6),
    "seg_train, seg_test": Layout(both("seg_train", "seg_test"), train=6, test=6),
    "seg_train, seg_test, seg_pred": Layout((*both("seg_train", "seg_test"), "seg_pred"), train=6, test=6),
    "an archive's own folder": Layout(both("pets/train", "pets/test"), train=6, test=6),
    "folders twice": Layout(both("train/train", "test/test"), train=6, test=6),
    "train alone": Layout(both("train"), train=6),
    "train, val, test": Layout(both("train", "val", "test"), train=6, test=6),
    "cases of a class": Layout(("train/Cat", "train/dog", "test/cat", "test/DOG"), 6, 6, classes=("Cat", "dog")),
    "cases beside each other": Layout(("train/cat", "train/Cat", "train/dog", *both("test")), 9, 6, classes=("Cat", "dog")),
    "classes called train": Layout(("bus", "car", "train"), train=9, classes=("bus", "car", "train")),
    "classes with folders": Layout(("cat/ann", "cat/bob", "dog/eve"), train=9),
    "images in every class": Layout(("cat/images", "dog/images"), train=6),
    "images and masks": Layout(("cat/images", "cat/masks", "dog/images", "dog/masks"), train=6),
    "masks below the pictures": Layout(("cat", "cat/masks", "dog", "dog/masks"), train=6),
    "mask and no_mask": Layout(("mask", "no_mask"), train=6, classes=("mask", "no_mask")),
    "images of classes, annotations": Layout((*both("Images"), "Annotation/x"), train=6),
    "images of classes in two cases": Layout((*both("Images", "images"), "Annotation/x"), train=12),
    "stray beside parts": Layout((*both("train", "test"), "more"), train=6, test=6),
    "told folds": Layout(both("fold0", "fold1", "fold2"), 12, 6, told={"test_parts": ["fold2"]}),
    "told both": Layout(both("a", "b", "c"), 6, 6, told={"train_parts": ["a"], "test_parts": ["C"]}),
    "told val": Layout((*both("train", "val"), "test"), 6, 6, told={"test_parts": ["val"]}),
    "told classes": Layout(
        ("day/a", "day/b", "night/a", "night/b"), 12, classes=("day", "night"), told={"classes_on_top": True}
    ),
    "folds": Layout(both("fold0", "fold1"), refused="two ways: fold0/ and fold1/ both hold 'cat'; name the parts"),
    "sessions": Layout(("day/a", "night/a"), refused="--loading.classes_on_top true"),
    "train and a stranger": Layout(both("train", "march"), refused="test part; give --loading.test_parts march"),
    "test without train": Layout(both("test", "more"), refused="'test' but no 'train'"),
    "two trains": Layout(both("train", "training", "test"), refused="more than one folder named after its train part"),
    "unlabelled test": Layout((*both("train", "val"), "test"), refused="give --loading.test_parts val to test on val/"),
    "unlabelled test alone": Layout((*both("train"), "test"), refused="to hold out a share of the training images"),
    "no classes": Layout(("train", "test"), refused="holds pictures and no folder for each class"),
    "segmentation": Layout(("images", "masks"), refused="give voc:"),
    "told nothing": Layout(both("a", "b"), refused="names 'c', but .* has no such folder", told={"test_parts": ["c"]}),
    "told one for both": Layout(
        both("a", "b"), refused="both name 'a'", told={"train_parts": ["a"], "test_parts": ["a"]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_read_as_the_table_says_or_refused(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    write(tmp_path, *layout.places)
    if layout.refused:
        with pytest.raises(UserError, match=layout.refused) as refusal:
            load(tmp_path, **layout.told)
        assert len(str(refusal.value).splitlines()) == 1
        return
    made = load(tmp_path, **layout.told)
    if layout.test is None:
        assert "a share of 0.2 of each class" in made.protocol
        assert (len(made.train) + len(made.test), len(made.test)) == (layout.train, round(0.2 * layout.train))
    else:
        assert (len(made.train), len(made.test)) == (layout.train, layout.test)
    assert made.classes == layout.classes
    assert len(made.reading().splitlines()) == 1
    assert made.reading().startswith(f"data: {made.name}: {len(made.classes)} classes ({', '.join(made.classes)}); ")
    assert f"{len(made.train)} to train, {len(made.test)} to test" in made.reading()


def test_what_is_left_out_is_noted_once_a_kind(tmp_path: Path) -> None:
    write(tmp_path, *both("train", "test"), "train", "more", "later")
    (tmp_path / "train" / "cat" / "photo.heic").write_bytes(b"not read")
    findings = load(tmp_path).findings
    assert [line.partition(":")[0] for line in findings] == ["not used", "not an image"]
    assert "(and 2 more)" in findings[0]


def test_masks_named_after_their_picture_are_no_samples(tmp_path: Path) -> None:
    write(tmp_path, "ill", "well", count=4)
    for name in ("ill/0_mask.png", "ill/1_mask_1.png", "well/2 mask.png", "well/3-GT.PNG"):
        Image.new("L", (6, 6), 255 - len(name)).save(tmp_path / name)
    write(tmp_path, "ill/other_mask", count=0)
    Image.new("L", (6, 6), 7).save(tmp_path / "ill" / "face_mask.png")  # no picture "face": a sample of its own
    made = load(tmp_path)
    assert len(made.train) + len(made.test) == 9
    assert [line for line in made.findings if "is the mask of a picture by its name" in line and "(and 3 more)" in line]


def test_forms_of_unicode_in_one_folder_are_one_class_and_nothing_is_lost(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        write(tmp_path, f"train/{unicodedata.normalize(form, 'bjørn-é')}")
    write(tmp_path, "train/cat", "test/cat", "test/\ufeffBJØRN-É")
    made = load(tmp_path)
    assert made.classes == ("bjørn-é", "cat")
    assert (len(made.train), len(made.test)) == (9, 6)


@pytest.mark.parametrize("ending", sorted(format_of_ending()))
def test_every_ending_that_pillow_reads_and_writes_is_read(ending: str, tmp_path: Path) -> None:
    kind = {"MPO": "JPEG"}.get(format_of_ending()[ending], format_of_ending()[ending])
    if kind not in Image.SAVE or kind == "ICNS":  # ICNS takes seconds to write
        pytest.skip(f"Pillow writes no {kind}")
    mode = {"XBM": "1", "MSP": "1", "PALM": "P"}.get(kind, "RGB")
    size = (16, 16)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(2):
            values = np.random.default_rng([len(name), number, ord(name[0])]).integers(
                0, 256, (*size, 3), dtype=np.uint8
            )
            path = tmp_path / name / f"{number}{ending.upper()}"
            try:
                Image.fromarray(values).convert(mode).save(path, kind)
            except (OSError, ValueError):
                pytest.skip(f"Pillow writes no {kind} of this mode")
    try:
        made = load(tmp_path, test_share=0.5)
    except UserError as error:
        assert "more than 8 bits" in str(error)  # floats only: FITS, SPIDER
        return
    assert (len(made.train), len(made.test), made.findings) == (2, 2, made.findings)
    assert made.train.gather(made.train.targets * 0)[0].shape[2:] == made.size


def test_settings_of_parts_are_refused_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not apply to npz:"):
        load_dataset(f"npz:{tmp_path}/a.npz", loading=LoadingConfig(test_parts=["val"]))
    with pytest.raises(UserError, match="does not apply to cifar10"):
        load_dataset("cifar10", loading=LoadingConfig(classes_on_top=True))
    with pytest.raises(UserError, match="means that there are no parts"):
        LoadingConfig(classes_on_top=True, test_parts=["a"])
