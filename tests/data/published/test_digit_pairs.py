"""The built-in scenes are what their recipe says, made from the seed alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from fieldshift.data import load_dataset
from fieldshift.data.names import AXES
from fieldshift.data.published.digit_pairs import scenes, source_digits
from fieldshift.errors import UserError

DIGITS = load_digits()


def find(image: np.ndarray, source: int) -> tuple[int, int]:
    """Where the digit stands: the window of the scene with the least squared difference to it (slow loops)."""
    stroke = DIGITS.images[source] / 16
    best = min(
        (float(((image[row : row + 8, column : column + 8] - stroke) ** 2).sum()), row, column)
        for row in range(33)
        for column in range(33)
    )
    return best[1], best[2]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("train", [True, False])
def test_scenes_follow_the_recipe(axis: str, train: bool) -> None:
    made = scenes(axis, train, seed=3, count=40)
    pool = set(source_digits(train, seed=3).tolist())
    for image, label, mask, (labelled, other) in zip(
        made["images"], made["labels"], made["masks"], made["sources"], strict=True
    ):
        assert {int(labelled), int(other)} <= pool
        assert DIGITS.target[labelled] == label != DIGITS.target[other]
        first, second = find(image[0] / 255, labelled), find(image[0] / 255, other)
        down, right = second[0] - first[0], second[1] - first[1]
        along, across = (right, down) if axis == "left" else (down, right)
        assert 16 <= along <= 20
        assert -2 <= across <= 2
        expected = np.zeros((40, 40), dtype=np.uint8)
        window = np.s_[first[0] : first[0] + 8, first[1] : first[1] + 8]
        expected[window] = np.where(DIGITS.images[labelled] > 0, label + 1, 0)
        assert np.array_equal(mask, expected)


def test_noise_is_as_large_as_stated() -> None:
    made = scenes("left", True, seed=0, count=200)
    empty = made["images"][:, 0, 0, :][made["masks"][:, 0, :] == 0] / 255
    # Negative noise is cut at zero, so half of the second moment is left.
    assert np.sqrt(2 * np.mean(empty[empty < 0.3] ** 2)) == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("seed", [0, 7])
def test_train_and_test_are_made_of_different_digits(seed: int) -> None:
    train, test = source_digits(True, seed), source_digits(False, seed)
    assert (len(train), len(test)) == (1200, 597)
    assert sorted([*train, *test]) == list(range(1797))


@pytest.mark.parametrize("axis", AXES)
def test_both_tasks_show_the_same_scenes(axis: str) -> None:
    plain = load_dataset(f"digit-pairs-{axis}", train_limit=30, test_limit=20)
    masked = load_dataset(f"digit-pairs-{axis}", task="segmentation", train_limit=30, test_limit=20)
    everything = torch.arange(30)
    images, labels = plain.train.gather(everything)
    scenes_again, masks = masked.train.gather(everything)
    assert torch.equal(images, scenes_again)
    assert images.shape == (30, 1, 40, 40)
    assert images.dtype == torch.uint8
    assert torch.equal(masks.amax((1, 2)), labels + 1)
    assert (plain.ignore_index, masked.ignore_index) == (None, 255)
    assert masked.classes == ("background", *plain.classes)
    assert len(plain.test) == 20
    assert plain.digest != masked.digest


def test_default_size_is_that_of_the_study() -> None:
    made = load_dataset("digit-pairs-left")
    assert (len(made.train), len(made.test), made.size, made.channels) == (2000, 2000, (40, 40), 1)
    pixels = made.train.gather(torch.arange(2000))[0].double() / 255
    assert made.mean == pytest.approx([float(pixels.mean())])
    assert made.std == pytest.approx([float(pixels.std(correction=0))])
    assert torch.bincount(made.train.targets).min() > 100


def test_same_seed_gives_the_same_data_with_and_without_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(seed: int = 0) -> str:
        return load_dataset("digit-pairs-left", seed=seed, train_limit=12, test_limit=12).digest

    monkeypatch.setenv("FIELDSHIFT_CACHE", str(tmp_path / "one"))
    made, cached = digest(), digest()
    monkeypatch.setenv("FIELDSHIFT_CACHE", str(tmp_path / "two"))
    assert made == cached == digest()
    assert digest(seed=1) != made
    for path in (tmp_path / "two").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert digest() == made
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("FIELDSHIFT_CACHE", str(tmp_path / "a file" / "inside"))
    assert digest() == made


def test_fewer_scenes_are_the_first_ones_of_more() -> None:
    few = load_dataset("digit-pairs-top", train_limit=5).train.gather(torch.arange(5))[0]
    many = load_dataset("digit-pairs-top", train_limit=9).train.gather(torch.arange(5))[0]
    assert torch.equal(few, many)


@pytest.mark.parametrize("limits", [{"train_limit": 0}, {"test_limit": -3}])
def test_a_number_of_scenes_below_one_is_refused(limits: dict[str, int]) -> None:
    with pytest.raises(UserError, match="at least 1"):
        load_dataset("digit-pairs-left", **limits)  # type: ignore[arg-type]
