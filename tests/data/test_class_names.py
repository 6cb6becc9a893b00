"""Classes matched by name: other orders get the network's numbers, other names are refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldshift.data import IGNORE, load_dataset, with_classes
from fieldshift.errors import UserError


@pytest.mark.parametrize("order", [*permutations(("sky", "road", "tree"))])
def test_masks_get_the_numbers_of_the_names(order: tuple[str, ...], scene_folder: Path) -> None:
    plain = load_dataset(f"voc:{scene_folder}")
    renamed = with_classes(plain, order)
    before, after = (each.test.gather(torch.arange(2))[1] for each in (plain, renamed))
    assert renamed.classes == order
    assert torch.equal(before == IGNORE, after == IGNORE)
    for number, name in enumerate(plain.classes):
        assert torch.equal(before == number, after == order.index(name))
    assert renamed.test.files(1) == plain.test.files(1)  # type: ignore[attr-defined]


def test_classes_get_the_numbers_of_the_names(image_folder: Path) -> None:
    plain = load_dataset(f"folder:{image_folder}")
    turned = with_classes(plain, ("dog", "cat"))
    for split, other in ((plain.test, turned.test), (plain.train, turned.train)):
        images, labels = split.gather(torch.arange(len(split)))
        same, numbers = other.gather(torch.arange(len(split)))
        assert torch.equal(images, same)
        assert torch.equal(numbers, 1 - labels)
        assert torch.equal(other.targets, numbers)
    part = turned.test.subset(torch.tensor([3, 0])).to("cpu")
    assert part.targets.tolist() == part.gather(torch.arange(2))[1].tolist() == [0, 1]
    assert with_classes(plain, ("cat", "dog")) is plain


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("01", "02", "10"), r"it has 2 \('cat', 'dog'\), the network 3 \('01', '02', '10'\)"),
        (("cat", "fox"), r"it has 2 \('dog', 'cat'\), the network 2 \('fox', 'cat'\)"),
        (("cat", "dog", "fox"), "the network 3"),
        (("cat",), "the network 1"),
    ],
)
def test_other_names_are_refused_in_one_line(classes: tuple[str, ...], said: str, image_folder: Path) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        with_classes(load_dataset(f"folder:{image_folder}"), classes)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_name_given_twice_matches_nothing(tmp_path: Path) -> None:
    for folder in ("JPEGImages", "SegmentationClass"):
        (tmp_path / folder).mkdir()
        for number in range(4):
            labels = (np.arange(64, dtype=np.uint8).reshape(8, 8) + number) % 3
            Image.fromarray(labels).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "classes.txt").write_text("a\nc\nb\n")
    made = load_dataset(f"voc:{tmp_path}")
    with pytest.raises(UserError, match="are not the network's"):
        with_classes(replace(made, classes=("a", "a", "b")), ("a", "b", "a"))
    (tmp_path / "classes.txt").write_text("a\na\nb\n")
    with pytest.raises(UserError, match="names the class 'a' twice"):
        load_dataset(f"voc:{tmp_path}")
