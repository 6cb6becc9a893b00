"""Tables of scene layouts, lists and mask names: which scenes are learned from and tested on, or why it is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fieldshift.data import DataSet, LoadingConfig, load_dataset
from fieldshift.data.files.class_files import class_table
from fieldshift.errors import UserError


def scene(root: Path, images: str, masks: str | None, name: str, mask_name: str | None = None) -> None:
    """One scene of two classes; `mask_name` where the mask is called otherwise."""
    random = np.random.default_rng([*f"{images}/{name}".encode()])
    for folder, called, values in ((images, name, random.integers(0, 256, (6, 8, 3), dtype=np.uint8)),
                                   (masks, mask_name or name, np.indices((6, 8)).sum(0).astype(np.uint8) % 2)):  # fmt: skip
        if folder is not None:
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(root / folder / f"{called}.png")


def load(root: Path, **settings: Any) -> DataSet:
    return load_dataset(f"voc:{root}", loading=LoadingConfig(**settings))


def names(made: DataSet) -> tuple[str, str]:
    """The scenes of train and of test, as the last letters of their names."""
    parts = []
    for split in (made.train, made.test):
        parts.append("".join(sorted(Path(split.files(place)[0]).stem[-1] for place in range(len(split)))))  # type: ignore[attr-defined]
    return parts[0], parts[1]


@dataclass(frozen=True)
class Lists:
    """Lists of the scenes a to f; the scenes of both parts, a share where `test` is None, or words of a refusal."""

    files: dict[str, str]
    train: str = ""
    test: str | None = None
    refused: str = ""
    told: dict[str, Any] = field(default_factory=dict)


LISTS = {
    "train, test": Lists({"train": "abcd", "test": "ef"}, "abcd", "ef"),
    "Train, TEST": Lists({"Train": "abcd", "TEST": "ef"}, "abcd", "ef"),
    "train, val": Lists({"train": "abcd", "val": "ef"}, "abcd", "ef"),
    "training, validation": Lists({"training": "abcd", "validation": "ef"}, "abcd", "ef"),
    "train, val, test": Lists({"train": "abc", "val": "d", "test": "ef"}, "abc", "ef"),
    "trainval, test": Lists({"trainval": "abcd", "test": "ef"}, "abcd", "ef"),
    "trainval, val": Lists({"trainval": "abcdef", "val": "ef"}, "abcd", "ef"),
    "train, trainval": Lists({"train": "abcd", "trainval": "abcdef"}, "abcd", "ef"),
    "train, trainval, val, test": Lists({"train": "abc", "trainval": "abcd", "val": "d", "test": "ef"}, "abc", "ef"),
    "train alone": Lists({"train": "abcde"}, "abcde"),
    "trainval alone": Lists({"trainval": "abcde"}, "abcde"),
    "lists of one class beside": Lists({"train": "abcd", "val": "ef", "cow_train": "ab"}, "abcd", "ef"),
    "told": Lists({"train": "abc", "val": "d", "test": "ef"}, "abc", "d", told={"test_parts": ["val"]}),
    "told folds": Lists({"one": "ab", "two": "cd"}, "ab", "cd", told={"train_parts": ["one"], "test_parts": ["TWO"]}),
    "test alone": Lists({"test": "ab"}, refused="has test.txt but no train.txt"),
    "val alone": Lists({"val": "ab"}, refused="has val.txt but no train.txt"),
    "two of a part": Lists({"train": "ab", "training": "cd", "val": "e"}, refused="two lists of one part"),
    "two of a name": Lists({"train": "ab", "Train": "cd", "val": "e"}, refused="has both Train.txt and train.txt"),
    "told two of a name": Lists(
        {"one": "ab", "One": "cd", "two": "e"},
        refused="has both One.txt and one.txt",
        told={"train_parts": ["one"], "test_parts": ["two"]},
    ),
    "in both": Lists({"train": "abcd", "test": "de"}, refused="is listed for both training and test"),
    "told a stranger": Lists(
        {"train": "abcd"}, refused="names 'c', but .* has no such list", told={"test_parts": ["c"]}
    ),
}


@pytest.mark.parametrize("place", ["ImageSets/Segmentation", "."])
@pytest.mark.parametrize("name", LISTS)
def test_lists_are_read_as_the_table_says_or_refused(name: str, place: str, tmp_path: Path) -> None:
    lists = LISTS[name]
    for letter in "abcdef":
        scene(tmp_path, "JPEGImages", "SegmentationClass", f"s {letter}")
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    for part, letters in lists.files.items():
        (tmp_path / place / f"{part}.txt").write_text(
            "".join(f"s {letter}\r\n" for letter in letters), encoding="utf-8"
        )
    if lists.refused:
        with pytest.raises(UserError, match=lists.refused) as refusal:
            load(tmp_path, **lists.told)
        assert len(str(refusal.value).splitlines()) == 1
        return
    made = load(tmp_path, **lists.told)
    train, test = names(made)
    if lists.test is None:
        assert "".join(sorted(train + test)) == lists.train
        assert len(test) == 1
    else:
        assert (train, test) == (lists.train, lists.test)


@pytest.mark.parametrize(
    "lines",
    ["\ufeffs a\ns b\ns c\n", "S A\nS b\ns C\n", "JPEGImages/s a.png\ns b.png\ns c\n"],
    ids=["mark", "case", "paths"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_line_names_its_scene_in_any_usual_form(lines: str, encoding: str, tmp_path: Path) -> None:
    for letter in "abcd":
        scene(tmp_path, "JPEGImages", "SegmentationClass", f"s {letter}")
    (tmp_path / "train.txt").write_text(lines, encoding=encoding)
    (tmp_path / "val.txt").write_text("s d", encoding="utf-8")
    assert names(load(tmp_path)) == ("abc", "d")


FOLDERS = {
    "VOC": ("JPEGImages", "SegmentationClass"),
    "other case": ("jpegimages", "segmentationclass"),
    "images, masks": ("images", "masks"),
    "img, labels": ("img", "Labels"),
    "pictures, ground_truth": ("pictures", "ground_truth"),
    "frames, annotations": ("frames", "annotations"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_images_and_masks_are_found_by_their_folders(name: str, tmp_path: Path) -> None:
    for letter in "abcde":
        scene(tmp_path, *FOLDERS[name], letter)
    made = load(tmp_path)
    assert len(made.train) + len(made.test) == 5
    assert made.findings == ()


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (("train/images", "train/masks"), ("test/images", "test/masks")),
        (("Training/img", "Training/gt"), ("Validation/img", "Validation/gt")),
        (("images/train", "masks/train"), ("images/val", "masks/val")),
        (("JPEGImages/train", "SegmentationClass/train"), ("JPEGImages/dev", "SegmentationClass/dev")),
    ],
)
def test_folders_are_parts(train: tuple[str, str], test: tuple[str, str], tmp_path: Path) -> None:
    for letter in "abc":
        scene(tmp_path, *train, letter)
    for letter in "de":
        scene(tmp_path, *test, letter)
    assert names(load(tmp_path)) == ("abc", "de")


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        (("Images", "masks"), ("images", None), "Images and images"),
        (("JPEGImages", "masks"), ("jpegimages", None), "JPEGImages and jpegimages"),
        (("images", "Masks"), ("images", "masks"), "Masks and masks"),
        (("images", "SegmentationClass"), ("images", "segmentationclass"), "SegmentationClass and segmentationclass"),
        (("Train/images", "Train/masks"), ("train/images", "train/masks"), "Train and train"),
    ],
)
def test_two_folders_of_one_name_are_refused(
    one: tuple[str, str], other: tuple[str, str | None], names: str, tmp_path: Path
) -> None:
    for letter in "abc":
        scene(tmp_path, *one, letter)
    for letter in "def":
        scene(tmp_path, *other, letter)
    with pytest.raises(
        UserError, match=f"has both {names}, which count as one name; keep or rename one of them"
    ) as refusal:
        load(tmp_path)
    assert len(str(refusal.value).splitlines()) == 1


def test_two_folders_of_one_name_that_are_not_used_are_not_said_to_be_read(tmp_path: Path) -> None:
    for letter in "abcde":
        scene(tmp_path, "images", "masks", letter)
    for name in ("Other", "other"):
        (tmp_path / name).mkdir()
    assert load(tmp_path).findings == ()


def test_two_folders_of_one_name_cannot_be_named_as_a_part(tmp_path: Path) -> None:
    for letter, part in zip("abcdef", ("Fold", "Fold", "fold", "fold", "held", "held"), strict=True):
        scene(tmp_path, f"images/{part}", f"masks/{part}", letter)
    with pytest.raises(UserError, match="has both Fold and fold"):
        load(tmp_path, train_parts=["fold"], test_parts=["held"])


def test_a_test_part_without_masks_is_refused_with_the_way_out(tmp_path: Path) -> None:
    for letter, part in zip("abcd", ("train", "train", "train", "val"), strict=True):
        scene(tmp_path, f"images/{part}", f"masks/{part}", letter)
    scene(tmp_path, "images/test", None, "e")
    with pytest.raises(UserError, match=r"has no mask for any scene to test on.*--loading.test_parts"):
        load(tmp_path)
    assert names(load(tmp_path, test_parts=["val"])) == ("abc", "d")


MASK_NAMES = {
    "mask after": ("{}", "{}_mask"),
    "mask before": ("{}", "mask-{}"),
    "gt": ("{}", "{}.gt"),
    "segmentation": ("{}", "{}_segmentation"),
    "words in both": ("{}_image", "{}_label"),
    "one word in the images": ("img_{}", "img_{}_mask"),
    "Cityscapes": ("{}_leftImg8bit", "{}_gtFine_labelIds"),
    "CamVid": ("{}", "{}_L"),
    "another case": ("Scene{}", "scene{}"),
    "another form of Unicode": ("\u00e9{}", "e\u0301{}"),
}


@pytest.mark.parametrize("name", MASK_NAMES)
def test_a_mask_belongs_to_the_image_of_its_name(name: str, tmp_path: Path) -> None:
    image, mask = MASK_NAMES[name]
    for place in range(1, 12):  # 1 and 11: one name is part of the other
        scene(tmp_path, "images", "masks", image.format(place), mask.format(place))
    made = load(tmp_path)
    assert len(made.train) + len(made.test) == 11
    for split in (made.train, made.test):
        for place in range(len(split)):
            paths = split.files(place)  # type: ignore[attr-defined]
            digits = [
                "".join(letter for letter in Path(path).stem.replace("8bit", "") if letter.isdigit()) for path in paths
            ]
            assert digits[0] == digits[1]


def test_names_that_differ_otherwise_are_shown_and_none_is_guessed(tmp_path: Path) -> None:
    for letter in "abc":
        scene(tmp_path, "images", "masks", letter, f"{letter}_other")
    with pytest.raises(UserError, match="the names differ: a.png and a_other.png; a mask needs its image's name"):
        load(tmp_path)
    for letter in "abc":
        scene(tmp_path, "images", "masks", letter)
    scene(tmp_path, "images", "masks", "d", "d_mask")
    scene(tmp_path, "images", "masks", "d", "d_gt")
    made = load(tmp_path)
    assert len(made.train) + len(made.test) == 3
    assert [line.partition(":")[0] for line in made.findings] == ["no image", "no mask"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"classes.txt": "a\nA\n"}, "names the class 'A' twice"),
        ({"classes.txt": "a\nb\n", "labels.txt": "a\nc\n"}, "name different classes"),
        ({"classes.txt": "0 0 300 a\n1 1 1 b\n"}, "must be 0 to 255"),
        ({"classes.txt": "0 0 0 a\n0 0 0 b\n"}, "gives 'b' the colour of another class"),
        ({"classes.csv": "name,value\na,3\nb,3\n"}, "gives 'b' the value of another class"),
        ({"classes.txt": "a\nb\n", "Classes.txt": "b\na\n"}, "has both Classes.txt and classes.txt"),
        ({"classes.txt": "a\n"}, "names 1 class, but must name 2"),
    ],
)
def test_class_files_that_make_no_sense_are_refused(files: dict[str, str], words: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words):
        class_table(tmp_path)


def test_class_files_agree_and_the_one_with_colours_is_used(tmp_path: Path) -> None:
    assert class_table(tmp_path) is None
    (tmp_path / "Classes.TXT").write_text("\ufeffsky\nroad\n", encoding="utf-8")
    found = class_table(tmp_path)
    assert found is not None
    assert (found.names, found.colours, found.values) == (("sky", "road"), None, None)
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nroad,1,2,3\nSky,0,0,255\nroad,9,9,9\n")
    found = class_table(tmp_path)
    assert found is not None
    assert (found.names, found.colours) == (("road", "Sky"), {0x010203: 0, 0x0000FF: 1, 0x090909: 0})
