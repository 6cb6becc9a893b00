"""A video of one frame: every temporal module leaves the 2D network as it is, in every way of using it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fieldshift.data import TensorSplit, load_dataset
from fieldshift.errors import UserError
from fieldshift.motions import Policy
from fieldshift.networks import TEMPORAL, Stream, VideoNetwork, describe, predict_in_chunks, video_network
from fieldshift.networks.config import NetworkConfig
from fieldshift.receptive_field import theory
from fieldshift.training import (
    NetworkCard,
    Recipe,
    arm_named,
    load_network,
    network_card,
    network_cost,
    objective_for,
    save_network,
    train_network,
)
from fieldshift.training.export import PlainImageModel

MOVING = [name for name in TEMPORAL if name != "none"]
CROSSING = Policy.chain([("translate_x", 0.4), ("rotate", 50.0)], frames=1)


def built(temporal: str, frames: int = 1, seed: int = 3, **options: object) -> VideoNetwork:
    torch.manual_seed(seed)
    settings: dict[str, object] = {"num_classes": 5, "in_channels": 1, **options}
    return video_network("tiny-resnet", temporal=temporal, frames=frames, **settings)  # type: ignore[arg-type]


def learned(network: VideoNetwork, video: Tensor) -> list[Tensor]:
    """Answer, gradients of all parameters and of the video, after one pass in training mode."""
    video = video.clone().requires_grad_()
    logits = network.train()(video)
    assert isinstance(logits, Tensor)
    loss = network.fuse(logits).square().sum()
    return [logits, *torch.autograd.grad(loss, [video, *network.parameters()])]


@pytest.mark.parametrize("temporal", MOVING)
def test_the_network_is_the_2d_network_to_the_last_bit(temporal: str) -> None:
    network, plain = built(temporal), built("none")
    assert network.state_dict().keys() == plain.state_dict().keys()
    network.load_state_dict(built("none", seed=8).state_dict())
    plain.load_state_dict(network.state_dict())
    video = torch.rand(3, 1, 1, 20, 20)
    # No `allow_unused`: a parameter without a gradient stops DistributedDataParallel.
    for mine, theirs in zip(learned(network, video), learned(plain, video), strict=True):
        assert torch.equal(mine, theirs)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, plain.state_dict()[name]), name


@pytest.mark.parametrize("temporal", MOVING)
def test_everything_said_of_it_is_said_of_the_2d_network(temporal: str) -> None:
    network, plain = built(temporal).eval(), built("none").eval()
    facts, of_plain = describe(network, (20, 20)), describe(plain, (20, 20))
    assert facts == of_plain | {"temporal": temporal}
    assert (facts["inserted"], facts["temporal_reach"], facts["sees_later_frames"]) == ([], 0, False)
    assert network_cost(network, 1, 1, (20, 20)) == network_cost(plain, 1, 1, (20, 20))
    fields = [theory(each, (20, 20)) for each in (network, plain)]
    assert fields[0] == fields[1]


@pytest.mark.parametrize("temporal", MOVING)
def test_a_longer_video_is_read_frame_by_frame(temporal: str) -> None:
    network, plain = built(temporal).eval(), built("none").eval()
    video = torch.rand(2, 4, 1, 20, 20)
    with torch.no_grad():
        frames = torch.cat([plain(frame) for frame in video.split(1, dim=1)], dim=1)
    for chunk in (1, 3):
        torch.testing.assert_close(predict_in_chunks(network, video, chunk), frames)
    torch.testing.assert_close(Stream(network)(video), frames)


@pytest.mark.parametrize("temporal", MOVING)
def test_a_single_frame_is_read_as_such_by_a_network_of_several(temporal: str) -> None:
    several, plain = built(temporal, frames=3).eval(), built("none").eval()
    of_2d = {name: name for name in plain.state_dict()}
    state = {name.replace(".wrapped", ""): tensor for name, tensor in several.state_dict().items()}
    plain.load_state_dict({name: state[name] for name in of_2d})
    video = torch.rand(2, 1, 1, 20, 20)
    with torch.no_grad():
        assert torch.equal(predict_in_chunks(several, video, 1), plain(video))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"ratio": 1e-3}, "moves no channel"), ({"places": "nowhere.*"}, "matches no module"), ({"ratio": 2.0}, "ratio")],
)
def test_what_does_not_fit_several_frames_is_refused_for_one_too(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        built("gsm", **options)


def card_of(temporal: str, policy: Policy = CROSSING) -> NetworkCard:
    data = load_dataset("digit-pairs-left", train_limit=20, test_limit=10)
    return network_card(
        data, "digit-pairs-left", arm_named("das"), network="tiny-resnet", temporal=temporal, policy=policy
    )


@pytest.mark.parametrize("temporal", ["tsm", "gsf"])
def test_the_first_point_of_a_frame_sweep_learns_what_the_2d_arm_learns(temporal: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (24, 1, 40, 40), generator=generator, dtype=torch.uint8)
    split, states = TensorSplit(images, torch.arange(24) % 10), []
    card = card_of(temporal)
    for each in (card, replace(card, arm="none", temporal="none", policy=None)):
        torch.manual_seed(5)
        network = each.build()
        train_network(
            network, split, plan=each.plan(), recipe=Recipe(epochs=2, batch=8), objective=objective_for("classification", 10),
            seed=5,
        )  # fmt: skip
        states.append(network.state_dict())
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


@pytest.mark.parametrize("temporal", ["tsm", "gsm"])
def test_it_is_saved_loaded_and_exported_as_the_2d_network(tmp_path: Path, temporal: str) -> None:
    card = card_of(temporal)
    network = card.build().eval()
    save_network(tmp_path, network, card)
    again, same = load_network(tmp_path)
    assert same == card
    images = torch.rand(2, card.channels, *card.size)
    plain = replace(card, arm="none", temporal="none", policy=None)
    of_2d = plain.build().eval()
    of_2d.load_state_dict(network.state_dict())
    with torch.no_grad():
        expected = PlainImageModel(of_2d, plain)(images)
        assert torch.equal(PlainImageModel(again, card)(images), expected)


def replace_weights(folder: Path, state: dict[str, Tensor]) -> None:
    """Other weights in a run folder, as of a version that kept no digest of them."""
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "weights.safetensors")
    described = json.loads((folder / "network.json").read_text())
    del described["weights_sha256"]
    (folder / "network.json").write_text(json.dumps(described))


@pytest.mark.parametrize("temporal", MOVING)
def test_one_of_a_version_that_changed_single_frames_is_refused_in_a_line(tmp_path: Path, temporal: str) -> None:
    card = card_of(temporal)
    save_network(tmp_path, card.build(), card)
    of_before = replace(card, policy=json.loads(CROSSING.with_frames(3).to_json())).build()
    replace_weights(tmp_path, of_before.state_dict())
    with pytest.raises(UserError, match=rf"{temporal} changed a video of one frame.*train again") as caught:
        load_network(tmp_path)
    assert "\n" not in str(caught.value)


OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.first, self.wrapped = nn.Conv2d(in_channels, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, num_classes)

    def forward(self, images):
        return self.head(self.wrapped(self.first(images)).mean((2, 3)))
"""


@pytest.mark.parametrize("temporal", ["none", "tsm"])
def test_a_network_of_ones_own_may_have_a_module_of_that_name(
    tmp_path: Path, temporal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_with_wrapped.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    places = NetworkConfig(places="wrapped" if temporal == "tsm" else None)
    card = replace(card_of(temporal), network="own_with_wrapped:Net", architecture=replace(places, small_images=False))
    if temporal == "none":
        card = replace(card, arm="none", policy=None)
    network = card.build().eval()
    save_network(tmp_path, network, card)
    again, _ = load_network(tmp_path)
    video = torch.rand(2, 1, card.channels, *card.size)
    with torch.no_grad():
        assert torch.equal(again(video), network(video))


def test_one_without_a_temporal_module_is_of_no_such_version(tmp_path: Path) -> None:
    card = replace(card_of("none"), arm="none", policy=None)
    network = card.build()
    save_network(tmp_path, network, card)
    state = network.state_dict() | {"network.wrapped.weight": torch.zeros(1)}
    replace_weights(tmp_path, state)
    with pytest.raises(UserError, match=r"belongs to another network than network\.json"):
        load_network(tmp_path)


def test_networks_of_several_frames_keep_their_names(tmp_path: Path) -> None:
    """What runs of before have saved is what is built now."""
    card = card_of("gsf", CROSSING.with_frames(3))
    save_network(tmp_path, card.build(), card)
    names = set(load_file(tmp_path / "weights.safetensors"))
    assert {"network.blocks.0.conv2.wrapped.weight", "network.blocks.0.conv2.temporal.gate.taps.weight"} <= names
