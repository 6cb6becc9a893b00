"""video_network: every family and every segmenter with temporal modules where they belong."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from fieldshift.errors import UserError
from fieldshift.networks import TEMPORAL, VideoNetwork, describe, known_networks, video_network

FAMILIES = [
    "tiny-resnet",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "convnext_tiny",
]
LIGHT = ["tiny-resnet", "mobilenet_v3_small", "regnet_x_400mf"]
SEGMENTERS = [
    "tiny-resnet-fcn",
    "fcn_resnet18",
    "pspnet_resnet18",
    "deeplabv3_resnet18",
    "deeplabv3_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large",
]


def on_meta(name: str, **options: object) -> VideoNetwork:
    """A network without memory for its weights: for questions about structure alone."""
    # torchvision computes the widths of a RegNet with tensors, which have to be real
    place = torch.device("cpu" if str(name).startswith("regnet") else "meta")
    with place:
        return video_network(name, **{"frames": 3, "num_classes": 7, **options})


@pytest.mark.parametrize("temporal", TEMPORAL)
@pytest.mark.parametrize("name", LIGHT)
def test_every_temporal_module_trains_in_every_kind_of_block(name: str, temporal: str) -> None:
    torch.manual_seed(0)
    network = video_network(name, temporal=temporal, frames=2, num_classes=5)
    logits = network(torch.rand(2, 2, 3, 32, 32))
    assert logits.shape == (2, 2, 5)
    assert network.fuse(logits).shape == (2, 5)
    network.fuse(logits).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert len(network.placements) == 0 if temporal == "none" else len(network.placements) > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_be_described(name: str) -> None:
    network = on_meta(name, temporal="gsf")
    facts = describe(network, (64, 64))
    assert facts["temporal_reach"] == 2
    assert facts["flops_per_image"] > 3 * 1e6
    assert facts["temporal_parameters"] == sum(
        29 * (int(0.25 * placement.channels) // 4 * 4) + 40 for placement in network.placements
    )


HUGE = {
    "regnet_x_16gf",
    "regnet_x_32gf",
    "regnet_x_8gf",
    "regnet_y_128gf",
    "regnet_y_16gf",
    "regnet_y_32gf",
    "regnet_y_8gf",
}


@pytest.mark.parametrize("name", [name for name in known_networks("classification") if name not in HUGE])
def test_every_known_classifier_can_be_built(name: str) -> None:
    network = on_meta(name, temporal="gsf", small_images=True, in_channels=1)
    assert len(network.placements) > 0
    assert network.feature_layer in dict(network.named_modules())
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    assert (first.in_channels, first.kernel_size, first.stride) == (1, (3, 3), (1, 1))


@pytest.mark.parametrize("name", known_networks("segmentation"))
def test_every_known_segmenter_can_be_built(name: str) -> None:
    network = on_meta(name, task="segmentation", temporal="tsm", auxiliary=not name.startswith("lraspp"))
    assert len(network.placements) > 0
    assert network.feature_layer in dict(network.named_modules())


@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_segmenter_answers_at_the_images_size(name: str) -> None:
    network = video_network(name, task="segmentation", temporal="tsm", frames=2, num_classes=4, in_channels=1)
    logits = network(torch.rand(2, 2, 1, 33, 40))
    assert logits.shape == (2, 2, 4, 33, 40)
    assert network.fuse(logits, torch.eye(2, 3).expand(2, 2, 3)).shape == (2, 4, 33, 40)


@pytest.mark.parametrize("name", SEGMENTERS[:2] + SEGMENTERS[-1:])
def test_a_segmenter_has_an_auxiliary_head_only_where_asked(name: str) -> None:
    options = {"task": "segmentation", "frames": 2, "num_classes": 4}
    video = torch.rand(2, 2, 3, 33, 40)
    logits, auxiliary = video_network(name, **options).forward_with_auxiliary(video)
    assert logits.shape == (2, 2, 4, 33, 40)
    assert auxiliary is None
    if name.startswith("lraspp"):
        with pytest.raises(UserError, match="no auxiliary head"):
            video_network(name, auxiliary=True, **options)
    else:
        _, auxiliary = video_network(name, auxiliary=True, **options).forward_with_auxiliary(video)
        assert auxiliary is not None
        assert auxiliary.shape == logits.shape


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "regnet_y_400mf"])
def test_without_temporal_modules_it_is_torchvisions_network(name: str) -> None:
    torch.manual_seed(0)
    plain = torchvision.models.get_model(name, weights=None, num_classes=6).eval()
    network = video_network(name, temporal="none", frames=1, num_classes=6).eval()
    network.network.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(network(images[:, None])[:, 0], plain(images))


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large"])
def test_a_segmenters_parameters_have_torchvisions_names_and_shapes(name: str) -> None:
    network = on_meta(name, task="segmentation", temporal="none", auxiliary=True)
    with torch.device("meta"):
        plain = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=7, aux_loss=True)
    shapes = {key: tensor.shape for key, tensor in network.network.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in plain.state_dict().items()}


def test_a_segmenter_without_temporal_modules_is_torchvisions_network() -> None:
    torch.manual_seed(0)
    name = "deeplabv3_mobilenet_v3_large"
    plain = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=6, aux_loss=True).eval()
    network = video_network(name, task="segmentation", temporal="none", frames=1, num_classes=6, auxiliary=True).eval()
    network.network.load_state_dict(plain.state_dict())
    images = torch.rand(1, 3, 32, 32)
    logits, auxiliary = network.forward_with_auxiliary(images[:, None])
    assert auxiliary is not None
    assert torch.equal(logits[:, 0], plain(images)["out"])
    assert torch.equal(auxiliary[:, 0], plain(images)["aux"])


@pytest.mark.parametrize("name", ["tiny-resnet", "mobilenet_v3_small"])
def test_gsm_without_interleave_starts_as_the_2d_network_to_the_last_bit(name: str) -> None:
    torch.manual_seed(0)
    plain = video_network(name, temporal="none", frames=3, num_classes=5).eval()
    gated = video_network(name, temporal="gsm", frames=3, num_classes=5, interleave=False).eval()
    ours, theirs = gated.network.state_dict(), plain.network.state_dict()
    ours.update({key: theirs[key.replace(".wrapped", "")] for key in ours if ".temporal." not in key})
    gated.network.load_state_dict(ours)
    video = torch.rand(1, 3, 3, 40, 40)
    assert torch.equal(gated(video), plain(video))


@pytest.mark.parametrize(
    ("name", "temporal", "inserted", "first"),
    [
        ("resnet50", "tsm", 16, ("layer1.0.conv1", True, 64)),
        ("resnet101", "tsm", 3 + 4 + 12 + 3, ("layer1.0.conv1", True, 64)),
        ("resnet152", "tsm", 3 + 8 + 18 + 3, ("layer1.0.conv1", True, 64)),
        ("resnet101", "tsm-inplace", 3 + 4 + 12 + 3, ("layer1.0", True, 64)),
        ("resnet101", "gsf", 33, ("layer1.0.conv3", False, 256)),
        ("resnet18", "gsf", 8, ("layer1.0.conv2", False, 64)),
        ("resnet18", "tsm-inplace", 8, ("layer1.0", True, 64)),
        ("mobilenet_v2", "tsm", 10, ("features.3.conv.0.0", True, 24)),
        ("convnext_tiny", "gsf", 18, ("features.1.0.block.6", False, 96)),
    ],
)
def test_modules_go_where_the_method_says(
    name: str, temporal: str, inserted: int, first: tuple[str, bool, int]
) -> None:
    placements = on_meta(name, temporal=temporal).placements
    assert len(placements) == inserted
    assert (placements[0].path, placements[0].before, placements[0].channels) == first


def test_a_shift_before_the_first_convolution_leaves_the_shortcut_alone() -> None:
    network = video_network("resnet18", temporal="tsm", frames=2, num_classes=5).eval()
    block = network.network.get_submodule("layer1.0")
    with torch.no_grad():
        block.get_submodule("bn2").weight.zero_()  # type: ignore[union-attr]
    rows = torch.rand(4, 64, 5, 5)
    assert torch.equal(block(rows), rows)


def test_places_by_pattern_in_a_network_of_ones_own() -> None:
    own = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    )
    network = video_network(own, temporal="tsm", frames=3, num_classes=5, places="2")
    assert [placement.path for placement in network.placements] == ["2"]
    assert network(torch.rand(2, 3, 1, 9, 9)).shape == (2, 3, 5)
    assert network.feature_layer == "network.2"
    assert (
        video_network("resnet18", temporal="gsf", frames=2, num_classes=5, places="layer4.*.conv2").temporal_reach == 1
    )


class Scenes(nn.Module):
    """A network of one's own, of no known family."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.encoder = nn.ModuleDict({
            "near": nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1)),
            "far": nn.Sequential(nn.Conv2d(24, 8, 3, padding=1), nn.ReLU()),
        })  # fmt: skip
        self.head = nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder["far"](self.encoder["near"](self.stem(images))).mean((2, 3)))


@pytest.mark.parametrize(
    ("places", "temporal", "paths", "channels"),
    [
        ("encoder.near.2", "gsf", ["encoder.near.2"], [24]),
        ("encoder.near", "tsm", ["encoder.near"], [8]),
        ("encoder.near", "gsm", ["encoder.near"], [24]),
        ("encoder.*.0", "conv3d", ["encoder.near.0", "encoder.far.0"], [8, 24]),
        ("encoder.near.2, encoder.far", "tsm-inplace", ["encoder.near.2", "encoder.far"], [16, 24]),
    ],
)
def test_a_network_of_ones_own_takes_modules_by_name_and_by_pattern(
    places: str, temporal: str, paths: list[str], channels: list[int]
) -> None:
    network = video_network(Scenes(), temporal=temporal, frames=3, num_classes=5, places=places)
    assert [placement.path for placement in network.placements] == paths
    assert [placement.channels for placement in network.placements] == channels
    logits = network(torch.rand(2, 3, 1, 9, 9))
    assert logits.shape == (2, 3, 5)
    assert [entry["channels"] for entry in describe(network, (9, 9))["inserted"]] == channels


class Fire(nn.Module):
    """Two convolutions beside each other, as in SqueezeNet's fire module, in one map or in a dictionary of two."""

    def __init__(self, as_dict: bool) -> None:
        super().__init__()
        self.left, self.right, self.as_dict = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 24, 3, padding=1), as_dict

    def forward(self, features: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        maps = {"left": self.left(features), "right": self.right(features)}
        return maps if self.as_dict else torch.cat(list(maps.values()), 1)


class Joined(nn.Module):
    def forward(self, maps: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat(list(maps.values()), 1)


@pytest.mark.parametrize(
    ("as_dict", "places", "temporal", "message"),
    [
        (False, "1", "gsm", r"'1' returns a map of 30 channels, but a map of 24 channels"),
        (True, "1", "gsf", r"'1' returns a value of type dict, but a map of 24 channels"),
        (True, "2", "tsm", r"'2' receives a value of type dict, but a map of 30 channels"),
    ],
)
def test_a_place_with_other_channels_than_its_convolution_says_so(
    as_dict: bool, places: str, temporal: str, message: str
) -> None:
    after = nn.Conv2d(30, 5, 1)
    body = [nn.Conv2d(1, 8, 3), Fire(as_dict), nn.Sequential(*([Joined()] if as_dict else []), after)]
    own = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(UserError, match=message + r".*name a module in places") as caught:
        video_network(own, temporal=temporal, frames=3, num_classes=5, places=places)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("places", [None, "decoder.*", "head"])
def test_where_no_place_is_found_the_names_that_there_are_are_said(places: str | None) -> None:
    with pytest.raises(UserError, match=r"stem, encoder, encoder\.near, encoder\.near\.0") as caught:
        video_network(Scenes(), temporal="tsm", frames=3, num_classes=5, places=places)
    assert "\n" not in str(caught.value)


def test_a_module_and_the_one_around_it_are_not_both_taken() -> None:
    with pytest.raises(UserError, match=r"encoder\.near\.0"):
        video_network(Scenes(), temporal="gsm", frames=3, num_classes=5, places="encoder.near,encoder.near.0")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet19"}, "resnet18"),
        ({"temporal": "tms"}, "tsm"),
        ({"fusion": "max"}, "mean-logits"),
        ({"task": "detection"}, "segmentation"),
        ({"frames": 0}, "frames = 0"),
        ({"wide_field": True, "name": "mobilenet_v2"}, "wide_field"),
        ({"wide_field": True, "name": "fcn_resnet50", "task": "segmentation"}, "dilated already"),
        ({"temporal": "none", "ratio": 0.5}, "no meaning"),
        ({"temporal": "conv3d", "ratio": 0.5}, "has no ratio"),
        ({"temporal": "tsm", "interleave": True}, "interleave"),
        ({"places": "layer9.*"}, "No place was found"),
        ({"auxiliary": True}, "auxiliary"),
        ({"feature_layer": "layer4"}, "networks of your own"),
        ({"name": nn.Linear(2, 2)}, "no Conv2d"),
        ({"name": nn.Sequential(nn.Conv2d(3, 3, 1))}, "places="),
        ({"weights": "DEFAULT"}, "No published weights"),
        ({"weights": "missing.pth"}, "does not exist"),
        ({"weights": "IMAGENET", "name": "resnet18"}, "IMAGENET1K_V1"),
    ],
)
def test_a_users_mistake_is_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        on_meta(**{"name": "tiny-resnet", **options})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 4, 3, 32, 32)])
def test_a_wrong_video_says_what_was_expected_and_received(shape: tuple[int, ...]) -> None:
    network = video_network("tiny-resnet", frames=3, num_classes=5)
    with pytest.raises(ValueError, match=r"\(B, 3, C, H, W\)") as caught:
        network(torch.zeros(shape))
    assert str(shape) in str(caught.value)
