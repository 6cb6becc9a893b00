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
from fieldshift.data.class_names import with_classes
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


@pytest.mark.parametrize("other", [as_rgb, as_deep], ids=["grey in RGB", "16 bits"])
def test_a_meaning_that_follows_from_other_files_alone_is_refused(other: Any, tmp_path: Path) -> None:
    """Of 255, which only files of one kind have, and where it would be a class."""
    greys, others = numbers_in([0, 1], 8), numbers_in([0, 255], 4, seed=1)
    spec = write_scenes(tmp_path / "set", [*map(as_grey, greys), *map(other, others)], "ground\nroad\n")
    with pytest.raises(UserError, match="hold 255 in grey .* where it has another meaning by itself"):
        load_dataset(spec)
    (tmp_path / "set" / "labels.csv").write_text("name,value\nground,0\nroad,1\nroad,255\n")
    for labels in labels_by_name(load_dataset(spec)).values():
        assert set(np.unique(labels)) == {0, 1}


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
    assert found.classes == trained.classes
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


KINDS = {"grey": as_grey, "rgb": as_rgb, "deep": as_deep, "palette": as_palette}


def trained_on(folder: Path, classes: str | None, **numbers: list[int]) -> Identity:
    """The identity of scenes whose masks are of several kinds, eight of each."""
    masks = [KINDS[kind](mask) for kind, values in numbers.items() for mask in numbers_in(values, 8)]
    return kept(load_dataset(write_scenes(folder, masks, classes)))


def read_later(like: Identity, folder: Path, kind: str, values: list[int]) -> dict[int, int]:
    """The label of each number in new masks of a kind of file (npz: of an array)."""
    new = numbers_in(values, 6, seed=1)
    if kind == "npz":
        images = np.random.default_rng(1).integers(0, 255, (6, SIDE, SIDE), dtype=np.uint8)
        folder.mkdir()
        np.savez(
            folder / "new.npz",
            test_images=images,
            test_labels=np.stack(new),
            train_images=images,
            train_labels=np.stack(new),
        )
        found = load_dataset(f"npz:{folder / 'new.npz'}", like=like, whole=True)
        labels = list(found.test.gather(torch.arange(6))[1].numpy())
    else:
        spec = write_scenes(folder, [KINDS[kind](mask) for mask in new], None, first=100)
        found = load_dataset(spec, like=like, whole=True)
        labels = [each for _, each in sorted(labels_by_name(found).items())]
    assert with_classes(found, like.classes).classes == like.classes
    pairs = set(zip(np.stack(new).ravel().tolist(), np.stack(labels).ravel().tolist(), strict=True))
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


@pytest.mark.parametrize("kind", ["grey", "npz"])
@pytest.mark.parametrize("strays", [[0, 1, 50, 100], [0, 1]])
def test_a_number_between_those_of_the_training_is_no_class(kind: str, strays: list[int], tmp_path: Path) -> None:
    like = trained_on(tmp_path / "train", None, grey=[0, 50, 100])
    if strays == [0, 1]:  # as class numbers these would be the first two classes
        assert read_later(like, tmp_path / "new", kind, strays) == {0: 0, 1: 1}
        spec = f"npz:{tmp_path / 'new' / 'new.npz'}" if kind == "npz" else f"voc:{tmp_path / 'new'}"
        notes = load_dataset(spec, like=like, whole=True).findings
        assert any("numbers that the training did not have (1)" in note for note in notes)
        return
    with pytest.raises(UserError, match=r"no class has: 1\b|hold 1, which"):
        read_later(like, tmp_path / "new", kind, strays)


@pytest.mark.parametrize("first", ["grey", "rgb"])
@pytest.mark.parametrize("kind", ["grey", "rgb", "npz"])
def test_a_number_ignored_in_one_kind_of_file_is_ignored_later_in_all(first: str, kind: str, tmp_path: Path) -> None:
    second = "rgb" if first == "grey" else "grey"
    like = trained_on(tmp_path / "train", "ground\nroad\n", **{first: [0, 1, 255], second: [0, 1]})
    assert read_later(like, tmp_path / "new", kind, [0, 255]) == {0: 0, 255: 255}


def test_deep_masks_keep_their_meaning_where_large_numbers_are_missing(tmp_path: Path) -> None:
    like = trained_on(tmp_path / "train", None, deep=[0, 100, 200, 300])
    assert read_later(like, tmp_path / "new", "deep", [0, 100, 200]) == {0: 0, 100: 1, 200: 2}


@pytest.mark.parametrize("kind", ["grey", "npz"])
def test_a_number_that_a_palette_gave_another_class_is_refused(kind: str, tmp_path: Path) -> None:
    like = trained_on(tmp_path / "train", None, palette=[0, 2, 4])
    with pytest.raises(UserError, match="2 would be class .*palette in the training"):
        read_later(like, tmp_path / "new", kind, [0, 2])


def test_greys_that_are_colours_say_nothing_about_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "label_colors.txt").write_text("255 255 255 ground\n0 0 255 road\n0 255 0 car\n")
    colours = np.array([[255, 255, 255], [0, 0, 255], [0, 255, 0]], dtype=np.uint8)
    masks = [Image.fromarray(colours[mask]) for mask in numbers_in([0, 1, 2], 8)]
    white = Image.fromarray(np.full((SIDE, SIDE, 3), 255, dtype=np.uint8))
    like = kept(load_dataset(write_scenes(folder, [*masks, white], None)))
    assert read_later(like, tmp_path / "new", "grey", [0, 1, 2, 255]) == {0: 0, 1: 1, 2: 2, 255: 255}
    new = write_scenes(tmp_path / "colours", [*masks, white], None, first=100)  # without a file that names the colours
    later = load_dataset(new, like=like, whole=True)
    assert not any("new mask numbers" in note for note in later.findings)
    found = labels_by_name(later)
    for number, labels in enumerate([*numbers_in([0, 1, 2], 8), np.zeros((SIDE, SIDE))], 100):
        np.testing.assert_array_equal(found[f"{number:03}"], labels)


def test_a_scene_of_the_run_whose_mask_has_changed_stops(tmp_path: Path) -> None:
    spec = write_scenes(tmp_path / "set", [*map(as_grey, numbers_in([0, 255], 20))], "ground\nroad\n")
    like = kept(load_dataset(spec))
    known = tmp_path / "set" / "masks" / f"{Path(like.test.names[0]).stem}.png"
    changed = np.array(Image.open(known))
    changed[0, 0] = 9
    Image.fromarray(changed).save(known)
    with pytest.raises(UserError, match="no class has: 9"):
        load_dataset(spec, like=like)


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
