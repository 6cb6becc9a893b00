"""Published data sets: read from small folders made here in exactly the layout that their authors distribute."""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from fieldshift.data import BadFileError, LoadingConfig, catalogue, known_datasets, load_dataset
from fieldshift.data.names import DOWNLOADED
from fieldshift.data.published.sets import PUBLISHED
from fieldshift.errors import UserError

Draw = Callable[..., Image.Image]


def random_images(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> dict[str, np.ndarray]:
    """Python pickles of 20 images per batch: rows of 3,072 bytes, red first, as published."""
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    monkeypatch.setattr(kind, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda path, md5: True)
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    images: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    key = "labels" if name == "cifar10" else "fine_labels"
    for number, (file, _) in enumerate([*kind.train_list, *kind.test_list]):
        rows = random_images(number, 20, 3072)
        images["test" if file.startswith("test") else "train"].append(rows)
        content = {"data": rows, key: [place % 10 for place in range(20)]}
        (folder / file).write_bytes(pickle.dumps(content))
    names = [f"kind {number}" for number in range(10 if name == "cifar10" else 100)]
    meta = {"label_names": names, "fine_label_names": names}
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps(meta))
    return {part: np.concatenate(rows).reshape(-1, 3, 32, 32) for part, rows in images.items()}


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_from_its_batches(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_cifar(tmp_path, monkeypatch, name)
    made = load_dataset(name, root=tmp_path)
    assert made.classes[1] == "kind 1"
    assert len(made.classes) == PUBLISHED[name].class_count
    for part, split in (("train", made.train), ("test", made.test)):
        images, labels = split.gather(torch.arange(len(split)))
        assert np.array_equal(images.numpy(), written[part])
        assert labels.tolist() == [place % 10 for place in range(20)] * (len(split) // 20)


def test_cifar_is_read_from_an_npz_of_its_name(tmp_path: Path) -> None:
    images, labels = random_images(0, 20, 32, 32, 3), np.arange(20) % 10
    np.savez(tmp_path / "cifar10.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    made = load_dataset("cifar10", root=tmp_path)
    assert made.classes[3] == "cat"
    assert np.array_equal(made.train.gather(torch.arange(20))[0].permute(0, 2, 3, 1).numpy(), images)


def test_damaged_cifar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps({}))
    with pytest.raises(UserError, match="cannot be read .* delete it and download it again"):
        load_dataset("cifar10", root=tmp_path)


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_is_read_from_its_idx_files(packed: bool, tmp_path: Path) -> None:
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    written = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = random_images(len(prefix), 12, 28, 28), np.arange(12, dtype=np.uint8) % 10
        for name, array, magic in (("images-idx3", images, 2051), ("labels-idx1", labels, 2049)):
            content = struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()
            (folder / f"{prefix}-{name}-ubyte").write_bytes(content)
            if packed:
                (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(content))
        written[part] = images
    made = load_dataset("fashion-mnist", root=tmp_path)
    assert (made.channels, made.size, made.classes[9]) == (1, (28, 28), "boot")
    for part, split in (("train", made.train), ("test", made.test)):
        images_seen, labels_seen = split.gather(torch.arange(12))
        assert np.array_equal(images_seen[:, 0].numpy(), written[part])
        assert labels_seen.tolist() == [place % 10 for place in range(12)]


def test_tiny_imagenet_takes_its_val_labels_from_the_annotations(tmp_path: Path, picture: Draw) -> None:
    root = tmp_path / "tiny-imagenet-200"
    wnids = ["n02", "n01", "n03"]
    for number, wnid in enumerate(wnids):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        (folder.parent / f"{wnid}_boxes.txt").write_text("")
        for place in range(2):
            mode = "L" if place else "RGB"  # some of the published images are grey
            picture(number * 2 + place, (64, 64), mode).save(folder / f"{wnid}_{place}.JPEG")
    (root / "val" / "images").mkdir(parents=True)
    for place, _wnid in enumerate(("n03", "n01")):
        picture(50 + place, (64, 64)).save(root / "val" / "images" / f"val_{place}.JPEG")
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn03\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n")
    (root / "words.txt").write_text("n01\tgoldfish, carp\nn02\tfire salamander\nn03\tbullfrog\n")
    made = load_dataset("tiny-imagenet", root=tmp_path)
    assert made.classes == ("goldfish, carp", "fire salamander", "bullfrog")
    assert made.train.targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert made.test.targets.tolist() == [2, 0]
    assert made.train.gather(torch.arange(6))[0].shape == (6, 3, 64, 64)
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn03\t0\t0\t9\t9\n")
    with pytest.raises(BadFileError, match="no class in val_annotations.txt"):
        load_dataset("tiny-imagenet", root=tmp_path)


def test_imagenet_is_cut_as_is_the_custom(tmp_path: Path, picture: Draw) -> None:
    root = tmp_path / "imagenet"
    for part in ("train", "val"):
        for number, wnid in enumerate(("n01440764", "n01443537")):
            (root / part / wnid).mkdir(parents=True)
            picture(number, (300, 280)).save(root / part / wnid / f"{part}_{number}.JPEG")
    made = load_dataset("imagenet", root=tmp_path)
    assert (made.size, made.mean, made.std) == ((224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert made.classes == ("n01440764", "n01443537")
    torch.save(({"n01440764": ("tench", "Tinca tinca"), "n01443537": ("goldfish",)}, ["n01440764"]), root / "meta.bin")
    assert load_dataset("imagenet", root=tmp_path).classes == ("tench, Tinca tinca", "goldfish")
    (root / "val" / "n01443537").rename(root / "val" / "n9")
    with pytest.raises(UserError, match="other classes in val than in train"):
        load_dataset("imagenet", root=tmp_path)


def test_voc_keeps_its_pixels_its_class_numbers_and_its_ignored_edges(tmp_path: Path, picture: Draw) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "Annotations"):
        (root / folder).mkdir(parents=True)
    labels = np.zeros((60, 90), dtype=np.uint8)
    labels[10:20], labels[20:30], labels[30:32] = 15, 20, 255
    for name in ("2007_000032", "2007_000033"):
        picture(3, (90, 60)).save(root / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(labels)
        mask.putpalette([(value * 7) % 256 for value in range(768)])
        mask.save(root / "SegmentationClass" / f"{name}.png")
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_000032\n")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_000033\n")
    made = load_dataset("voc2012", root=tmp_path)
    assert (made.size, len(made.classes), made.classes[15], made.classes[20]) == (
        (500, 500),
        21,
        "person",
        "tv/monitor",
    )
    images, masks = made.train.gather(torch.tensor([0]))
    stored = np.array(Image.open(root / "JPEGImages" / "2007_000032.jpg"))
    assert np.array_equal(images[0, :, :60, :90].permute(1, 2, 0).numpy(), stored)
    assert np.array_equal(masks[0, :60, :90].numpy(), labels)
    assert (masks[0, 60:] == 255).all()
    assert (masks[0, :, 90:] == 255).all()


def test_cityscapes_ids_become_train_ids(tmp_path: Path, picture: Draw) -> None:
    root = tmp_path / "cityscapes"
    every_id = np.arange(34, dtype=np.uint8).repeat(2)
    labels = np.tile(every_id, (40, 1))
    for part, city in (("train", "aachen"), ("train", "bochum"), ("val", "munster"), ("test", "berlin")):
        for kind in ("leftImg8bit", "gtFine"):
            (root / kind / part / city).mkdir(parents=True)
        stem = f"{city}_000000_000019"
        picture(1, (68, 40)).save(root / "leftImg8bit" / part / city / f"{stem}_leftImg8bit.png")
        Image.fromarray(labels).save(root / "gtFine" / part / city / f"{stem}_gtFine_labelIds.png")
    made = load_dataset("cityscapes", root=tmp_path, loading=LoadingConfig(size=(40, 68)))
    assert (len(made.train), len(made.test), len(made.classes)) == (2, 1, 19)
    assert (made.classes[0], made.classes[13], made.classes[18]) == ("road", "car", "bicycle")
    mask = made.test.gather(torch.tensor([0]))[1][0, 0]
    published = {kind.id: kind.train_id for kind in datasets.Cityscapes.classes}
    assert mask.tolist() == [published[value] if published[value] < 19 else 255 for value in every_id.tolist()]
    assert load_dataset("cityscapes", root=tmp_path, train_limit=1).size == (1024, 2048)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_set_that_is_not_there_says_where_it_was_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        load_dataset(name, root=tmp_path)
    rows = {row.name: row for row in catalogue(tmp_path)}
    assert not rows[name].present
    assert all(place in str(refusal.value) for place in rows[name].looked_in)
    if name not in DOWNLOADED:
        with pytest.raises(UserError, match="cannot be downloaded"):
            load_dataset(name, root=tmp_path, loading=LoadingConfig(download=True))


def test_the_catalogue_has_a_row_for_every_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = catalogue(tmp_path)
    assert [row.name for row in rows] == known_datasets()
    assert all(row.licence and row.size and row.samples and row.classes >= 10 for row in rows)
    (tmp_path / "FashionMNIST" / "raw").mkdir(parents=True)
    monkeypatch.setenv("FIELDSHIFT_DATA", str(tmp_path))
    assert [row.name for row in catalogue() if row.present] == [*known_datasets()[:2], "fashion-mnist"]


@pytest.mark.parametrize(
    ("spec", "settings", "words"),
    [
        ("cifar11", {}, "Did you mean 'cifar10'"),
        ("digit-pairs-right", {}, "digit-pairs-left"),
        ("digit-pairs-left", {"loading": LoadingConfig(size=(4, 4))}, "do not apply"),
        ("zip:somewhere", {}, "Known: folder:PATH, npz:PATH, voc:PATH"),
        ("folder:", {}, "names no path"),
        ("npz:x.npz", {"loading": LoadingConfig(download=True)}, "does not apply"),
    ],
)
def test_specs_that_name_nothing_are_refused(spec: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_dataset(spec, **settings)


def test_tasks_that_are_none_are_refused() -> None:
    with pytest.raises(UserError, match="detection"):
        load_dataset("digit-pairs-left", task="detection")  # type: ignore[arg-type]
