"""Networks that hold a module twice, do not run one, or run one in another way: folded wherever it runs, or refused."""

from __future__ import annotations

import copy
import math
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.models import resnet18

from fieldshift import find_policy, fold
from fieldshift.data import TensorSplit
from fieldshift.errors import UserError
from fieldshift.motions import Policy
from fieldshift.networks import Inserted, flops_per_image, video_network
from fieldshift.networks.insertion import placements_by_pattern
from fieldshift.networks.running import not_run
from fieldshift.networks.temporal import temporal_kind
from fieldshift.receptive_field import theory
from fieldshift.search import SearchConfig

pytestmark = pytest.mark.filterwarnings("ignore:.*may be chance:UserWarning")  # short searches of few images

SHIFT = Policy.single("translate_x", 0.25, frames=3)
QUICK = SearchConfig(epochs=1, tune_epochs=0, batch=32)


class Twice(nn.Module):
    """Holds its convolutions as attributes and in a Sequential, which runs them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.features = nn.Sequential(self.conv1, nn.ReLU(), self.conv2, nn.ReLU())
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


class Once(nn.Module):
    """The same function with every module under one name."""

    def __init__(self, like: Twice) -> None:
        super().__init__()
        self.features, self.head = copy.deepcopy(like.features), copy.deepcopy(like.head)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


class Others(nn.Module):
    """Runs `listed` from a Python list, `held` part by part, and `spare` never."""

    def __init__(self) -> None:
        super().__init__()
        self.listed, self.spare = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3)
        self.held = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.layers = [self.listed]

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.layers, *self.held):
            x = layer(x)
        return x


class Joined(nn.Module):
    """Runs a block on two maps, and reads the precision of a convolution."""

    class Up(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(16, 16, 3, padding=1)
            self.last = nn.Conv2d(32, 16, 1)

        def forward(self, low: Tensor, skip: Tensor) -> Tensor:
            joined: Tensor = self.last(torch.cat([self.conv(low), skip], 1))
            return joined

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up = nn.Conv2d(3, 16, 3, padding=1), self.Up()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.to(self.stem.weight.dtype))
        joined: Tensor = self.up(x, skip=x)
        return joined


class Viewed(nn.Module):
    """Takes its last map for contiguous memory, as many networks of tutorials do."""

    def __init__(self, *, views: bool) -> None:
        super().__init__()
        self.views = views
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2):
            x = F.max_pool2d(F.relu(conv(x)), 2)
        logits: Tensor = self.head(x.view(len(x), -1) if self.views else x.flatten(1))
        return logits


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def train() -> TensorSplit:
    pixels = torch.randint(0, 256, (96, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    return TensorSplit(pixels, torch.arange(96) % 10)


@pytest.mark.parametrize("name", ["conv2", "features.2", "conv2,features.2", "*2"])
def test_a_module_of_two_names_moves_wherever_it_runs(name: str, images: Tensor) -> None:
    twice = Twice()
    once = Once(twice)
    fold(once, SHIFT, places="features.2")
    assert len(fold(twice, SHIFT, places=name)) == 1
    assert isinstance(twice.conv2, Inserted)
    assert twice.features[2] is twice.conv2
    assert torch.equal(twice(images), once(images))


def test_a_module_that_runs_twice_moves_both_times(images: Tensor) -> None:
    shared = nn.Conv2d(16, 16, 3, padding=1)
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), shared, nn.ReLU(), shared)
    apart = nn.Sequential(*(copy.deepcopy(layer) for layer in network))
    fold(apart, SHIFT, places="[13]")
    fold(network, SHIFT, places="[13]")
    assert torch.equal(network(images), apart(images))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("listed", "names 'listed', but a forward pass of images alone does not run it"),
        ("spare", "names 'spare', but a forward pass of images alone does not run it"),
        ("held", "The place 'held' is run part by part"),
    ],
)
def test_a_place_that_is_not_run_is_refused(name: str, reason: str, images: Tensor) -> None:
    network = Others()
    names, before = list(network.state_dict()), network(images)
    with pytest.raises(UserError, match=reason):
        fold(network, SHIFT, places=name, ratio=0.34)
    assert list(network.state_dict()) == names
    assert torch.equal(network(images), before)
    assert not network._forward_pre_hooks


def test_a_map_of_other_channels_is_refused_by_fold(images: Tensor) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.PixelShuffle(2), nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(16, 8, 1))
    )
    before = network(images)
    with pytest.raises(UserError, match="The place '2' receives a map of 4 channels, but a map of 16 channels"):
        fold(network, SHIFT, places="2")
    assert torch.equal(network(images), before)


def test_a_part_that_only_training_runs_is_a_place(images: Tensor) -> None:
    class Auxiliary(Others):
        def forward(self, x: Tensor) -> Tensor:
            x = self.listed(x)
            return self.spare(x) if self.training else self.held(x)

    network = Auxiliary()
    assert [each.path for each in fold(network, SHIFT, places="spare,held")] == ["spare", "held"]
    assert not not_run(network, Inserted)


def test_a_block_of_two_maps_moves_the_first(images: Tensor) -> None:
    whole, inner = Joined(), Joined()
    inner.load_state_dict(whole.state_dict())
    fold(whole, SHIFT, places="up")
    fold(inner, SHIFT, places="up.conv")
    assert torch.equal(whole(images), inner(images))


def test_an_inserted_module_has_the_attributes_of_the_module_around_it(images: Tensor) -> None:
    network = Joined()
    weight = network.stem.weight
    fold(network, SHIFT, places="stem", ratio=0.34)
    assert network(images).shape == (2, 16, 32, 32)
    assert network.stem.weight is weight
    with pytest.raises(AttributeError, match="'Conv2d' object has no attribute 'absent'"):
        _ = network.stem.absent
    assert copy.deepcopy(network).stem.path == "stem"


def test_a_place_whose_parts_are_run_one_by_one_is_refused(images: Tensor) -> None:
    layers = nn.Sequential(nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU()), nn.Conv2d(16, 16, 1))
    fold(layers, SHIFT, places="0", ratio=0.34)
    for run in (lambda: [layer(images) for layer in layers[0]], lambda: layers[0][1](images)):
        with pytest.raises(UserError, match="The place '0' is run part by part"):
            run()


def test_the_images_read_before_do_not_matter() -> None:
    """An unpadded stride: 96 and 95 pixels have maps of one size, which fits neither's side divided by the stride."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.Conv2d(16, 16, 3, 1, 1)).eval()
    fold(network, SHIFT, places="1")
    first, other = torch.rand(2, 3, 96, 96), torch.rand(2, 3, 95, 95)
    before = network(first)
    network(other)
    assert torch.equal(network(first), before)


def test_a_network_that_cannot_be_copied_is_described_and_folded(images: Tensor) -> None:
    class Holds(Once):
        def __init__(self) -> None:
            super().__init__(Twice())
            self.lock, self.module, self.maps = threading.Lock(), math, [self.features(torch.rand(1, 3, 8, 8))]

    network = Holds()
    assert flops_per_image(video_network(network, temporal="none", frames=1, num_classes=10), (32, 32)) > 0
    before = network(images)
    fold(network, SHIFT, places="features.2")
    assert not torch.equal(network(images), before)
    assert network.maps[0].grad_fn is not None


@pytest.mark.parametrize("name", ["small", "big", "bright"])
def test_a_place_that_some_images_run_is_one(name: str) -> None:
    class Depends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small, self.big, self.bright = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))
            self.stem = nn.Conv2d(3, 16, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            if not x.is_meta and x.sum() > 0:
                y = self.bright(y)
            return self.small(y) if x.shape[-1] < 100 else self.big(y)

    assert len(fold(Depends(), SHIFT, places=name)) == 1


def test_a_search_with_a_module_of_two_names_is_that_without(train: TensorSplit) -> None:
    twice = Twice()
    found = find_policy(twice, train, places="conv2", config=QUICK)
    expected = find_policy(Once(twice), train, places="features.2", config=QUICK)
    assert found.policy.edges == expected.policy.edges
    losses, others = ([row["train/loss"] for row in each.history if "train/loss" in row] for each in (found, expected))
    assert losses == pytest.approx(others, rel=1e-6)


@pytest.mark.parametrize("order", ["first", "second", "second-exact"])
def test_tied_weights_are_searched_with(order: Any, train: TensorSplit) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip
    network[4].weight = network[2].weight
    config = SearchConfig(epochs=1, tune_epochs=0, batch=32, order=order, optimizer="sgd", learning_rate=0.025)
    assert find_policy(network, train, places="2", config=config).policy.frames == 3
    assert network[4].weight is network[2].weight
    assert isinstance(network[2].weight, nn.Parameter)


def test_what_describes_a_network_leaves_its_modules_their_parameters(images: Tensor) -> None:
    twice = Twice()
    once, before = Once(twice), twice(images)
    counted = [
        flops_per_image(video_network(each, temporal="tsm", frames=3, places="features.2", num_classes=10), (32, 32))
        for each in (copy.deepcopy(twice), copy.deepcopy(once))
    ]
    assert counted[0] == counted[1] > 0
    fields = {field.name: field.size for field in theory(twice, 32)}
    assert fields["features"] == {field.name: field.size for field in theory(once, 32)}["features"] == (5, 5)
    assert all(isinstance(each, nn.Parameter) for each in (twice.conv1.weight, twice.conv2.bias))
    assert torch.equal(twice(images), before)


def test_a_network_that_views_its_maps_is_searched_as_one_that_flattens_them(
    train: TensorSplit, caplog: pytest.LogCaptureFixture
) -> None:
    views, flattens = Viewed(views=True), Viewed(views=False)
    flattens.load_state_dict(views.state_dict())
    found = find_policy(views, train, places="conv2", config=QUICK)
    assert "channels_last is off" in caplog.text
    caplog.clear()
    expected = find_policy(flattens, train, places="conv2", config=QUICK)
    assert not caplog.text
    assert found.policy.edges == expected.policy.edges


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_of_two_image_sizes_have_the_gradients_of_one_pass(reentrant: bool) -> None:
    torch.manual_seed(0)
    plain = resnet18(num_classes=10).eval()
    fold(plain, SHIFT)
    kept = copy.deepcopy(plain)
    sizes = [torch.rand(2, 3, side, side) for side in (72, 64)]

    def read(x: Tensor) -> Tensor:
        x = kept.maxpool(kept.relu(kept.bn1(kept.conv1(x))))
        for stage in (kept.layer1, kept.layer2, kept.layer3, kept.layer4):
            x = checkpoint(stage, x, use_reentrant=reentrant)
        return kept.fc(kept.avgpool(x).flatten(1))

    sum(plain(images).sum() for images in sizes).backward()
    sum(read(images).sum() for images in sizes).backward()
    for name, expected in plain.named_parameters():
        torch.testing.assert_close(kept.get_parameter(name).grad, expected.grad, msg=name)


def test_a_pattern_names_a_shared_module_once() -> None:
    found = placements_by_pattern(Twice(), temporal_kind("tsm"), "conv*,features.*")
    assert [each.path for each in found] == ["conv1", "conv2"]
