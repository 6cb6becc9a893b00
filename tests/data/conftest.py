"""Small pictures and folders to read, made by the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Draw = Callable[..., Image.Image]


@pytest.fixture
def picture() -> Draw:
    """A smooth picture that no other seed gives: `picture(seed, size=(width, height), mode="RGB")`."""

    def draw(seed: int = 0, size: tuple[int, int] = (20, 16), mode: str = "RGB") -> Image.Image:
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR).convert(mode)

    return draw


@pytest.fixture
def image_folder(tmp_path: Path, picture: Draw) -> Path:
    """train/ and test/ with the classes "cat" and "dog", four and two pictures each, 20 x 16 pixels."""
    root = tmp_path / "pets"
    seed = 0
    for part, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                picture(seed).save(folder / f"{number}.png")
                seed += 1
    return root


@pytest.fixture
def scene_folder(tmp_path: Path, picture: Draw) -> Path:
    """A VOC layout of six scenes (20 x 16) with palette masks of three classes, four to train and two to test."""
    root = tmp_path / "scenes"
    lists = root / "ImageSets" / "Segmentation"
    for folder in (root / "JPEGImages", root / "SegmentationClass", lists):
        folder.mkdir(parents=True)
    for number in range(6):
        picture(number).save(root / "JPEGImages" / f"s{number}.jpg")
        labels = np.arange(320, dtype=np.uint8).reshape(16, 20) % 3
        labels[0] = 255
        mask = Image.fromarray(labels)
        mask.putpalette([value for colour in range(256) for value in (colour, 255 - colour, 7)])
        mask.save(root / "SegmentationClass" / f"s{number}.png")
    (lists / "train.txt").write_text("s0\ns1\ns2\ns3\n")
    (lists / "val.txt").write_text("s4\ns5\n")
    (root / "classes.txt").write_text("sky\nroad\ntree\n")
    return root
