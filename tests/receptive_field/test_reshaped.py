"""Reshaped regions against the warp itself: a pixel is inside where a box in the moved frame depends on it."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from fieldshift.errors import UserError
from fieldshift.motions import MOTIONS, Edge, Policy, Step
from fieldshift.networks import video_network
from fieldshift.receptive_field import LayerField, Region, reshaped

MAGNITUDES = {
    "identity": (0.0,),
    "zoom": (0.6, 1.7),
    "rotate": (-35.0, 50.0),
    "shear_x": (-20.0, 25.0),
    "shear_y": (-20.0, 25.0),
}
CASES = [(name, magnitude) for name in sorted(MOTIONS) for magnitude in MAGNITUDES.get(name, (-0.3, 0.4))]


def layer(frames_seen: tuple[tuple[int, int], ...], box: tuple[int, int, int, int] = (14, 16, 24, 26)) -> LayerField:
    """A layer of one unit that sees `box` (top, left, bottom, right)."""
    return LayerField(
        name="layer",
        kind="Conv2d",
        size=(box[2] - box[0] + 1, box[3] - box[1] + 1),
        stride=(1.0, 1.0),
        start=(box[0], box[1]),
        map_size=(1, 1),
        frames_seen=frames_seen,
        rows=((box[0], box[2]),),
        columns=((box[1], box[3]),),
    )


def seen_through_the_warp(
    policy: Policy, frames: list[int], box: tuple[int, int, int, int], size: tuple[int, int]
) -> Tensor:
    """The pixels with a gradient when the box of these frames is summed."""
    image = torch.rand(1, 1, *size, dtype=torch.float64, requires_grad=True)
    video = policy.video(image)[0, frames, 0]
    (gradient,) = torch.autograd.grad(video[:, box[0] : box[2] + 1, box[1] : box[3] + 1].sum(), image)
    return gradient[0, 0].abs() > 1e-9


def differing(mask: Tensor, other: Tensor) -> Tensor:
    """Pixels of `mask` further than one pixel from `other`."""
    grown = torch.nn.functional.max_pool2d(other.double()[None, None], 3, 1, 1)[0, 0] > 0
    return mask & ~grown


@pytest.mark.parametrize(("name", "magnitude"), CASES)
def test_every_motion_against_the_warp(name: str, magnitude: float) -> None:
    size, box = (41, 48), (14, 16, 24, 26)
    policy = Policy.single(name, magnitude, frames=3)
    for frame in range(3):
        seen = tuple((t, t) for t in range(3))
        region = reshaped(policy, layer(seen, box), size).frames[frame].mask
        measured = seen_through_the_warp(policy, [frame], box, size)
        assert not differing(region, measured).any()
        assert not differing(measured, region).any()


def test_the_union_over_reach_and_fusion() -> None:
    policy = Policy.single("translate_x", 0.3, frames=3)
    found = reshaped(policy, layer(((0, 1), (0, 2), (1, 2)), (16, 16, 23, 23)), 40)
    assert [region.area for region in found.frames] == [2 * 64.0, 3 * 64.0, 2 * 64.0]
    assert found.fused.area == 3 * 64.0
    assert found.plain.area == 64.0
    assert found.fused.extent == (8.0, 32.0)  # shifts of 12 px to either side of 8 px
    assert found.fused.angle == pytest.approx(0.0, abs=1e-6)
    assert found.plain.anisotropy == pytest.approx(1.0)
    assert found.fused.anisotropy == pytest.approx(math.sqrt((64 / 12 + 2 / 3 * 144) / (64 / 12)))
    assert int(found.fused.mask.sum()) == 192
    assert not found.clipped
    assert json.loads(json.dumps(found.to_json()))["fused"]["area"] == 192.0


def test_magnification_and_rotation_have_known_areas() -> None:
    wide = layer(((0, 0), (1, 1), (2, 2)), (16, 16, 24, 24))
    zoomed = reshaped(Policy.single("zoom", 1.5, frames=3), wide, 41)
    assert [r.area for r in zoomed.frames] == pytest.approx([81 * 2.25, 81.0, 81 / 2.25], rel=0.08)
    turned = reshaped(Policy.single("rotate", 45.0, frames=3), wide, 41)
    assert [r.area for r in turned.frames] == pytest.approx([81.0, 81.0, 81.0], rel=0.02)
    octagon = 2 * 81 * (math.sqrt(2) - 1)  # the part that two squares turned by 45 degrees share
    assert turned.fused.area == pytest.approx(2 * 81 - octagon, rel=0.02)


def test_content_that_moves_right_is_seen_on_the_left() -> None:
    policy = Policy.single("translate_x", 0.25, frames=3)
    found = reshaped(policy, layer(((0, 0), (1, 1), (2, 2)), (18, 18, 21, 21)), 40)
    assert found.frames[2].centre == pytest.approx((19.5, 9.5))
    assert found.frames[0].centre == pytest.approx((19.5, 29.5))


def test_a_plane_without_end_shows_what_the_image_cuts() -> None:
    policy = Policy.single("translate_y", 0.4, frames=3)
    field = layer(((0, 2),), (-30, -10, 49, 59))
    cut, whole = (reshaped(policy, field, 40, clip=clip) for clip in (True, False))
    assert cut.clipped
    assert cut.plain.area == 1600.0
    assert (whole.plain.area, whole.fused.area) == (80.0 * 70, 112.0 * 70)
    assert whole.fused.extent == (112.0, 70.0)
    assert whole.fused.origin == (-46, -10)
    assert whole.fused.centre == pytest.approx((9.5, 24.5))


def test_a_policy_of_several_paths_sees_all_of_them() -> None:
    edges = (Edge(0, 2, (Step("translate_x", 0.3),)), Edge(1, 2, (Step("translate_y", 0.3),)))
    policy = Policy(inputs=2, nodes=1, edges=edges, frames=3)
    found = reshaped(policy, layer(((0, 0), (1, 1), (2, 2)), (18, 18, 21, 21)), 40)
    assert found.frames[0].area == 32.0
    assert found.fused.area == 5 * 16.0
    assert found.fused.anisotropy == pytest.approx(1.0)


def test_a_video_network() -> None:
    network = video_network("tiny-resnet", temporal="tsm", frames=3, num_classes=10)
    found = reshaped(Policy.single("translate_x", 0.45, frames=3), network, 40)
    assert found.plain.extent == (15.0, 15.0)
    assert found.fused.extent == (15.0, 40.0)
    assert found.layer == network.feature_layer
    still = reshaped(Policy.replicate(3), network, 40)
    assert still.fused.area == still.plain.area == 225.0


def test_without_a_temporal_module_frames_see_themselves_but_fusion_sees_all() -> None:
    network = video_network("tiny-resnet", temporal="none", frames=3, num_classes=10)
    found = reshaped(Policy.single("translate_x", 0.45, frames=3), network, 40)
    assert found.frames[1].area == 225.0
    assert found.fused.area == 510.0


def test_an_empty_region_has_no_centre() -> None:
    policy = Policy.single("translate_x", 0.45, frames=3)
    empty = reshaped(policy, layer(((0, 0), (1, 1), (2, 2)), (0, 0, 3, 3)), 40).frames[2]
    assert isinstance(empty, Region)
    assert empty.area == 0.0
    assert not empty.mask.any()


def test_frames_that_do_not_match() -> None:
    network = video_network("tiny-resnet", temporal="tsm", frames=5, num_classes=10)
    with pytest.raises(UserError, match="The policy makes 3 frames, but the network reads 5"):
        reshaped(Policy.replicate(3), network, 40)


def test_a_unit_outside_the_map() -> None:
    with pytest.raises(UserError, match=r"Unit \(1, 0\) is outside"):
        reshaped(Policy.replicate(1), layer(((0, 0),)), 40, unit=(1, 0))


def test_a_policy_with_colours_has_no_region() -> None:
    policy = Policy.single("brightness", 0.5, frames=3)
    with pytest.raises(UserError, match="changes colours"):
        reshaped(policy, layer(((0, 0), (1, 1), (2, 2))), 40)
