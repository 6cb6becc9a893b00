"""Commands that use trained networks give on another device what they give on the CPU."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

import pipelines
from fieldshift.data import LoadingConfig
from fieldshift.motions import Policy
from fieldshift.readings import READINGS
from fieldshift.tracking import TrackingConfig
from fieldshift.training import Recipe
from tests.other_device import NAME, other_device, waits

UNTRACKED = TrackingConfig(enabled=False)
STUDIES = Path(__file__).resolve().parents[2] / "benchmarks" / "studies"
POLICY = Policy.chain([("translate_x", 0.3), ("rotate", 10.0)], frames=3)


@pytest.fixture(scope="module")
def there() -> Iterator[Callable[..., Any]]:
    with other_device() as run:
        yield run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> dict[str, Path]:
    """A classifier and a segmenter, trained for a moment on the CPU."""
    root = tmp_path_factory.mktemp("runs")
    POLICY.save(root / "policy.json")
    shared = {"policy": str(root / "policy.json"), "tracking": UNTRACKED, "recipe": Recipe(epochs=1, batch=8)}
    few = LoadingConfig(train_limit=64, test_limit=32)
    pipelines.train(out=str(root / "classes"), loading=few, tta_copies=2, **shared)
    pipelines.train(out=str(root / "maps"), data=f"voc:{scenes}", network="tiny-resnet-fcn", **shared)
    return {"classes": root / "classes", "maps": root / "maps"}


def used(run: str, out: str, device: str | None) -> list[float]:
    """The numbers of evaluate, predict and receptive-field."""
    with ExitStack() as patches:
        if device is not None:
            for home in ("using", "field_maps", "failure_cases"):
                patches.enter_context(patch(f"pipelines.{home}.best_device", lambda: torch.device(device)))
        scored = pipelines.evaluate(run=run, out=f"{out}/scored", tta_copies=2)
        fields = pipelines.compare_fields(runs=[run], images=4, out=f"{out}/fields", tracking=UNTRACKED)
        numbers = [scored.score, scored.loss, *(float(value) for value in fields.table["mass of the map"])]
        if scored.score_name == "accuracy":
            Image.new("L", (50, 40), 90).save(f"{out}/picture.png")
            (row,) = pipelines.predict(run=run, images=[f"{out}/picture.png"])
            numbers.append(row["probability"])
    assert device is None or waits  # it was there
    return numbers


@pytest.mark.parametrize("kind", ["classes", "maps"])
def test_trained_networks_are_used_there_as_here(
    kind: str, there: Callable[..., Any], runs: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    expected = used(str(runs[kind]), str(tmp_path / "here"), None)
    assert there(used, str(runs[kind]), str(tmp_path / "there"), NAME) == pytest.approx(expected, rel=1e-3)


def studied(folder: str, device: str) -> dict[str, Any]:
    """The raw numbers of the cell `short` of the study `cifar10`, made small, with its searches and trainings on a device."""
    sys.path.insert(0, str(STUDIES))
    study = importlib.import_module("study")
    words = ["cifar10", "--cells", "short", "--at-once", "0", "--data", f"cifar10={folder}/pictures.npz"]
    words += ["--runs", folder, "--set", 'arms=["none", "das", "das-folded+affine"]', "network=tiny-resnet", "seeds=1"]
    words += ["tta_copies=1", "search.epochs=1", "search.batch=32", "recipe.batch=32", "recipe.epochs=1"]
    words += ["recipe.precision=float32"]  # torch has no autocast for the stand-in
    with ExitStack() as patches:
        for home in ("train", "tune", "tuning"):
            patches.enter_context(patch(f"fieldshift.cluster.{home}.local_device", lambda _cluster: device))
        patches.enter_context(patch("pipelines.estimating.best_device", lambda: torch.device(device)))
        assert study.main(words) == 0
    assert device == "cpu" or waits  # it was there
    return json.loads((Path(folder) / "cifar10.json").read_text())["cells"]["short"]


def test_the_study_for_a_gpu_runs_there_as_here(there: Callable[..., Any], tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    arrays = {
        f"{part}_{name}": draws.integers(0, most, shape, dtype=np.uint8)
        for part, count in (("train", 64), ("test", 32))
        for name, most, shape in (("images", 256, (count, 32, 32, 3)), ("labels", 10, (count,)))
    }
    for device in ("cpu", NAME):
        (tmp_path / device).mkdir()
        np.savez(tmp_path / device / "pictures.npz", **arrays)
    moved = there(studied, str(tmp_path / NAME), NAME)
    expected = there(studied, str(tmp_path / "cpu"), "cpu")
    assert {row["reading"] for row in moved["rows"]} == set(READINGS)
    for row, same in zip(moved["rows"], expected["rows"], strict=True):
        assert (row["arm"], row["epochs"]) == (same["arm"], same["epochs"])
        assert row["loss"] == pytest.approx(same["loss"], abs=1e-2)
    policies = [[search["policy"]["edges"] for search in each["searches"]] for each in (moved, expected)]
    assert policies[0] == policies[1]
