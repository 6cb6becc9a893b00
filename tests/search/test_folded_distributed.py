"""Two processes over gloo end a folded search with what one process ends with, on the same global batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fieldshift.data import DataSet, TensorSplit
from fieldshift.folding import still
from fieldshift.networks import VideoNetwork, video_network
from fieldshift.search import SearchConfig, load_space, search
from fieldshift.search.run import STATE_FILE
from fieldshift.training.checkpoint import read_checkpoint
from fieldshift.training.objectives import objective_for
from tests.search.kept_policy import keep_policy
from tests.two_processes import InTwo

ORDERS = ["first", "second-exact"]


class Looking(nn.Module):
    """A network without BatchNorm, whose statistics would be those of each process's part of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 6, 1)
        self.fc = nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.last(torch.tanh(self.far(torch.tanh(self.near(images)))))
        answer: Tensor = self.fc(features.square().mean((2, 3)))
        return answer


def toy() -> tuple[VideoNetwork, DataSet]:
    torch.manual_seed(0)
    network = video_network(
        Looking(), frames=1, num_classes=2, in_channels=1, ratio=0.5, places="far,last", motions=still(2)
    )
    images = torch.randint(0, 255, (36, 1, 8, 8), dtype=torch.uint8)
    split = TensorSplit(images, torch.arange(36) % 2)
    data = DataSet(
        name="toy", task="classification", classes=("a", "b"), train=split, test=split, mean=(0.5,), std=(0.3,),
        size=(8, 8), protocol="toy", digest="toy",
    )  # fmt: skip
    return network, data


def run(folder: Path, order: str) -> None:
    network, data = toy()
    space = load_space("affine-groups").with_changes(
        candidates=(("identity",), ("translate_x",)), grid={"translate_x": (0.4,)}
    )
    config = SearchConfig(
        frames=3, epochs=2, batch=8, order=order, optimizer="sgd", alpha_learning_rate=0.3, learning_rate=0.2,
        min_learning_rate=0.01, channels_last=False,
    )  # type: ignore[arg-type]  # fmt: skip
    result = search(
        network, data, space, config, objective=objective_for("classification", 2),
        normalise=lambda video: video - 0.5, folder=folder,
    )  # fmt: skip
    keep_policy(result, folder)


@pytest.fixture(scope="module")
def shared(in_two: InTwo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    for order in ORDERS:
        (folder / order).mkdir()
        in_two(run, folder / order, order)
    return folder


@pytest.mark.parametrize("order", ORDERS)
def test_two_processes_equal_one(shared: Path, tmp_path: Path, order: str) -> None:
    run(tmp_path, order)
    states = [read_checkpoint(folder / STATE_FILE) for folder in (tmp_path, shared / order)]
    alphas = [state["cell"]["alpha"] for state in states]
    assert alphas[0].shape == (4, 2)  # two places, two groups
    assert alphas[0].abs().max() > 0.02
    torch.testing.assert_close(alphas[0], alphas[1], atol=1e-5, rtol=0)
    for name, tensor in states[0]["network"].items():
        torch.testing.assert_close(tensor, states[1]["network"][name], atol=1e-4, rtol=0)
    assert states[0]["decided"] == states[1]["decided"]
    policies = [(shared / order / f"policy-{rank}.json").read_text() for rank in (0, 1)]
    assert policies[0] == policies[1]
