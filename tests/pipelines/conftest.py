from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldshift.cluster import ClusterConfig
from fieldshift.data import LoadingConfig
from fieldshift.search import SearchConfig
from fieldshift.training import Recipe

SMALL = LoadingConfig(train_limit=160, test_limit=80)
HERE = ClusterConfig(workers=0, trials_at_once=0)
SEARCH = SearchConfig(epochs=1, tune_epochs=0, batch=32)
SIDE = 24


def small(out: Path, *, resume: bool = False, epochs: int = 1) -> object:
    import pipelines

    return pipelines.study(
        out=str(out), resume=resume, arms=["none", "affine", "das", "replicate"], seeds=2, frame_counts=[1, 3],
        average_copies=2, search=SEARCH, recipe=Recipe(epochs=epochs, batch=32), loading=SMALL, cluster=HERE,
    )  # fmt: skip


@pytest.fixture(scope="session")
def run_study() -> Callable[..., object]:
    """Runs a whole study in this process, small enough for a test, into the folder given."""
    return small


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of such a study; tests look at what it leaves."""
    out = tmp_path_factory.mktemp("study") / "study"
    small(out)
    return out


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright squares on a dark ground in the VOC layout, a void line around each."""
    root = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("ground\nsquare\n")
    for part, count in (("train", 12), ("test", 7)):
        names = [f"{part}{number}" for number in range(count)]
        (root / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            mask = np.zeros((SIDE, SIDE), np.uint8)
            y, x = rng.integers(1, SIDE - 9, 2)
            mask[y - 1 : y + 9, x - 1 : x + 9] = 255
            mask[y : y + 8, x : x + 8] = 1
            pixels = np.where(mask == 1, 200, 60).astype(np.uint8) + rng.integers(0, 40, mask.shape, dtype=np.uint8)
            Image.fromarray(np.repeat(pixels[..., None], 3, 2)).save(root / "JPEGImages" / f"{name}.jpg")
            Image.fromarray(mask).save(root / "SegmentationClass" / f"{name}.png")
    return root
