"""A data set, a network and a space small enough to search in a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fieldshift.data import DataSet, TensorSplit
from fieldshift.networks import VideoNetwork, video_network
from fieldshift.search import FoundPolicy, SearchConfig, Space, load_space, search
from fieldshift.training.objectives import Objective, objective_for

QUICK: dict[str, Any] = {"frames": 3, "epochs": 2, "tune_epochs": 1, "batch": 8}


def toy_split(count: int, seed: int, dense: bool) -> TensorSplit:
    """Noise with a bright column; the class says on which side of the picture it is."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (count, 1, 12, 12), generator=generator, dtype=torch.uint8)
    classes = torch.arange(count) % 2
    columns = torch.randint(1, 5, (count,), generator=generator) + 6 * classes
    images[torch.arange(count), 0, :, columns] = 255
    masks = (images[:, 0] == 255).to(torch.uint8) if dense else None
    return TensorSplit(images, classes, masks)


@pytest.fixture
def toy_data() -> Callable[..., DataSet]:
    def build(count: int = 36, task: str = "classification") -> DataSet:
        dense = task == "segmentation"
        return DataSet(
            name="toy",
            task=task,  # type: ignore[arg-type]
            classes=("left", "right"),
            train=toy_split(count, 0, dense),
            test=toy_split(4, 1, dense),
            mean=(0.2,),
            std=(0.3,),
            size=(12, 12),
            protocol="toy",
            digest="toy",
        )

    return build


@pytest.fixture
def toy_network() -> Callable[..., VideoNetwork]:
    def build(seed: int = 0, task: str = "classification", frames: int = 3) -> VideoNetwork:
        torch.manual_seed(seed)
        name = "tiny-resnet" if task == "classification" else "tiny-resnet-fcn"
        return video_network(name, task=task, temporal="tsm", frames=frames, num_classes=2, in_channels=1)

    return build


@pytest.fixture
def toy_space() -> Space:
    """Two nodes, four edges, so that both kinds of decision are made."""
    candidates = (("identity",), ("translate_x",), ("rotate",))
    space = load_space("affine-cell").with_changes(
        inputs=1, nodes=2, edges_per_node=1, candidates=candidates, ranges={}
    )
    return space.with_changes(name="toy")


@pytest.fixture
def objective() -> Objective:
    return objective_for("classification", 2)


@pytest.fixture
def quick() -> Callable[..., SearchConfig]:
    def build(**changes: Any) -> SearchConfig:
        return SearchConfig(**{**QUICK, **changes})

    return build


def normalise(video: Tensor) -> Tensor:
    return (video - 0.2) / 0.3


@pytest.fixture(name="normalise")
def normalise_fixture() -> Callable[[Tensor], Tensor]:
    return normalise


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Callable[..., FoundPolicy]:
    """Searches on the toys from end to end; whatever is not given is their own."""
    toy_data, toy_network, toy_space, objective, normalise, quick = map(
        request.getfixturevalue, ("toy_data", "toy_network", "toy_space", "objective", "normalise", "quick")
    )

    def build(config: SearchConfig | None = None, *, space: Space | None = None, **settings: Any) -> FoundPolicy:
        data = settings.pop("data", None) or toy_data()
        network = settings.pop("network", None) or toy_network()
        settings.setdefault("objective", objective)
        return search(network, data, space or toy_space, config or quick(), normalise=normalise, **settings)

    return build
