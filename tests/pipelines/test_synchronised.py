"""--recipe.sync_batch_norm before any work: networks without BatchNorm, and batches that all workers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldshift.cli import main
from fieldshift.data import DataSet, LoadingConfig, load_dataset
from fieldshift.errors import UserError
from fieldshift.experiment import Experiment
from fieldshift.experiment.cards import NormedBatch, checked_card, edges_to_decide, search_step, smallest_step
from fieldshift.networks import NetworkConfig
from fieldshift.search import SearchConfig, load_space

OWN = """
from torch import nn

def without(num_classes, in_channels=3):
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(8, num_classes))

def pooled(num_classes, in_channels=3):
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1),
                         nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, num_classes))
"""
FEW = LoadingConfig(train_limit=20, test_limit=10)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_to_synchronise.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return "own_to_synchronise"


def asked(network: str) -> tuple[Experiment, DataSet]:
    experiment = Experiment(
        data="digit-pairs-left", task=None, network=network, temporal="tsm", frames=3, loading=FEW,
        architecture=NetworkConfig(places="1"),
    )  # fmt: skip
    return experiment, load_dataset("digit-pairs-left", train_limit=20, test_limit=10)


@pytest.mark.parametrize(
    ("samples", "batch", "workers", "synchronised", "images"),
    [
        (100, 64, 4, False, 16),
        (100, 64, 4, True, 64),
        (100, 64, 0, None, 64),
        (6, 64, 4, False, 1),
        (6, 64, 4, True, 6),
    ],
)
def test_a_synchronised_step_is_that_of_all_workers(
    samples: int, batch: int, workers: int, synchronised: bool | None, images: int
) -> None:
    assert smallest_step(samples, batch, workers, synchronised) == NormedBatch(images, bool(synchronised))


@pytest.mark.parametrize(("subset", "images"), [(0, 8), (6, 3), (50, 8)])
def test_a_step_of_a_search_is_of_the_images_it_learns_from(subset: int, images: int) -> None:
    _, dataset = asked("tiny-resnet")
    assert search_step(dataset, SearchConfig(batch=8, subset=subset), 0) == NormedBatch(images)


def test_one_image_per_worker_is_enough_where_the_statistics_are_shared(own: str) -> None:
    experiment, dataset = asked(f"{own}:pooled")
    checked_card(experiment, dataset, "none", None, None, step=smallest_step(20, 2, 2, True))
    with pytest.raises(UserError, match="cannot learn from 1 image.*--recipe.batch 2 or more per worker"):
        checked_card(experiment, dataset, "none", None, None, step=smallest_step(20, 2, 2))
    with pytest.raises(UserError, match=r"cannot learn from 1 image.*--recipe.batch 2 or more\."):
        checked_card(experiment, dataset, "none", None, None, step=smallest_step(1, 2, 2, True))


def test_a_network_without_batch_norm_is_refused_in_training_and_search(own: str) -> None:
    experiment, dataset = asked(f"{own}:without")
    checked_card(experiment, dataset, "none", None, None, step=NormedBatch(2))
    with pytest.raises(UserError, match="has no BatchNorm; leave it out"):
        checked_card(experiment, dataset, "none", None, None, step=NormedBatch(2, synchronised=True))
    with pytest.raises(UserError, match="has no BatchNorm; leave it out"):
        edges_to_decide(experiment, dataset, load_space("affine-one"), step=NormedBatch(2, synchronised=True))


def test_it_is_refused_before_any_folder_or_worker(
    own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--network", f"{own}:without", "--temporal", "none", "--recipe.sync_batch_norm", "true"]
    few = ["--loading.train_limit", "20", "--loading.test_limit", "10", "--recipe.batch", "4", "--cluster.workers", "2"]
    assert main([*words, *few, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "has no BatchNorm" in error
    assert not (tmp_path / "out").exists()
