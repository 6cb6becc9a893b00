"""Two processes over gloo end with what one process ends with, on the same global batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fieldshift.data import DataSet, TensorSplit
from fieldshift.networks import VideoNetwork
from fieldshift.search import SearchConfig, load_space, search
from fieldshift.search.run import STATE_FILE
from fieldshift.training.checkpoint import read_checkpoint
from fieldshift.training.objectives import objective_for
from tests.search.kept_policy import keep_policy
from tests.two_processes import InTwo

ORDERS = ["first", "second", "second-exact"]
NORMALISED = ["first+BatchNorm", "second-exact+BatchNorm"]
"""With statistics shared between workers; 17 images in batches of 4 leave one worker without any in the last one scored."""


class Looking(nn.Module):
    """A network without BatchNorm, whose statistics are those of each process's part of the batch, or with it."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.fc = nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.norm(self.conv(images))).square().mean((2, 3)))


def toy(norm: bool) -> tuple[VideoNetwork, DataSet]:
    torch.manual_seed(0)
    count = 34 if norm else 36
    network = VideoNetwork(
        Looking(norm),
        name="looking",
        task="classification",
        frames=3,
        temporal="none",
        num_classes=2,
        fusion="mean-logits",
        feature_layer="conv",
        placements=(),
    )
    images = torch.randint(0, 255, (count, 1, 8, 8), dtype=torch.uint8)
    split = TensorSplit(images, torch.arange(count) % 2)
    data = DataSet(
        name="toy",
        task="classification",
        classes=("a", "b"),
        train=split,
        test=split,
        mean=(0.5,),
        std=(0.3,),
        size=(8, 8),
        protocol="toy",
        digest="toy",
    )
    return network, data


def run(folder: Path, order: str) -> None:
    order, _, norm = order.partition("+")
    network, data = toy(bool(norm))
    space = load_space("affine-cell").with_changes(inputs=1, nodes=2, edges_per_node=1)
    config = SearchConfig(
        frames=3,
        epochs=2,
        batch=4 if norm else 8,
        sync_batch_norm=bool(norm),
        order=order,
        optimizer="sgd",
        alpha_learning_rate=0.3,
        learning_rate=0.05 if norm else 0.2,
        min_learning_rate=0.01,
        channels_last=False,  # type: ignore[arg-type]
        flip=0.5,
        crop=2,
        scale=1.3,
        label_smoothing=0.1,
    )
    result = search(
        network,
        data,
        space,
        config,
        objective=objective_for("classification", 2),
        normalise=lambda video: video - 0.5,
        folder=folder,
    )
    keep_policy(result, folder)


@pytest.fixture(scope="module")
def shared(in_two: InTwo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    for order in [*ORDERS, *NORMALISED]:
        (folder / order).mkdir()
        in_two(run, folder / order, order)
    return folder


@pytest.mark.parametrize("order", [*ORDERS, *NORMALISED])
def test_two_processes_equal_one(shared: Path, tmp_path: Path, order: str) -> None:
    run(tmp_path, order)
    states: list[dict[str, Any]] = [read_checkpoint(folder / STATE_FILE) for folder in (tmp_path, shared / order)]
    alphas = [state["cell"]["alpha"] for state in states]
    assert alphas[0].abs().max() > 0.02
    torch.testing.assert_close(alphas[0], alphas[1], atol=1e-5, rtol=0)
    for name, tensor in states[0]["network"].items():
        torch.testing.assert_close(tensor, states[1]["network"][name], atol=1e-4, rtol=0)
    for mine, theirs in zip(*(state["decisions"] for state in states), strict=True):
        assert mine["harm"] == pytest.approx(theirs["harm"], abs=1e-4)
    assert states[0]["decided"] == states[1]["decided"]
    assert states[0]["kept"] == states[1]["kept"]
    policies = [(shared / order / f"policy-{rank}.json").read_text() for rank in (0, 1)]
    assert policies[0] == policies[1]
