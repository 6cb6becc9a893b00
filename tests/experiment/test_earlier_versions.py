"""States that earlier versions left are continued: their fingerprints, taken from such a version, are today's."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

from fieldshift.data import DataSet, TensorSplit
from fieldshift.experiment.trial import Trial
from fieldshift.networks import video_network
from fieldshift.run_folder import first_difference, plain
from fieldshift.search import SearchConfig, load_space
from fieldshift.search.run import SearchRun
from fieldshift.training import Recipe
from fieldshift.training.objectives import objective_for

SEARCHED = "74062a765b32"
TRAINED = "caf50540c8e881b713595a634bcd6d51f30f32dde79a314e674f4f56a76a31d8"
"""Of the search and the training below, by the version before `resized_crop` and a search's `precision`."""


def search_fingerprint(config: SearchConfig) -> str:
    split = TensorSplit(torch.zeros(36, 1, 12, 12, dtype=torch.uint8), torch.arange(36) % 2)
    data = DataSet(
        name="toy", task="classification", classes=("left", "right"), train=split, test=split, mean=(0.2,), std=(0.3,),
        size=(12, 12), protocol="toy", digest="toy",
    )  # fmt: skip
    network = video_network("tiny-resnet", temporal="tsm", frames=3, num_classes=2, in_channels=1)
    objective = objective_for("classification", 2)
    return SearchRun.start(
        network,
        data,
        load_space("affine-one"),
        config,
        objective=objective,
        normalise=lambda video: video,
        device="cpu",
        seed=0,
    ).state.fingerprint


def test_a_search_with_the_settings_of_earlier_versions_is_theirs() -> None:
    config = SearchConfig(frames=3, epochs=2, batch=8)
    assert search_fingerprint(config) == SEARCHED
    others = (replace(config, resized_crop=0.5), replace(config, precision="bf16"))
    assert len({SEARCHED, *map(search_fingerprint, others)}) == 3


def test_a_training_with_the_settings_of_earlier_versions_is_theirs() -> None:
    trial = Trial(
        key="none-T1-seed0", arm="none", reading="equal epochs", seed=0, problem={}, data="toy", card={},
        recipe=asdict(Recipe()), augmentation={}, copies=0, align=True, folder="x",
    )  # fmt: skip
    assert trial.digest() == TRAINED
    assert replace(trial, recipe=asdict(Recipe(resized_crop=0.5))).digest() != TRAINED


@pytest.mark.parametrize(
    ("section", "name", "others"),
    [("recipe", "resized_crop", [0.5]), ("search", "precision", ["bf16"]), ("search", "resized_crop", [0.5])],
)
def test_a_configuration_without_a_later_option_is_that_of_its_default(
    section: str, name: str, others: list[object]
) -> None:
    asked = plain({"recipe": Recipe(), "search": SearchConfig()})
    held = {**asked, section: {key: value for key, value in asked[section].items() if key != name}}
    assert first_difference(held, asked) == ""
    for other in others:
        assert f"{section}.{name} is None there, {other} here" in first_difference(
            held, {**asked, section: {**asked[section], name: other}}
        )
