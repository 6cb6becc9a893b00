"""Folded networks on images whose sides the stride does not divide, against the video and the theory's strides."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from fieldshift.folding import PolicyMotion, fold, motions_of
from fieldshift.motions import Policy
from fieldshift.networks import video_network
from fieldshift.networks.cells import Cells, InImage, strides_at
from fieldshift.receptive_field import theory
from tests.networks.pairs import last_map, pair

STEP = 4  # pixels: one cell of the last map, two of the first place's
ODD = (93, 109)  # 46.5 x 54.5 and 23.25 x 27.25 cells


def moved(op: str, frames: int, size: tuple[int, int] = ODD) -> Policy:
    return Policy.single(op, STEP * (frames // 2) / size[op == "translate_x"], frames=frames)


@pytest.mark.parametrize(("temporal", "frames", "margin"), [("tsm", 5, 6), ("gsm", 9, 10)])
@pytest.mark.parametrize("op", ["translate_x", "translate_y"])
def test_whole_steps_are_those_of_the_video(op: str, temporal: str, frames: int, margin: int) -> None:
    """The step is that of the image in cells; in the map's rounded side it would be 24 / 23.25 as large."""
    policy = moved(op, frames)
    video, folded = pair(policy, temporal)
    images = torch.rand(1, 3, *ODD, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inside = (slice(margin, -margin), slice(margin, -margin))
    reference = last_map(video, policy.video(images))[frames // 2][:, *inside]
    assert reference.abs().max() > 0.1
    assert (reference - last_map(folded, images[:, None])[0][:, *inside]).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("side", "cells", "stride", "step"),
    [(360, 12, 32, 0.45 * 360 / 32), (225, 8, 32, 0.45 * 225 / 32), (45, 12, 4, 0.45 * 45 / 4), (28, 4, 8, 0.45 * 3.5)],
)
def test_a_step_in_cells_is_the_images_step_by_the_stride(side: int, cells: int, stride: int, step: float) -> None:
    """A single non-zero row, moved by part cells: its mean row tells the step."""
    found = Cells.of((cells, cells), (side, side), stride)
    assert found is not None
    _, sides = Policy.single("translate_y", 0.45, frames=3).neighbours(found.image)
    assert found.matrices(sides)[0, :, 1, 2].tolist() == pytest.approx([step, -step])
    rows = torch.zeros(1, 2, 2 * cells, 2 * cells)  # large enough to hold the step
    rows[:, :, cells - 1] = 1.0
    motion = PolicyMotion((Policy.single("translate_y", 0.45, frames=3),))
    after = motion((2 * cells, 2 * cells), rows, found).move(rows, 2)[0, :, :, 0]
    means = (after * torch.arange(2 * cells)).sum(1) / after.sum(1)
    assert means.tolist() == pytest.approx([cells - 1 + step, cells - 1 - step], abs=1e-5)


def test_where_the_stride_divides_the_side_nothing_changes_bit_for_bit() -> None:
    """With unknown strides, a motion is applied in the map's own side."""
    _, folded = pair(Policy.chain([("translate_x", 0.3), ("rotate", 20.0)], frames=3))
    modules = [module for module in folded.modules() if isinstance(module, InImage)]
    assert [module.stride for module in modules] == [2, 4]
    for size, same in (((96, 112), True), (ODD, False)):
        images = torch.rand(2, 1, 3, *size, dtype=torch.float64)
        known = folded(images)
        assert all((module.cells_of(tuple(n // module.stride for n in size)) is None) == same for module in modules)
        strides = [module.stride for module in modules]
        for module in modules:
            module.stride = None
        assert torch.equal(folded(images), known) == same
        for module, stride in zip(modules, strides, strict=True):
            module.stride = stride


@pytest.mark.parametrize("name", ["tiny-resnet", "resnet18", "mobilenet_v3_small", "convnext_tiny", "regnet_y_400mf"])
def test_strides_are_those_of_the_theory(name: str) -> None:
    network = video_network(name, frames=1, num_classes=5, motions=motions_of(Policy.replicate(3)))
    fields = {field.name: field for field in theory(network, 256)}
    found = {path: module.stride for path, module in network.named_modules() if isinstance(module, InImage)}
    assert len(found) == len(network.placements)
    assert {path: fields[path].stride for path in found} == {path: (s, s) for path, s in found.items()}


class _Fixed(nn.Module):
    """A network that needs data: its map depends on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images) * images.mean().item())  # type: ignore[no-any-return]


class _Keeping(nn.Sequential):
    """A network that keeps what it computed, and normalises a weight at each forward pass."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            nn.utils.weight_norm(self[0])

    def forward(self, images: Tensor) -> Tensor:
        self.features = super().forward(images)
        return self.features


def test_what_a_network_keeps_of_a_forward_pass_does_not_hide_its_strides() -> None:
    network = _Keeping()
    kept = network(torch.rand(1, 3, 21, 21))
    assert strides_at(network, [("1", True)]) == ([2], "0")
    assert network.features is kept


class _OfTwo(nn.Sequential):
    """A network that cannot be run with an image alone."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 16, 3))

    def forward(self, images: Tensor, more: Tensor) -> Tensor:
        return self[0](images + more)  # type: ignore[no-any-return]


def test_unknown_strides_leave_the_maps_own_side() -> None:
    network, of_two = _Fixed(), _OfTwo()
    uneven = nn.Sequential(nn.Conv2d(3, 16, 3, stride=(2, 1), padding=1), nn.Conv2d(16, 16, 1), nn.AdaptiveAvgPool2d(4))
    before = torch.get_rng_state()
    assert strides_at(network, [("second", True)]) == ([2], "first")  # on black images
    assert strides_at(uneven, [("1", True), ("2", False)]) == ([None, None], "0")
    assert strides_at(of_two, [("0", True)]) == ([None], None)
    assert torch.equal(before, torch.get_rng_state())
    fold(network, Policy.single("translate_x", 0.4, frames=3), "second")
    assert network(torch.rand(1, 3, 21, 21)).shape == (1, 16, 11, 11)
    unpadded = nn.Sequential(nn.Conv2d(3, 16, 5), nn.Conv2d(16, 16, 3))
    assert strides_at(unpadded, [("1", True)]) == ([1], "0")
    assert Cells.of((28, 28), (32, 32), 1) is None
    assert Cells.of((20, 20), (45, 45), 2) is None  # more than rounding


def test_a_second_motion_at_another_place_finds_its_stride() -> None:
    """The network is measured without the channels that move in it already, at any size."""
    network = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 2, 1), nn.Conv2d(16, 16, 3))
    for place, motion in (("1", moved("translate_x", 3)), ("2", Policy.single("rotate", 20.0, frames=3))):
        fold(network, motion, place)
    assert [module.stride for module in network.modules() if isinstance(module, InImage)] == [2, 4]


def test_the_image_is_known_in_training_with_an_auxiliary_head() -> None:
    motions = motions_of(Policy.single("translate_x", 0.4, frames=3))
    options = {"task": "segmentation", "auxiliary": True, "num_classes": 3}
    network = video_network("fcn_resnet18", frames=1, motions=motions, **options).train()  # type: ignore[arg-type]
    network(torch.rand(2, 1, 3, 45, 64))
    assert {module.read.size for module in network.modules() if isinstance(module, InImage)} == {(45, 64)}


class _Named(nn.Module):
    """A network whose features can be read without its forward pass, and which checks its images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 16, 3, 4, 1), nn.Conv2d(16, 16, 3, padding=1)

    def features(self, images: Tensor) -> Tensor:
        assert images.max() <= 1
        return self.last(self.stem(images))  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images).mean((2, 3))


@pytest.fixture
def named() -> nn.Module:
    torch.manual_seed(0)
    network = _Named().double().eval()
    fold(network, Policy.single("translate_x", 0.4, frames=3), "last")
    return network


def test_every_way_into_a_network_knows_the_image(named: nn.Module) -> None:
    for images in (torch.rand(2, 3, 45, 61, dtype=torch.float64), torch.rand(2, 3, 48, 61, dtype=torch.float64)):
        fresh = copy.deepcopy(named).features(images)  # type: ignore[operator]
        for network in (named, pickle.loads(pickle.dumps(named))):
            called = network(images)
            assert torch.equal(network(images=images), called)
            assert torch.equal(network.features(images), fresh)
            assert torch.equal(fresh.mean((2, 3)), called)


def test_an_exchanged_first_convolution_leaves_the_image_known(named: nn.Module) -> None:
    images = torch.rand(2, 3, 45, 61, dtype=torch.float64)
    expected = named(images)
    stem = nn.Conv2d(3, 16, 3, 4, 1).double()
    stem.load_state_dict(named.get_submodule("stem").state_dict())
    named.stem = stem
    named.features(torch.rand(2, 3, 52, 52, dtype=torch.float64))  # type: ignore[operator]
    assert torch.equal(named(images), expected)


def test_what_is_computed_again_reads_the_image_of_its_first_pass() -> None:
    """Backward passes in another thread, after all images were read; the first stage begins with the first convolution."""
    options = {"frames": 1, "num_classes": 3, "motions": motions_of(Policy.single("translate_x", 0.4, frames=3))}
    torch.manual_seed(0)
    plain = video_network("mobilenet_v3_small", **options).double().eval()  # type: ignore[arg-type]
    again = video_network("mobilenet_v3_small", recompute=True, **options).double().eval()  # type: ignore[arg-type]
    again.load_state_dict(plain.state_dict())
    pictures = [torch.rand(2, 1, 3, side, side, dtype=torch.float64) for side in (64, 61, 75)]
    found = []
    for network in (plain, again):
        losses = [network(picture).square().sum() for picture in pictures]
        with ThreadPoolExecutor(1) as pool:
            gradients = [pool.submit(torch.autograd.grad, loss, list(network.parameters())) for loss in losses]
            found.append([each.result() for each in gradients])
    for expected, gradient in zip(*found, strict=True):
        for one, other in zip(expected, gradient, strict=True):
            torch.testing.assert_close(other, one, atol=1e-12, rtol=1e-9)


def test_threads_with_images_of_their_own_sizes_share_a_network(named: nn.Module) -> None:
    pictures = [torch.rand(1, 3, side, side + 8, dtype=torch.float64) for side in (45, 46, 47, 50)]
    expected = [named(picture) for picture in pictures]
    together = threading.Barrier(len(pictures))

    def wait_for_others(*_: object) -> None:
        together.wait(60)

    hold = named.get_submodule("stem").register_forward_hook(wait_for_others)

    def read(number: int) -> bool:
        return all(torch.equal(named(pictures[number]), expected[number]) for _ in range(5))

    with ThreadPoolExecutor(len(pictures)) as pool:
        assert all(pool.map(read, range(len(pictures))))
    hold.remove()


def test_an_export_on_an_odd_side_gives_the_same_numbers() -> None:
    _, folded = pair(moved("translate_x", 5))
    images = torch.rand(2, 1, 3, *ODD, dtype=torch.float64)
    with torch.no_grad():
        expected = folded(images)
        program = torch.export.export(folded, (images,)).module()
        torch.testing.assert_close(program(images), expected)
