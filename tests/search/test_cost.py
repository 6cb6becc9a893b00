"""A search counts its image passes; torch counts the operations that really run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fieldshift.data import DataSet
from fieldshift.folding import still
from fieldshift.networks import VideoNetwork, video_network
from fieldshift.search import SearchConfig, Space, search
from fieldshift.training.objectives import Objective

CASES: dict[str, dict[str, Any]] = {
    "perturbation": {},
    "largest weight, warm-up, subset": {"selection": "magnitude", "warmup_epochs": 1, "subset": 20},
    "second": {"order": "second", "optimizer": "sgd", "learning_rate": 0.025},
    "second-exact": {"order": "second-exact", "optimizer": "sgd", "learning_rate": 0.025},
}


@pytest.mark.parametrize(
    ("form", "name"), [*(("video", name) for name in CASES), ("folded", "perturbation"), ("folded", "second-exact")]
)
def test_counted_operations_are_those_that_run(
    form: str, name: str, toy_data: Callable[..., DataSet], toy_space: Space, objective: Objective,
    quick: Callable[..., SearchConfig], normalise: Callable[[torch.Tensor], torch.Tensor],
) -> None:  # fmt: skip
    config, dataset = quick(channels_last=False, **CASES[name]), toy_data()
    torch.manual_seed(0)
    network = video_network(
        "tiny-resnet", temporal="tsm", frames=1 if form == "folded" else 3, num_classes=2, in_channels=1,
        motions=still(1) if form == "folded" else None,
    )  # fmt: skip
    own = torchs_count(network)  # convolutions and matrix products of one image forward
    with FlopCounterMode(display=False) as counter:
        found = search(network, dataset, toy_space, config, objective=objective, normalise=normalise)
    cost = found.cost
    assert cost.flops > own  # the mixture is in it, which torch does not count
    counted = cost.operations / cost.flops * own
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.02)
    assert found.policy.found["cost"] == cost.record()


def torchs_count(network: VideoNetwork) -> int:
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, network.frames, 1, 12, 12))
    network.train()
    return int(counter.get_total_flops())
