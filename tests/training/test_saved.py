"""The card of a trained network: what it is built from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from fieldshift.data import load_dataset
from fieldshift.motions import Policy
from fieldshift.motions.placed import PlacedMotion, PlacedPolicy
from fieldshift.networks import NetworkConfig
from fieldshift.training import NetworkCard, arm_named, load_network, network_card
from fieldshift.training.saved import save_network


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


def folded_card(policy: Policy | PlacedPolicy) -> NetworkCard:
    return dataclasses.replace(
        card_of("tiny-resnet"), arm="das-folded", form="folded", policy=json.loads(policy.to_json())
    )


TURNED = Policy.single("rotate", 40.0, frames=3)
PLACED = PlacedPolicy(
    motions=(PlacedMotion(("blocks.0.conv1",), (TURNED,)), PlacedMotion(("blocks.1.conv1",), (TURNED,)))
)


@pytest.mark.parametrize("policy", [TURNED, PLACED], ids=["one motion", "a motion per place"])
def test_a_folded_network_is_what_it_was_when_it_is_loaded(tmp_path: Path, policy: Policy | PlacedPolicy) -> None:
    card = folded_card(policy)
    network = card.build().eval()
    save_network(tmp_path, network, card)
    again, same_card = load_network(tmp_path)
    assert same_card == card
    assert same_card.motions == policy
    assert (same_card.frames, again.form, again.frames) == (1, "folded", 1)
    images = torch.rand(2, 1, card.channels, *card.size)
    with torch.no_grad():
        assert torch.equal(again(images), network(images))
    shapes = card.build_without_memory()
    assert next(shapes.parameters()).is_meta
    assert shapes(images.to("meta")).shape == (2, 1, len(card.classes))


def test_the_kernels_of_every_arm_can_be_dilated() -> None:
    card = dataclasses.replace(folded_card(TURNED), architecture=NetworkConfig(dilated=True))
    dilated = dataclasses.replace(card_of("tiny-resnet"), arm="dilated", policy=None)
    kernels = [
        [module.dilation for module in each.build().modules() if isinstance(module, torch.nn.Conv2d)]
        for each in (card, dilated, folded_card(TURNED))
    ]
    assert kernels[0] == kernels[1] != kernels[2]
    assert card.build().form == "folded"
    kept = NetworkCard.from_plain(json.loads(json.dumps(dataclasses.asdict(card))))
    assert kept == card


def test_a_network_that_was_saved_before_there_were_forms_is_one_of_videos(tmp_path: Path) -> None:
    card = card_of("tiny-resnet")
    network = card.build().eval()
    save_network(tmp_path, network, card)
    path = tmp_path / "network.json"
    values = json.loads(path.read_text())
    assert values.pop("form") == "video"
    path.write_text(json.dumps(values))
    again, same_card = load_network(tmp_path)
    assert same_card == card
    assert (again.form, again.frames) == ("video", 2)
    video = torch.rand(2, 2, card.channels, *card.size)
    with torch.no_grad():
        assert torch.equal(again(video), network(video))
