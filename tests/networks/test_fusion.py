"""Fusion: identities that hold exactly, and dense maps moved back to where the image is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldshift.errors import UserError
from fieldshift.motions import Policy
from fieldshift.networks import FUSIONS, Fusion, align, frame_validity, video_network

IDENTITY = torch.eye(2, 3)


def affine(a: float, b: float, c: float, d: float, x: float = 0.0, y: float = 0.0) -> Tensor:
    return torch.tensor([[a, b, x], [c, d, y]])


def rotation(degrees: float) -> Tensor:
    """Clockwise on the screen, y pointing down."""
    angle = math.radians(degrees)
    return affine(math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle))


MOTIONS = {
    "right 3 px": affine(1, 0, 0, 1, x=3),
    "left 3 px": affine(1, 0, 0, 1, x=-3),
    "down 2 px": affine(1, 0, 0, 1, y=2),
    "up 2 px": affine(1, 0, 0, 1, y=-2),
    "quarter turn": rotation(90),
    "quarter turn back": rotation(-90),
    "half turn": rotation(180),
}


def moved(images: Tensor, matrix: Tensor) -> Tensor:
    """Moves images (B, C, H, W) by a matrix that sends pixels to pixels, one pixel at a time; 0 outside."""
    height, width = images.shape[-2:]
    result = torch.zeros_like(images)
    for y in range(height):
        for x in range(width):
            point = torch.tensor([x - (width - 1) / 2, y - (height - 1) / 2, 1.0])
            seen_x, seen_y = (matrix @ point).tolist()
            column, row = round(seen_x + (width - 1) / 2), round(seen_y + (height - 1) / 2)
            if 0 <= row < height and 0 <= column < width:
                result[..., row, column] = images[..., y, x]
    return result


@pytest.mark.parametrize("name", MOTIONS)
def test_aligned_fusion_of_a_pointwise_network_gives_the_unmoved_logits_where_the_frame_saw_them(name: str) -> None:
    torch.manual_seed(0)
    images, network = torch.rand(2, 3, 9, 9), nn.Conv2d(3, 4, 1)
    matrices = torch.stack([MOTIONS[name], IDENTITY, MOTIONS[name]])
    frames = torch.stack([moved(images, matrix) for matrix in matrices], 1)  # (B, T, C, H, W)
    logits = network(frames.flatten(0, 1)).unflatten(0, (2, 3))
    unmoved = network(images)
    aligned, valid = align(logits, matrices), frame_validity(matrices, (9, 9))
    assert 0 < valid[0].sum() <= 81
    assert torch.equal(valid[1], torch.ones(9, 9))
    for t in range(3):
        inside = valid[t].bool()
        torch.testing.assert_close(aligned[:, t][..., inside], unmoved[..., inside], rtol=0, atol=1e-5)
    for fusion in ("mean-logits", "learned"):
        torch.testing.assert_close(Fusion(fusion, 3)(logits, matrices), unmoved, rtol=0, atol=1e-5)
    probabilities = Fusion("mean-probabilities", 3)(logits, matrices).exp()
    torch.testing.assert_close(probabilities, unmoved.softmax(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("degrees", [-20.0, 20.0])
def test_alignment_inverts_a_fractional_motion_of_a_smooth_map(degrees: float) -> None:
    size = 33
    axis = torch.arange(size) - (size - 1) / 2

    def landscape(x: Tensor, y: Tensor) -> Tensor:
        return torch.sin(x / 6) + torch.cos(y / 5)

    inverse = rotation(-degrees)
    y, x = axis[:, None].expand(size, size), axis.expand(size, size)
    frame = landscape(inverse[0, 0] * x + inverse[0, 1] * y, inverse[1, 0] * x + inverse[1, 1] * y)
    matrices = rotation(degrees)[None]
    aligned, valid = align(frame[None, None, None], matrices)[0, 0, 0], frame_validity(matrices, (size, size))[0]
    error = ((aligned - landscape(x, y)) * valid).abs().max()
    assert error < 0.02  # bilinear interpolation of curvature 1 / 25


def test_a_pixel_that_no_frame_saw_gets_equal_logits() -> None:
    matrices = torch.stack([MOTIONS["right 3 px"], MOTIONS["right 3 px"]])
    fused = Fusion("mean-logits", 2)(torch.rand(1, 2, 4, 8, 8) + 1, matrices)
    assert torch.equal(fused[..., -3:], torch.zeros(1, 4, 8, 3))
    assert bool((fused[..., :-3] >= 1).all())


@pytest.mark.parametrize("frames", [1, 3, 4])
def test_identity_matrices_give_exactly_the_plain_mean(frames: int) -> None:
    logits = torch.randn(2, frames, 5, 6, 7)
    fused = Fusion("mean-logits", frames)(logits, IDENTITY.expand(frames, 2, 3))
    assert torch.equal(fused, Fusion("mean-logits", frames)(logits))


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_an_identity_policy_gives_exactly_the_2d_answer(task: str, frames: int) -> None:
    torch.manual_seed(0)
    name = "tiny-resnet" if task == "classification" else "tiny-resnet-fcn"
    network = video_network(name, temporal="none", frames=frames, num_classes=5, task=task).eval()
    images = torch.rand(1, 3, 16, 16)
    matrices = IDENTITY.expand(frames, 2, 3) if task == "segmentation" else None
    video = images[:, None].expand(-1, frames, -1, -1, -1)
    plain = network.network(video.flatten(0, 1))[:1]  # the same rows, as convolution kernels depend on their number
    assert torch.equal(network.fuse(network(video), matrices), plain)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5, 5)])
@pytest.mark.parametrize("name", FUSIONS)
def test_fusion_keeps_classes_and_size(name: str, shape: tuple[int, ...]) -> None:
    fused = Fusion(name, 3)(torch.randn(shape))
    assert fused.shape == (shape[0], *shape[2:])


def test_mean_probabilities_are_log_probabilities_of_the_mean() -> None:
    logits = torch.randn(4, 3, 6, dtype=torch.float64)
    fused = Fusion("mean-probabilities", 3)(logits)
    expected = torch.stack([logits[:, t].softmax(1) for t in range(3)]).mean(0)
    torch.testing.assert_close(fused.exp(), expected)
    target = torch.tensor([0, 1, 2, 3])
    torch.testing.assert_close(functional.cross_entropy(fused, target), functional.nll_loss(expected.log(), target))


def test_learned_fusion_starts_as_the_mean_and_learns_the_better_frame() -> None:
    fusion = Fusion("learned", 2)
    logits = torch.zeros(8, 2, 2)
    logits[:, 0, 1], logits[:, 1, 0] = 2.0, 2.0  # frame 0 says class 1, frame 1 says class 0
    torch.testing.assert_close(fusion(logits), logits.mean(1))
    functional.cross_entropy(fusion(logits), torch.ones(8, dtype=torch.long)).backward()
    (weights,) = fusion.parameters()
    assert weights.grad is not None
    assert weights.grad[0] < 0 < weights.grad[1]


def test_alignment_carries_gradients_to_the_logits() -> None:
    logits = torch.randn(1, 2, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    matrices = torch.stack([rotation(10), IDENTITY]).double()
    for name in FUSIONS:
        fusion = Fusion(name, 2).double()
        assert torch.autograd.gradcheck(lambda x, fuse=fusion: fuse(x, matrices), (logits,), fast_mode=True)


def test_mistakes_say_what_was_expected() -> None:
    with pytest.raises(UserError, match="mean-logits"):
        Fusion("average", 3)
    with pytest.raises(ValueError, match=r"dense logits.*\(2, 3, 4\)"):
        Fusion("mean-logits", 3)(torch.zeros(2, 3, 4), IDENTITY.expand(3, 2, 3))
    with pytest.raises(ValueError, match=r"\(3, 2, 3\).*\(2, 2, 3\)"):
        Fusion("mean-logits", 3)(torch.zeros(2, 3, 4, 5, 5), IDENTITY.expand(2, 2, 3))


def test_maps_in_half_precision_are_moved_as_exactly_as_others() -> None:
    matrices = Policy.single("rotate", 20.0, frames=3).matrices((64, 64))
    maps = torch.randn(1, 3, 2, 64, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    fusion = Fusion("mean-logits", frames=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first = align(maps, matrices)
        fused = fusion(maps.float(), matrices)
    assert first.dtype == torch.bfloat16
    assert torch.equal(first, align(maps.float(), matrices).bfloat16())
    assert torch.equal(fused, fusion(maps.float(), matrices))  # nor is anything rounded kept for later
