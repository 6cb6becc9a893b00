from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldshift.cluster import ClusterConfig
from fieldshift.data import DataSet, LoadingConfig, load_dataset
from fieldshift.motions import Policy
from fieldshift.search import SearchConfig
from fieldshift.training import Recipe

SMALL = LoadingConfig(train_limit=160, test_limit=80)
HERE = ClusterConfig(workers=0, trials_at_once=0)
SEARCH = SearchConfig(epochs=1, tune_epochs=0, batch=32)
SIDE = 24


def small(out: Path, *, resume: bool = False, epochs: int = 1) -> object:
    import pipelines

    return pipelines.study(
        out=str(out), resume=resume, arms=["none", "affine", "das", "replicate", "das-folded+affine"], seeds=2,
        frame_counts=[1, 3], tta_copies=2, search=SEARCH, recipe=Recipe(epochs=epochs, batch=32), loading=SMALL,
        cluster=HERE,
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
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a policy of three frames."""
    return Policy.single("translate_x", 0.4, frames=3).save(tmp_path_factory.mktemp("policy") / "policy.json")


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


@dataclass(frozen=True)
class TrainedRun:
    """A trained run, the folder of images it was trained on, and the images it was tested on by class and content."""

    run: Path
    root: Path
    tested: frozenset[tuple[str, bytes]]
    classes = ("ant", "bee")
    words = ("--loading.test_share", "0.5", "--loading.size", "[12,12]", "--loading.workers", "0", "--recipe.epochs", "1",
             "--recipe.batch", "8", "--tracking.enabled", "false")  # fmt: skip

    @staticmethod
    def noise(seed: int) -> Image.Image:
        return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))

    def add(self, count: int, first: int = 1000) -> None:
        for number in range(first, first + count):
            self.noise(number).save(self.root / self.classes[number % 2] / f"{number}.png")

    def path(self, *, tested: bool) -> Path:
        """The first image that was tested, or that was trained on."""
        held = {content for _, content in self.tested}
        return next(path for path in sorted(self.root.rglob("*.png")) if (path.read_bytes() in held) == tested)

    def other(self, name: str) -> str:
        return self.classes[name == self.classes[0]]

    def relabel(self, path: Path) -> None:
        path.rename(self.root / self.other(path.parent.name) / f"moved-{path.name}")

    @staticmethod
    def images_of(dataset: DataSet) -> frozenset[tuple[str, bytes]]:
        files = (Path(dataset.test.files(place)[0]) for place in range(len(dataset.test)))  # type: ignore[attr-defined]
        return frozenset((path.parent.name, path.read_bytes()) for path in files)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A run on a folder without a test part; it is not to be changed."""
    from fieldshift.cli import main

    home = tmp_path_factory.mktemp("made")
    empty = TrainedRun(home / "run", home / "data", frozenset())
    for name in empty.classes:
        (empty.root / name).mkdir(parents=True)
    empty.add(24, 0)
    assert main(["train", "--data", f"folder:{empty.root}", "--out", str(empty.run), *empty.words]) == 0
    # What was tested, found without anything of the run: the same seed splits the same files.
    dataset = load_dataset(f"folder:{empty.root}", loading=LoadingConfig(test_share=0.5, workers=0))
    return TrainedRun(empty.run, empty.root, empty.images_of(dataset))


@pytest.fixture
def trained(made: TrainedRun, tmp_path: Path) -> TrainedRun:
    """The same in folders of one test, where it can be changed; the run knows its data by the new path."""
    root, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(made.root, root)
    shutil.copytree(made.run, run)
    for name in ("config.yaml", "network.json", "data.json", "result.json"):
        (run / name).write_text((run / name).read_text().replace(str(made.root), str(root)))
    return TrainedRun(run, root, made.tested)
