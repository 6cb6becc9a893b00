"""Own arrays with MedMNIST's names: what they may be, and what is refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fieldshift.data import BadFileError, DataSet, LoadingConfig, load_dataset
from fieldshift.data.own import npz as own_npz_module
from fieldshift.data.problems import MeaninglessDataError
from fieldshift.errors import UserError

Arrays = dict[str, Any]


def arrays(*parts: str, shape: tuple[int, ...] = (6, 5), count: int = 9) -> Arrays:
    random = np.random.default_rng(0)
    made: Arrays = {}
    for part in parts or ("train", "val", "test"):
        made[f"{part}_images"] = random.integers(0, 256, (count, *shape), dtype=np.uint8)
        made[f"{part}_labels"] = (np.arange(count) % 3)[:, None]
    return made


def load(tmp_path: Path, content: Arrays, loading: LoadingConfig | None = None, **settings: Any) -> DataSet:
    np.savez(tmp_path / "own.npz", **content)
    return load_dataset(f"npz:{tmp_path / 'own.npz'}", loading=loading, **settings)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3)], ids=str)
def test_arrays_are_read_as_they_are(shape: tuple[int, ...], tmp_path: Path) -> None:
    content = arrays(shape=shape)
    made = load(tmp_path, content)
    for part, split in (("train", made.train), ("test", made.test)):
        images, labels = split.gather(torch.arange(9))
        expected = content[f"{part}_images"].reshape(9, 6, 5, -1)
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected)
        assert np.array_equal(labels.numpy(), content[f"{part}_labels"][:, 0])
    assert (made.classes, made.size, made.channels) == (("0", "1", "2"), (6, 5), 3 if shape[-1] == 3 else 1)
    assert "val is not used" in made.protocol


def test_parts_are_train_and_test_else_val_else_a_share(tmp_path: Path) -> None:
    assert "tested on val" in load(tmp_path, arrays("train", "val")).protocol
    apart = load(tmp_path, arrays("train", count=30))
    assert torch.bincount(apart.test.targets).tolist() == [2, 2, 2]
    assert load(tmp_path, arrays("train", "test", count=30), train_limit=6).train.targets.bincount().tolist() == [2] * 3


def test_masks_make_it_segmentation(tmp_path: Path) -> None:
    content = arrays("train", "test", shape=(4, 4, 3))
    for part in ("train", "test"):
        content[f"{part}_labels"] = np.random.default_rng(1).integers(0, 4, (9, 4, 4))
        content[f"{part}_labels"][0, 0] = 255
    made = load(tmp_path, content, task="segmentation")
    assert (made.task, len(made.classes), made.ignore_index) == ("segmentation", 4, 255)
    assert np.array_equal(made.train.gather(torch.arange(9))[1].numpy(), content["train_labels"])


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("an object array was unpickled",))


def test_object_arrays_are_never_unpickled(tmp_path: Path) -> None:
    for name in ("train_labels", "train_images", "something"):
        content = arrays()
        content[name] = np.array([Trap()], dtype=object)
        with pytest.raises(UserError, match=f"{name} is an array of Python objects"):
            load(tmp_path, content)


WRONG: dict[str, tuple[Arrays, str]] = {
    "float images": ({"train_images": np.zeros((9, 6, 5))}, "has the type float64, but must be uint8"),
    "wide images": ({"train_images": np.zeros((9, 6, 5), dtype=np.uint16)}, "but must be uint8"),
    "four channels": ({"train_images": np.zeros((9, 6, 5, 4), dtype=np.uint8)}, "1 or 3"),
    "flat images": ({"train_images": np.zeros((9, 30), dtype=np.uint8)}, "must be"),
    "single pixels": ({"train_images": np.zeros((9, 1, 1), dtype=np.uint8)}, "sides of 2"),
    "float labels": ({"train_labels": np.zeros(9)}, "whole numbers"),
    "text labels": ({"train_labels": np.array(["cat"] * 9)}, "whole numbers"),
    "several labels": ({"train_labels": np.zeros((9, 4), dtype=int)}, "several labels per sample"),
    "too few labels": ({"train_labels": np.zeros(8, dtype=int)}, r"is \(8,\), but must be"),
    "one class": ({"train_labels": np.zeros(9, dtype=int)}, "2 or more"),
    "another size": ({"test_images": np.zeros((9, 7, 5), dtype=np.uint8)}, "different shapes"),
    "no images": (
        {"train_images": np.zeros((0, 6, 5), dtype=np.uint8), "train_labels": np.zeros(0, dtype=int)},
        "no s",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_arrays_that_do_not_fit_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    change, words = WRONG[case]
    with pytest.raises(UserError, match=words) as refusal:
        load(tmp_path, {**arrays("train", "test"), **change})
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("value", [-1, 10**6, 2**63])
def test_labels_out_of_range_are_refused_or_left_out(value: int, tmp_path: Path) -> None:
    content = arrays("train", "test")
    content["train_labels"] = content["train_labels"].astype(np.uint64 if value > 2**62 else np.int64)
    content["train_labels"][4] = value
    with pytest.raises(BadFileError, match=rf"train_labels\[4\] holds the label {value}; number the classes from 0"):
        load(tmp_path, content)
    made = load(tmp_path, content, LoadingConfig(skip_unreadable=True))
    assert (len(made.train), made.skipped) == (8, 1)


def test_a_class_only_in_test_is_refused_or_left_out(tmp_path: Path) -> None:
    content = arrays("train", "test")
    content["test_labels"][5] = 3
    with pytest.raises(MeaninglessDataError, match=r"test_labels\[5\].* holds the class 3 that train lacks"):
        load(tmp_path, content)
    made = load(tmp_path, content, LoadingConfig(accept=["class-only-in-test"]))
    assert (len(made.test), len(made.classes)) == (8, 3)


@pytest.mark.parametrize("parts", [("train", "test"), ("train",)])
def test_a_class_without_a_test_sample_is_noted(parts: tuple[str, ...], tmp_path: Path) -> None:
    content = arrays(*parts)
    content["train_labels"][0] = 3
    made = load(tmp_path, content)
    assert any(
        line.startswith("class not in test: ") and "test_labels lacks the class" in line for line in made.findings
    )


def test_names_that_lack_a_partner_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds images, labels, but must hold train_images"):
        load(tmp_path, {"images": np.zeros(3), "labels": np.zeros(3)})
    content = arrays("train", "test")
    del content["test_labels"]
    with pytest.raises(UserError, match="no array test_labels"):
        load(tmp_path, content)


def test_files_that_are_no_npz_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.npz"
    with pytest.raises(UserError, match="does not exist"):
        load_dataset(f"npz:{path}")
    path.write_bytes(b"")
    with pytest.raises(UserError, match="is not an npz file"):
        load_dataset(f"npz:{path}")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", b"not an array")
    with pytest.raises(UserError):
        load_dataset(f"npz:{path}")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**50, 4, 4)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", header.getvalue())
    with pytest.raises(UserError, match=r"can be read"):
        load_dataset(f"npz:{path}")
    monkeypatch.setattr(own_npz_module, "LARGEST_BYTES", 100)
    with pytest.raises(UserError, match="decompresses to"):
        load(tmp_path, arrays())


def test_settings_for_files_do_not_apply(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"loading.size does not apply"):
        load(tmp_path, arrays(), LoadingConfig(size=(8, 8)))
    with pytest.raises(UserError, match="is for classification, not for segmentation"):
        load(tmp_path, arrays(), task="segmentation")
