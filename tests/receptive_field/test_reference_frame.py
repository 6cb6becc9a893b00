"""The reference frame's unit, and the share of its gradient that arrives through other frames, against perturbations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.folding import fold, motions_of, still
from fieldshift.motions import Policy
from fieldshift.networks import TEMPORAL, video_network
from fieldshift.networks.shift import TSM
from fieldshift.receptive_field import EffectiveField, check_comparable, effective, measures, reshaped
from fieldshift.receptive_field.arrivals import copies_for

ACROSS = Policy.single("translate_x", 0.2, frames=5)  # of 40 px: steps of 4, whole cells of every map of tiny-resnet


def images(count: int = 2, channels: int = 3, size: int = 40) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def slopes(function: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """The derivative of a number with respect to every pixel (H, W) of an image (1, 1, H, W), by central differences.

    function: images (B, 1, H, W) -> numbers (B,).
    """
    steps = 1e-6 * torch.eye(image.numel(), dtype=image.dtype).view(-1, *image.shape[1:])
    return ((function(image + steps) - function(image - steps)) / 2e-6).view(image.shape[-2:])


@pytest.mark.parametrize("temporal", ["tsm", "gsf"])
@pytest.mark.parametrize("reference", ["centre", "first"])
def test_every_pixel_is_perturbed(temporal: str, reference: str) -> None:
    """Moving one pixel in the reference frame alone, in the others alone, and in all of them, at a time."""
    torch.manual_seed(0)
    network = video_network("tiny-resnet", temporal=temporal, frames=3, num_classes=4, in_channels=1).double().eval()
    policy = Policy.single("rotate", 25.0, frames=3, reference=reference)
    image = images(1, 1, 16).double()
    field = effective(network, image, trained=False, policy=policy, mean=[0.4], std=[0.3])
    kept: list[Tensor] = []
    network.get_submodule(network.feature_layer).register_forward_hook(lambda *args: kept.append(args[2]))
    row, column = field.conditions.unit
    own = 1 if reference == "centre" else 0
    fixed = policy.video(image)

    def unit(video: Tensor) -> Tensor:
        with torch.no_grad():
            network((video - 0.4) / 0.3)
        return kept.pop()[:, :, row, column].sum(dim=1).unflatten(0, (-1, 3))  # (B, T)

    def through(frames: list[int]) -> Callable[[Tensor], Tensor]:
        def moved(pixels: Tensor) -> Tensor:
            video = fixed.repeat(len(pixels), 1, 1, 1, 1)
            video[:, frames] = policy.video(pixels)[:, frames]
            return unit(video)[:, own]

        return moved

    others = [t for t in range(3) if t != own]
    through_own, through_others = slopes(through([own]), image).abs(), slopes(through(others), image).abs()
    whole = slopes(lambda pixels: unit(policy.video(pixels))[:, own], image).abs()
    torch.testing.assert_close(field.values, whole, atol=1e-7, rtol=1e-4)
    share = float(through_others.sum() / (through_own.sum() + through_others.sum()))
    assert field.other_frames == pytest.approx(share, rel=1e-4)
    assert 0.001 < share < 0.98
    averaged = slopes(lambda pixels: unit(policy.video(pixels)).mean(dim=1), image).abs()
    assert field.all_frames is not None
    torch.testing.assert_close(field.all_frames.values, averaged, atol=1e-7, rtol=1e-4)


class Mixed(nn.Module):
    """A video network with the answer by hand: frame t is `own` x_t + `ahead` x_(t+1) + `behind` x_(t-1), pixel by pixel."""

    temporal, feature_layer = "by hand", "last"

    def __init__(self, frames: int, own: float, ahead: float, behind: float) -> None:
        super().__init__()
        self.frames = frames
        self.shift, self.last = TSM(3, frames, ratio=0.34), nn.Conv2d(3, 1, 1, bias=False)
        with torch.no_grad():
            self.last.weight.copy_(torch.tensor([ahead, behind, own]).view(1, 3, 1, 1))

    def forward(self, video: Tensor) -> Tensor:
        rows = video.flatten(0, 1).expand(-1, 3, -1, -1)
        result: Tensor = self.last(self.shift(rows))
        return result


@pytest.mark.parametrize(
    ("weights", "share"),
    [((1.0, 0.0, 0.0), 0.0), ((3.0, 1.0, 0.0), 0.25), ((1.0, 2.0, -1.0), 0.75), ((0.0, 1.0, 1.0), 1.0)],
)
def test_a_share_that_is_known(weights: tuple[float, float, float], share: float) -> None:
    """The frames are moved by 2 px a step, so the three weights arrive at three pixels."""
    own, ahead, behind = weights
    field = effective(
        Mixed(5, *weights), images(3, 1, 21), trained=False, policy=Policy.single("translate_x", 4 / 21, frames=5)
    )
    assert field.other_frames == pytest.approx(share)
    assert field.other_frames_error == pytest.approx(0.0, abs=1e-7)
    expected = torch.zeros(21, 21, dtype=torch.float64)
    expected[10, 10], expected[10, 8], expected[10, 12] = abs(own), abs(ahead), abs(behind)
    torch.testing.assert_close(field.values, expected, atol=1e-5, rtol=1e-5)


def share_of(temporal: str, policy: Policy) -> float:
    torch.manual_seed(0)
    network = video_network("tiny-resnet", temporal=temporal, frames=policy.frames, num_classes=4)
    found = effective(network, images(), trained=False, policy=policy).other_frames
    assert found is not None
    return found


@pytest.mark.parametrize("temporal", TEMPORAL)
@pytest.mark.parametrize("policy", [ACROSS, Policy.replicate(3)], ids=["moved", "equal frames"])
def test_frames_that_never_meet_share_nothing(temporal: str, policy: Policy) -> None:
    share = share_of(temporal, policy)
    starts_alone = temporal in ("none", "conv3d", "gsm")  # without a shift, as the identity, with a gate of zero
    assert (share == 0.0) == starts_alone
    assert share < 1.0


def test_one_frame_has_no_others() -> None:
    torch.manual_seed(0)
    plain = video_network("tiny-resnet", temporal="none", frames=1, num_classes=4)
    still_inside = video_network("tiny-resnet", temporal="tsm", frames=1, num_classes=4, motions=still(1))
    for network in (plain, still_inside):
        field = effective(network, images(), trained=False)
        assert (field.other_frames, field.all_frames) == (0.0, None)


def test_the_union_of_frames_alone_widens_only_the_mean_over_frames() -> None:
    torch.manual_seed(0)
    plain = video_network("tiny-resnet", temporal="none", frames=1, num_classes=4)
    apart = video_network("tiny-resnet", temporal="none", frames=3, num_classes=4)
    apart.load_state_dict(plain.state_dict())
    policy = Policy.single("translate_x", 0.4, frames=3)
    alone = effective(plain, images(), trained=False)
    field = effective(apart, images(), trained=False, policy=policy)
    torch.testing.assert_close(field.values, alone.values)
    assert field.other_frames == 0.0
    assert field.all_frames is not None
    assert measures(field.all_frames).moments.along > 3 * measures(field).moments.along
    regions = reshaped(policy, apart, 40)
    assert regions.reference.area == regions.plain.area == field.theoretical_area
    assert field.all_frames.theoretical_area == regions.fused.area


@pytest.mark.parametrize("frames", [5, 9])
def test_both_forms_have_the_same_share_where_they_have_the_same_features(frames: int) -> None:
    """Steps of whole cells and T // 2 at least the number of modules; the video's paths away and back are its own."""
    torch.manual_seed(0)
    policy = Policy.single("translate_x", 0.1 * (frames // 2), frames=frames)  # 4 px a step
    video = video_network("tiny-resnet", temporal="tsm", frames=frames, num_classes=4).double()
    folded = video_network("tiny-resnet", temporal="tsm", frames=1, num_classes=4, motions=motions_of(policy)).double()
    folded.load_state_dict(video.state_dict())
    one, other = effective(video, images(), trained=False, policy=policy), effective(folded, images(), trained=False)
    torch.testing.assert_close(one.values, other.values, atol=1e-12, rtol=1e-9)
    assert one.other_frames == pytest.approx(other.other_frames, rel=1e-9)
    assert one.other_frames_error == pytest.approx(other.other_frames_error, rel=1e-6)
    assert other.other_frames is not None
    assert 0.1 < other.other_frames < 0.9


class Chain(nn.Module):
    """Convolutions of 1 x 1 over three channels, each behind a place: of every place one channel moves each way."""

    def __init__(self, *weights: tuple[float, float, float]) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 1, bias=False)
        self.convs = nn.Sequential(*[nn.Conv2d(3, 3, 1, bias=False) for _ in weights])
        with torch.no_grad():
            self.first.weight.fill_(1.0)
            for conv, row in zip(self.convs, weights, strict=True):
                conv.weight.copy_(torch.tensor(row).expand(3, 3)[:, :, None, None])  # type: ignore[operator]

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.convs(self.first(images))
        return result


@pytest.mark.parametrize("places", [1, 2, 5])
def test_moved_channels_by_hand(places: int) -> None:
    """Every place splits the gradient into ahead, behind and staying: powers of a polynomial, whose middle is the own."""
    ahead, behind, stays = 0.3, 0.2, 0.5
    network = Chain(*[(ahead, behind, stays)] * places)
    fold(network, Policy.single("translate_x", 2 / 41, frames=3), places="convs.*", ratio=0.34)
    field = effective(network, images(2, 1, 41), trained=False)
    steps = {0: 1.0}
    for _ in range(places):
        steps = {
            k: ahead * steps.get(k - 1, 0.0) + behind * steps.get(k + 1, 0.0) + stays * steps.get(k, 0.0)
            for k in range(-places, places + 1)
        }
    assert field.other_frames == pytest.approx(1 - steps[0], rel=1e-3 if copies_for(places) < 2 * places + 1 else 1e-5)
    row = 3.0 * torch.tensor([steps.get(-k // 2, 0.0) if k % 2 == 0 else 0.0 for k in range(-20, 21)])
    torch.testing.assert_close(field.values[20], row.double(), atol=1e-5, rtol=1e-4)
    assert all(
        part.motion.__class__.__name__ == "PolicyMotion" for part in network.modules() if hasattr(part, "motion")
    )


@pytest.mark.parametrize("temporal", [name for name, kind in TEMPORAL.items() if kind.folded is not None])
def test_a_map_is_the_sum_over_all_ways(temporal: str) -> None:
    """The copies that tell the ways apart change nothing: their gradients add up to that of the network as it is."""
    torch.manual_seed(0)
    network = video_network(
        "tiny-resnet", temporal=temporal, frames=1, num_classes=4, motions=motions_of(ACROSS)
    ).eval()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1))
    pixels = images(2).requires_grad_(True)
    field = effective(network, pixels, trained=False)
    kept: list[Tensor] = []
    network.get_submodule(network.feature_layer).register_forward_hook(lambda *args: kept.append(args[2]))
    network(pixels[:, None])
    row, column = field.conditions.unit
    (gradient,) = torch.autograd.grad(kept[0][:, :, row, column].sum(), pixels)
    torch.testing.assert_close(field.values, gradient.abs().mean(dim=(0, 1)).double(), atol=1e-6, rtol=1e-3)
    assert field.other_frames is not None
    assert field.other_frames > 0.01


def test_a_unit_behind_the_fusion_belongs_to_no_frame() -> None:
    torch.manual_seed(0)
    network = Mixed(3, 1.0, 1.0, 1.0)

    class Fused(nn.Module):
        temporal, frames = "by hand", 3

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.after = network, nn.Conv2d(1, 1, 1, bias=False)

        def forward(self, video: Tensor) -> Tensor:
            result: Tensor = self.after(self.inner(video).unflatten(0, (-1, 3)).mean(dim=1))
            return result

    field = effective(Fused(), images(1, 1, 15), trained=False, policy=Policy.replicate(3), layer="after")
    assert (field.other_frames, field.all_frames, field.conditions.of) == (None, None, "all frames")


@pytest.fixture(scope="module")
def shifted() -> EffectiveField:
    torch.manual_seed(0)
    network = video_network("tiny-resnet", temporal="tsm", frames=5, num_classes=4)
    return effective(network, images(), trained=False, policy=ACROSS)


def test_both_maps_are_saved_and_are_not_mixed_up(shifted: EffectiveField, tmp_path: Path) -> None:
    again = EffectiveField.load(shifted.save(tmp_path / "field.npz"))
    assert again.all_frames is not None
    assert shifted.all_frames is not None
    assert torch.equal(again.all_frames.values, shifted.all_frames.values)
    assert (again.other_frames, again.other_frames_error) == (shifted.other_frames, shifted.other_frames_error)
    assert [each.conditions.of for each in (again, again.all_frames)] == ["reference frame", "all frames"]
    assert "unit (5, 5) of the reference frame" in again.conditions.lines()[0]
    assert "mean of unit (5, 5) over all frames" in again.all_frames.conditions.lines()[0]
    with pytest.raises(UserError, match="the unit is of the reference frame for .* and of the all frames for"):
        check_comparable([again, again.all_frames])
    whole = (tmp_path / "field.npz").read_bytes()
    for kept in (0, len(whole) // 2):
        (tmp_path / "cut.npz").write_bytes(whole[:kept])
        with pytest.raises(UserError, match="not a saved receptive field"):
            EffectiveField.load(tmp_path / "cut.npz")
