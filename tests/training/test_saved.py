"""The card of a trained network: what it is built from."""

from __future__ import annotations

import pytest

from fieldshift.data import load_dataset
from fieldshift.motions import Policy
from fieldshift.networks import NetworkConfig
from fieldshift.training import NetworkCard, arm_named, network_card


def card_of(network: str) -> NetworkCard:
    data = load_dataset("digit-pairs-left", train_limit=20, test_limit=10)
    return network_card(
        data, "digit-pairs-left", arm_named("replicate"), network=network, temporal="tsm", policy=Policy.replicate(2),
        architecture=NetworkConfig(),
    )  # fmt: skip


@pytest.mark.parametrize(("network", "is_shape"), [("resnet18", True), ("regnet_y_400mf", False)])
def test_a_network_is_built_for_its_shapes_also_where_its_widths_are_computed(network: str, is_shape: bool) -> None:
    card = card_of(network)
    shapes = card.build_without_memory()
    assert next(shapes.parameters()).is_meta == is_shape
    real = card.build().state_dict()
    assert {name: tensor.shape for name, tensor in shapes.state_dict().items()} == {
        name: tensor.shape for name, tensor in real.items()
    }
