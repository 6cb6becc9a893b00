"""A number in masks means one class: in all files of a set, and for as long as a network that was trained on it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from fieldshift.data import DataSet, Identity, LoadingConfig, load_dataset
from fieldshift.errors import UserError

SIDE = 12
Numbers = NDArray[np.int64]


def numbers_in(values: list[int], count: int, seed: int = 0) -> list[Numbers]:
    """Masks (SIDE, SIDE) of random blocks that together have all values, the first in most pixels."""
    rng = np.random.default_rng(seed)
    masks = []
    for place in range(count):
        mask = np.full((SIDE, SIDE), values[0])
        for value in values if place < 2 else rng.permutation(values)[:2]:
            y, x = rng.integers(0, SIDE - 4, 2)
            mask[y : y + 4, x : x + 4] = value
        mask[0, : len(values)] = values
        masks.append(mask)
    return masks


def as_grey(mask: Numbers) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8))


def as_rgb(mask: Numbers) -> Image.Image:
    return as_grey(mask).convert("RGB")


def as_deep(mask: Numbers) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint16))


def as_palette(mask: Numbers) -> Image.Image:
    image = Image.fromarray(mask.astype(np.uint8), mode="P")
    image.putpalette([channel for number in range(256) for channel in (number, 255 - number, 7)])
    return image


def write_scenes(root: Path, masks: list[Image.Image], classes: str | None, first: int = 0) -> str:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for number, mask in enumerate(masks, first):
        pixels = np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number:03}.png")
        mask.save(root / "masks" / f"{number:03}.png")
    if classes is not None:
        (root / "classes.txt").write_text(classes)
    return f"voc:{root}"


def labels_by_name(dataset: DataSet) -> dict[str, Numbers]:
    """The labels of every scene, by the name of its file."""
    found = {}
    for split in (dataset.train, dataset.test):
        _, targets = split.gather(torch.arange(len(split)))
        for place, labels in enumerate(targets):
            image, _ = split.files(place)  # type: ignore[attr-defined]
            found[Path(image).stem] = labels.numpy()
    return found


CODES = {
    "steps": ([0, 100, 200], None, {0: 0, 100: 1, 200: 2}),
    "the whole range": ([0, 128, 255], "ground\nroad\ncar\n", {0: 0, 128: 1, 255: 2}),
    "class numbers": ([0, 1, 255], "ground\nroad\n", {0: 0, 1: 1, 255: 255}),
}


@pytest.mark.parametrize("other", [as_rgb, as_deep], ids=["grey in RGB", "16 bits"])
@pytest.mark.parametrize("name", CODES)
def test_a_number_is_one_class_in_files_of_several_kinds(name: str, other: Any, tmp_path: Path) -> None:
    """Some of the files have the first and the last number alone, which would have another meaning by themselves."""
    values, classes, meaning = CODES[name]
    every, few = numbers_in(values, 12), numbers_in([values[0], values[-1]], 4, seed=1)
    spec = write_scenes(tmp_path / "set", [*map(as_grey, every), *map(other, few)], classes)
    found = labels_by_name(load_dataset(spec))
    for number, mask in enumerate([*every, *few]):
        expected = np.vectorize(meaning.__getitem__)(mask)
        np.testing.assert_array_equal(found[f"{number:03}"], expected)


def test_a_number_with_two_meanings_is_refused(tmp_path: Path) -> None:
    greys, palettes = numbers_in([0, 255], 8), numbers_in([0, 1, 255], 8, seed=1)
    spec = write_scenes(tmp_path / "set", [*map(as_grey, greys), *map(as_palette, palettes)], "ground\nroad\n")
    with pytest.raises(UserError, match=r"255 would be class road \(grey of 8 bit.*ignored \(palette.*labels.csv"):
        load_dataset(spec)
    (tmp_path / "set" / "labels.csv").write_text("name,value\nground,0\nroad,1\nroad,255\n")
    for labels in labels_by_name(load_dataset(spec)).values():
        assert set(np.unique(labels)) <= {0, 1}


def kept(dataset: DataSet) -> Identity:
    """The identity as a run stores it."""
    assert dataset.identity is not None
    return Identity.from_plain(json.loads(json.dumps(dataset.identity.to_plain())))


# numbers of the training, its classes, numbers of the new masks, and what the new ones mean
USED_LATER = {
    "ignored, no defect": ([0, 1, 255], "ground\nroad\n", [0, 255], {0: 0, 255: 255}),
    "a class between is missing": ([0, 128, 255], "ground\nroad\ncar\n", [0, 255], {0: 0, 255: 2}),
    "two of three steps": ([0, 100, 200], None, [0, 200], {0: 0, 200: 2}),
    "steps, and ignored pixels": ([0, 100, 200], None, [0, 200, 255], {0: 0, 200: 2, 255: 255}),
    "ignored pixels for the first time": ([0, 1, 2], "ground\nroad\ncar\n", [0, 1, 255], {0: 0, 1: 1, 255: 255}),
    "another tool, no number in common": ([0, 1], "ground\nroad\n", [0, 255], {0: 0, 255: 1}),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("voc", name) for name in USED_LATER]
    + [("npz", name) for name, (values, *_) in USED_LATER.items() if 255 not in values or 128 not in values],
)  # arrays have no class names, without which 0, 128 and 255 are refused
def test_new_masks_mean_what_they_meant_in_training(kind: str, name: str, tmp_path: Path) -> None:
    values, classes, later, meaning = USED_LATER[name]
    masks, new = numbers_in(values, 12), numbers_in(later, 6, seed=1)
    if kind == "voc":
        spec = write_scenes(tmp_path / "train", [*map(as_grey, masks)], classes)
        other = write_scenes(tmp_path / "new", [*map(as_grey, new)], None, first=100)
    else:
        spec, other = (f"npz:{tmp_path / name}.npz" for name in ("train", "new"))
        for file, drawn in ((spec, masks), (other, new)):
            images = np.random.default_rng(len(drawn)).integers(0, 255, (len(drawn), SIDE, SIDE), dtype=np.uint8)
            np.savez(file.partition(":")[2], train_images=images, train_labels=np.stack(drawn))
    trained = load_dataset(spec)
    found = load_dataset(other, like=kept(trained), whole=True)
    assert found.classes == trained.classes or kind == "npz"
    assert len(found.classes) == len(trained.classes)
    _, targets = found.test.gather(torch.arange(len(found.test)))
    expected = [np.vectorize(meaning.__getitem__)(mask).tobytes() for mask in new]
    assert sorted(labels.astype(np.int64).tobytes() for labels in targets.numpy()) == sorted(expected)


def test_a_table_of_values_decides_for_new_masks(tmp_path: Path) -> None:
    spec = write_scenes(tmp_path / "train", [*map(as_grey, numbers_in([0, 1, 255], 12))], "ground\nroad\n")
    other = write_scenes(tmp_path / "new", [*map(as_grey, numbers_in([0, 255], 6))], "ground\nroad\n", first=100)
    like = kept(load_dataset(spec))
    found = load_dataset(other, like=like, whole=True)
    assert any("as in the training" in line for line in found.findings)
    assert "as in the training" in found.protocol
    (tmp_path / "new" / "labels.csv").write_text("name,value\nground,0\nroad,255\n")
    found = load_dataset(other, like=like, whole=True)
    assert not any("as in the training" in line for line in (*found.findings, found.protocol))
    assert set(np.unique(np.stack(list(labels_by_name(found).values())))) == {0, 1}


def test_scenes_that_are_added_do_not_change_what_is_tested(tmp_path: Path) -> None:
    masks = [*map(as_grey, numbers_in([0, 255], 20))]
    spec = write_scenes(tmp_path / "set", masks, "ground\nroad\n")
    trained = load_dataset(spec)
    write_scenes(tmp_path / "set", [*map(as_grey, numbers_in([0, 1], 3, seed=1))], None, first=100)
    grown = load_dataset(spec, like=kept(trained))
    assert labels_by_name(grown).keys() == labels_by_name(trained).keys()
    for name, labels in labels_by_name(trained).items():
        np.testing.assert_array_equal(labels_by_name(grown)[name], labels)
    assert any("100.png" in line and "left out" in line for line in grown.findings)


def test_a_number_without_a_meaning_stops(tmp_path: Path) -> None:
    spec = write_scenes(tmp_path / "train", [*map(as_grey, numbers_in([0, 100, 200], 12))], None)
    like = kept(load_dataset(spec))
    other = write_scenes(tmp_path / "new", [*map(as_grey, numbers_in([0, 50, 200], 6))], None, first=100)
    with pytest.raises(UserError, match="holds labels that no class has: 50"):
        load_dataset(other, like=like, whole=True)
    npz = tmp_path / "new.npz"
    np.savez(npz, train_images=np.zeros((6, SIDE, SIDE), np.uint8), train_labels=np.stack(numbers_in([0, 50, 200], 6)))
    with pytest.raises(UserError, match="hold 50, which have no meaning beside those of the training"):
        load_dataset(f"npz:{npz}", like=like, whole=True, loading=LoadingConfig())
