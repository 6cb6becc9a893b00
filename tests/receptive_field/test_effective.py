"""Effective fields against convolution of kernels and single-image gradients."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.motions import Policy
from fieldshift.networks import video_network
from fieldshift.receptive_field import EffectiveField, check_comparable, effective, measures, probe


def images(count: int, channels: int = 3, size: int = 40) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def convolution(kernel: Tensor) -> nn.Conv2d:
    layer = nn.Conv2d(1, 1, tuple(kernel.shape), padding=kernel.shape[0] // 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(kernel)
    return layer


def test_a_linear_network_is_the_convolution_of_its_kernels() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(5, 5), torch.randn(3, 3)
    network = nn.Sequential(convolution(first), convolution(second))
    field = effective(network, images(2, 1, 21), trained=False)
    expected = np.abs(convolve2d(first.numpy(), second.numpy()))
    assert field.conditions.unit == (10, 10)
    torch.testing.assert_close(field.values[7:14, 7:14], torch.from_numpy(expected).double(), atol=1e-5, rtol=1e-4)
    assert float(field.values.sum()) == pytest.approx(float(expected.sum()), rel=1e-5)
    assert (field.theoretical_size, field.theoretical_area) == ((7, 7), 49.0)
    assert field.mass_standard_error == pytest.approx(0.0, abs=1e-6)
    assert measures(field).ratio_to_theory == pytest.approx(measures(field).area[0.99] / 49)


def test_a_stack_of_averages_becomes_gaussian() -> None:
    """Luo et al.: n uniform kernels of width k spread as a Gaussian with sigma^2 = n (k^2 - 1) / 12."""
    network = nn.Sequential(*[convolution(torch.full((3, 3), 1 / 9)) for _ in range(12)])
    found = measures(effective(network, images(1, 1, 41), trained=False))
    assert found.gaussian is not None
    sigma = (12 * 8 / 12) ** 0.5
    for ellipse in (found.moments, found.gaussian):
        assert (ellipse.along, ellipse.across) == pytest.approx((sigma, sigma), rel=0.03)


def test_the_mean_and_its_error_over_images_and_channels() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1))
    batch = images(5, 3, 16)
    single = torch.stack([effective(network, batch[i : i + 1], trained=False).values for i in range(5)])
    whole = effective(network, batch, trained=False, chunk=2)
    torch.testing.assert_close(whole.values, single.mean(dim=0))
    assert whole.standard_error is not None
    torch.testing.assert_close(whole.standard_error, single.std(dim=0) / 5**0.5, atol=1e-9, rtol=1e-4)
    masses = single.sum(dim=(1, 2))
    assert whole.mass == pytest.approx(float(masses.mean()))
    assert whole.mass_standard_error == pytest.approx(float(masses.std() / 5**0.5))
    assert effective(network, batch[:1], trained=False).mass_standard_error is None


@pytest.mark.parametrize("chunk", [1, None])
def test_the_chunk_does_not_matter(chunk: int | None) -> None:
    torch.manual_seed(0)
    network = video_network("tiny-resnet", temporal="gsf", frames=3, num_classes=10)
    policy = Policy.single("zoom", 1.4, frames=3)
    whole = effective(network, images(3), trained=False, policy=policy, chunk=3)
    part = effective(network, images(3), trained=False, policy=policy, chunk=chunk)
    torch.testing.assert_close(part.values, whole.values, atol=1e-7, rtol=1e-4)
    assert part.other_frames == pytest.approx(whole.other_frames, rel=1e-4)
    assert part.other_frames_error == pytest.approx(whole.other_frames_error, rel=1e-3)


def test_it_lies_within_the_theoretical_region_and_moves_with_the_policy() -> None:
    torch.manual_seed(0)
    network = video_network("tiny-resnet", temporal="tsm", frames=3, num_classes=10)
    plain = video_network("tiny-resnet", temporal="none", frames=1, num_classes=10)
    still = effective(plain, images(4), trained=False)
    field = effective(network, images(4), trained=False, policy=Policy.single("translate_x", 0.45, frames=3))
    assert field.all_frames is not None
    moved = field.all_frames
    assert int((field.values > 0).sum()) <= field.theoretical_area == 510.0  # type: ignore[operator]
    assert int((still.values > 0).sum()) <= still.theoretical_area == 225.0  # type: ignore[operator]
    assert int((moved.values > 0).sum()) <= moved.theoretical_area == 510.0  # type: ignore[operator]
    assert measures(moved).moments.along > 3 * measures(still).moments.along
    assert abs(measures(moved).moments.angle) < 5
    assert still.position == moved.position == (20.0, 20.0)  # the unit's place, whatever the motions
    check_comparable([still, moved])


def test_uint8_and_floats_are_the_same_images() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh())
    whole = (images(2, 1, 12) * 255).round().to(torch.uint8)
    left, right = (effective(network, x, trained=False).values for x in (whole, whole / 255))
    torch.testing.assert_close(left, right)


def test_a_layer_used_twice_counts_by_its_last_use() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.conv(self.conv(x))
            return result

    field = effective(Twice(), images(1, 1, 15), trained=False)
    assert field.theoretical_size == (5, 5)
    assert int((field.values > 0).sum()) == 25


def test_the_network_is_left_as_it_was() -> None:
    network = video_network("tiny-resnet", temporal="tsm", frames=3, num_classes=10).train()
    frozen = next(network.parameters()).requires_grad_(False)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    effective(network, images(3), trained=True, policy=Policy.replicate(3))
    assert all(part.training for part in network.modules())
    assert not frozen.requires_grad
    assert sum(parameter.requires_grad for parameter in network.parameters()) == len(list(network.parameters())) - 1
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_saved_and_read_again(tmp_path: Path) -> None:
    network = video_network("tiny-resnet", temporal="tsm", frames=3, num_classes=10)
    field = effective(network, images(2), trained=False, policy=Policy.single("rotate", 10.0, frames=3))
    again = EffectiveField.load(field.save(tmp_path / "field.npz"))
    assert again.conditions == field.conditions
    assert torch.equal(again.values, field.values)
    assert (again.mass, again.notes, again.theoretical_size) == (field.mass, field.notes, field.theoretical_size)
    assert again.position == field.position is not None
    tags = again.conditions.tags()
    assert (tags["conditions.unit"], tags["conditions.input_size"]) == ("5, 5", "40 x 40")
    assert tags["conditions.policy"] == "edge 0->1: rotate by 10 degrees at the outer frames"
    assert [path.name for path in tmp_path.iterdir()] == ["field.npz"]
    (tmp_path / "other.npz").write_text("nothing")
    with pytest.raises(UserError, match="not a saved receptive field"):
        EffectiveField.load(tmp_path / "other.npz")


def network_and_field(**changes: object) -> EffectiveField:
    torch.manual_seed(0)
    network = video_network("tiny-resnet", temporal="none", frames=1, num_classes=10)
    options: dict[str, object] = {"trained": False, "images": 2, "size": 40, **changes}
    batch = images(options.pop("images"), size=options.pop("size"))  # type: ignore[arg-type]
    return effective(network, batch, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 48}, "input size"),
        ({"trained": True}, "training"),
        ({"images": 3}, "number of images"),
        ({"images_kind": "noise"}, "kind of images"),
        ({"unit": (1, 2)}, "unit"),
        ({"layer": "network.conv1"}, "layer"),
    ],
)
def test_maps_of_different_conditions_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=f"cannot be compared: the {words} is"):
        check_comparable([network_and_field(), network_and_field(**changes)])


def test_a_small_image_is_noted() -> None:
    network = nn.Sequential(*[nn.Conv2d(1, 1, 7, padding=3) for _ in range(4)])
    field = effective(network, images(1, 1, 12), trained=False)
    assert any(
        n
        == "clipped: the theoretical field 25 x 25 px is larger than the image 12 x 12 px; 0, 7 x 7 px, is the last that "
        "fits: --layers 0"
        for n in field.notes
    )
    assert field.theoretical_area == 144.0


def test_bad_input() -> None:
    network = video_network("tiny-resnet", temporal="tsm", frames=3, num_classes=10)
    policy = Policy.replicate(3)
    with pytest.raises(UserError, match="There are no images"):
        effective(network, images(0), trained=False, policy=policy)
    with pytest.raises(UserError, match="Unknown layer 'network.block'. Nearest: network.block"):
        effective(network, images(1), trained=False, policy=policy, layer="network.block")
    with pytest.raises(UserError, match=r"Unit \(99, 0\) is outside the map"):
        effective(network, images(1), trained=False, policy=policy, unit=(99, 0))
    with pytest.raises(UserError, match="give the policy"):
        effective(network, images(1), trained=False)
    with pytest.raises(UserError, match="makes 5 frames, but the network reads 3 frames"):
        effective(network, images(1), trained=False, policy=Policy.replicate(5))
    with pytest.raises(UserError, match="reads single images"):
        effective(nn.Conv2d(3, 2, 3), images(1), trained=False, policy=policy)
    with pytest.raises(UserError, match="`mean` has 1 values, but the images have 3 channels"):
        effective(network, images(1), trained=False, policy=policy, mean=[0.5])


def test_why_a_gradient_is_zero() -> None:
    dead = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    with torch.no_grad():
        dead[0].bias.fill_(-100.0)  # type: ignore[operator]
    with pytest.raises(
        UserError, match=r"unit \(5, 5\) of layer '1' is zero at every pixel: its activations are all zero"
    ):
        effective(dead, images(2, 1, 12), trained=False)
    with torch.no_grad():
        dead[0].bias.fill_(1.0)  # type: ignore[operator]
        dead[0].weight.zero_()
    with pytest.raises(UserError, match="no weight passes it on"):
        effective(dead, images(2, 1, 12), trained=False)


class _Detaching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.first(x)
        result: Tensor = self.last(x)
        return result


def test_a_detached_layer_is_said_to_be_one() -> None:
    for measure in (
        lambda: effective(_Detaching(), images(2, 1, 12), trained=False),
        lambda: probe(_Detaching(), torch.zeros(1, 1, 12, 12), "last"),
    ):
        with pytest.raises(UserError, match="layer 'last' is zero at every pixel: its output is detached"):
            measure()


def test_more_images_make_the_standard_error_smaller() -> None:
    """Of independent images it falls as one over the root of their number; the mass itself stays."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.Tanh(), nn.Conv2d(8, 4, 3, padding=1))
    batch = torch.randn(1024, 1, 12, 12, generator=torch.Generator().manual_seed(1)) * 3
    found = [effective(network, batch[:count], trained=False) for count in (16, 64, 256, 1024)]
    errors = [field.mass_standard_error for field in found]
    for few, many in itertools.pairwise(errors):
        assert few is not None
        assert many is not None
        assert many / few == pytest.approx(0.5, rel=0.35)
    whole = found[-1].mass
    for field, error in zip(found, errors, strict=True):
        assert error is not None
        assert abs(field.mass - whole) < 4 * error


def test_the_probe_names_a_layer_without_a_map_and_one_that_ignores_the_image() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    with pytest.raises(UserError, match="does not output a map"):
        probe(network, torch.zeros(1, 1, 8, 8), "1")
    with pytest.raises(UserError, match=r"rows 0 to 5 and columns 0 to 5"):
        probe(network, torch.zeros(1, 1, 8, 8), "0", (6, 0))
