"""The conformance suite for motions: `check_motion(motion)` raises AssertionError with one line for a violated property.

Use it for new motions:

    from fieldshift.motions.testing import check_motion
    check_motion(my_motion)

Needs neither pytest nor a GPU and takes well under a second. Shape letters: B batch, M matrices, C channels, H, W.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fieldshift.errors import UserError
from fieldshift.motions.matrices import are_identities, compose, invert
from fieldshift.motions.policy import Policy
from fieldshift.motions.registry import MOTIONS, Motion
from fieldshift.motions.warp import sampling_grid, warp, warp_masks

SIZES = ((8, 8), (9, 9), (7, 12), (12, 7))
DISTANCES = (-1.0, -0.5, 0.0, 0.25, 1.0)


def check_motion(motion: Motion) -> None:
    """Checks each property that policies, the search and the receptive fields rely on; AssertionError names the first failure.

    The motion need not be registered.
    """
    for check in CHECKS:
        try:
            check(motion)
        except AssertionError as error:
            name = check.__name__.removeprefix("check_").replace("_", " ")
            raise AssertionError(f"{motion.name}: {name}: {error or 'does not hold'}") from error


def _magnitudes(motion: Motion) -> list[float]:
    """Magnitudes on both sides of neutral, inside the preset range and at its ends."""
    low, high = motion.preset
    return sorted({low, low + 0.27 * (high - low), motion.neutral, low + 0.81 * (high - low), high})


def _matrices(motion: Motion, size: tuple[int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    """All magnitudes at all distances, (N, 2, 3)."""
    magnitudes = torch.tensor(_magnitudes(motion), dtype=dtype)[:, None]
    return motion.matrix(magnitudes, torch.tensor(DISTANCES, dtype=dtype), size).flatten(0, 1)


def _images(size: tuple[int, int], batch: int = 2, channels: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.rand(batch, channels, *size, generator=generator, dtype=torch.float64).to(dtype)


def check_limits(motion: Motion) -> None:
    """Limits contain the preset and the neutral magnitude, and are enforced; the phrase is one line with the name."""
    low, high = motion.limits
    assert low <= motion.preset[0] <= motion.preset[1] <= high, f"preset {motion.preset} outside of {motion.limits}"
    for magnitude in (low, high, motion.neutral, *motion.preset):
        motion.check(magnitude)
        phrase = motion.phrase(magnitude)
        assert motion.name in phrase, f"the phrase {phrase!r} lacks the name"
        assert "\n" not in phrase, f"the phrase {phrase!r} has several lines"
    for magnitude in (math.nextafter(low, -math.inf), math.nextafter(high, math.inf), math.nan, math.inf):
        try:
            motion.check(magnitude)
        except UserError:
            continue
        raise AssertionError(f"the magnitude {magnitude} outside of {motion.limits} is accepted")


def check_shapes(motion: Motion) -> None:
    """Magnitude and distance broadcast to (..., 2, 3), and the dtype is kept."""
    for dtype in (torch.float32, torch.float64):
        magnitude = torch.full((3, 1), motion.preset[1], dtype=dtype)
        matrix = motion.matrix(magnitude, torch.linspace(-1, 1, 5, dtype=dtype), (6, 9))
        assert matrix.shape == (3, 5, 2, 3), f"expected the shape (3, 5, 2, 3), received {tuple(matrix.shape)}"
        assert matrix.dtype == dtype, f"expected {dtype}, received {matrix.dtype}"
        single = motion.matrix(magnitude[0, 0], torch.ones((), dtype=dtype), (6, 9))
        assert torch.equal(single, matrix[0, -1]), (
            "a scalar magnitude gives a different matrix than the same one in a batch"
        )


def check_identity(motion: Motion) -> None:
    """The neutral magnitude at every distance, and every magnitude at distance 0, give exactly the identity."""
    s = torch.tensor(DISTANCES, dtype=torch.float64)
    for size in SIZES:
        still = motion.matrix(torch.tensor(motion.neutral, dtype=torch.float64), s, size)
        assert are_identities(still).all(), f"the neutral magnitude {motion.neutral} moves content at {size}"
        for magnitude in _magnitudes(motion):
            reference = motion.matrix(torch.tensor(magnitude, dtype=torch.float64), s[2], size)
            assert are_identities(reference), f"the magnitude {magnitude} moves the reference frame"
    images = _images(SIZES[0])
    moved = warp(images, motion.matrix(torch.tensor(motion.neutral, dtype=torch.float64), s[:1], SIZES[0]))
    assert torch.equal(moved[:, 0], images), "the neutral magnitude changes pixels"


def check_both_signs(motion: Motion) -> None:
    """Frames before and after the reference differ, so that a video covers both sides."""
    for magnitude in motion.preset:
        if magnitude == motion.neutral:
            continue
        m = torch.tensor(magnitude, dtype=torch.float64)
        s = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
        before, reference, behind = motion.matrix(m, s, (9, 9))
        assert not torch.allclose(before, behind), f"the magnitude {magnitude} moves both sides in the same way"
        assert not torch.allclose(before, reference), f"the magnitude {magnitude} does nothing at s = -1"
        assert not torch.allclose(behind, reference), f"the magnitude {magnitude} does nothing at s = 1"


def check_inverse(motion: Motion) -> None:
    """Every matrix is finite, preserves orientation, and composes with its inverse to the identity."""
    for size in SIZES:
        matrices = _matrices(motion, size)
        assert torch.isfinite(matrices).all(), "a matrix contains infinities or NaN"
        assert (torch.linalg.det(matrices[:, :, :2]) > 0).all(), "a matrix mirrors or flattens the image"
        identity = torch.eye(2, 3, dtype=torch.float64).expand_as(matrices)
        for both in (compose(matrices, invert(matrices)), compose(invert(matrices), matrices)):
            assert torch.allclose(both, identity, atol=1e-9), "a matrix and its inverse do not compose to the identity"


def check_gradient_of_the_matrix(motion: Motion) -> None:
    """The matrix's derivative with respect to the magnitude agrees with finite differences."""
    low, high = motion.preset
    if low == high:
        return
    s = torch.tensor(DISTANCES, dtype=torch.float64)
    for share in (0.13, 0.68):
        magnitude = torch.tensor(low + share * (high - low), dtype=torch.float64, requires_grad=True)
        right = torch.autograd.gradcheck(lambda m: motion.matrix(m, s, (7, 12)), (magnitude,), raise_exception=False)
        assert right, f"autograd and finite differences disagree at the magnitude {magnitude.item():.3g}"


def check_gradient_of_the_pixels(motion: Motion) -> None:
    """The moved image's derivative with respect to the magnitude agrees with finite differences."""
    low, high = motion.preset
    if low == high:
        return
    images, s = _images((5, 6), batch=1, channels=1), torch.tensor([-0.9, 0.7], dtype=torch.float64)
    for share in (0.137, 0.683):
        magnitude = torch.tensor(low + share * (high - low), dtype=torch.float64, requires_grad=True)
        right = torch.autograd.gradcheck(
            lambda m: warp(images, motion.matrix(m, s, (5, 6)), fill="border"),
            (magnitude,),
            eps=1e-7,
            atol=1e-4,
            raise_exception=False,
        )
        assert right, f"autograd and finite differences disagree at the magnitude {magnitude.item():.3g}"


def check_content_moves_forward(motion: Motion) -> None:
    """Content at p moves to A p + b: a linear ramp of coordinates shows where each pixel was read."""
    for size in SIZES:
        height, width = size
        y = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
        x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
        ramp = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
        matrices = _matrices(motion, size)
        seen = warp(ramp[None], matrices, fill="border")[0]  # (N, 2, H, W): the p that each pixel shows
        homogeneous = torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1)
        back = torch.einsum("nij,njhw->nihw", matrices, homogeneous)
        near = (seen[:, 0].abs() < (width - 1) / 2 - 1e-6) & (seen[:, 1].abs() < (height - 1) / 2 - 1e-6)
        error = (back - ramp).abs().amax(1)[near]
        assert error.numel() == 0 or error.max() < 1e-9, f"content is {error.max():.3g} pixels from A p + b at {size}"


def check_sampling(motion: Motion) -> None:
    """The warp agrees with bilinear interpolation computed pixel by pixel."""
    size = (5, 8)
    image = _images(size, batch=1, channels=1)
    matrices = _matrices(motion, size)[::3]
    moved = warp(image, matrices)[0, :, 0]
    for matrix, result in zip(matrices, moved, strict=True):
        difference = (result - _slowly(image[0, 0], matrix)).abs().max()
        assert difference < 1e-9, f"a pixel differs by {difference:.3g} from slow bilinear interpolation"


def _slowly(image: Tensor, matrix: Tensor) -> Tensor:
    height, width = image.shape
    moved = torch.zeros_like(image)
    inverse = torch.linalg.inv(torch.cat([matrix, matrix.new_tensor([[0.0, 0.0, 1.0]])]))
    for row in range(height):
        for column in range(width):
            point = inverse @ matrix.new_tensor([column - (width - 1) / 2, row - (height - 1) / 2, 1.0])
            x, y = float(point[0]) + (width - 1) / 2, float(point[1]) + (height - 1) / 2
            for i in range(height):
                for j in range(width):
                    moved[row, column] += max(0.0, 1 - abs(x - j)) * max(0.0, 1 - abs(y - i)) * image[i, j]
    return moved


def check_dtypes(motion: Motion) -> None:
    """Images keep their dtype, and lower precision changes pixels by no more than that precision."""
    matrices = _matrices(motion, (7, 12))
    exact = warp(_images((7, 12)), matrices)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)):
        moved = warp(_images((7, 12), dtype=dtype), matrices)
        assert moved.dtype == dtype, f"{dtype} images come out as {moved.dtype}"
        assert torch.allclose(moved.double(), exact, atol=tolerance), f"{dtype} pixels are off by more than {tolerance}"


def check_batch_independence(motion: Motion) -> None:
    """An image is moved in the same way in any batch."""
    images = _images((9, 9), batch=3)
    matrices = _matrices(motion, (9, 9))
    together = warp(images, matrices, fill="mean")
    alone = torch.cat([warp(image[None], matrices, fill="mean") for image in images])
    assert torch.allclose(together, alone, atol=1e-12), "an image is moved differently in a batch with others"


def check_mask_moves_with_the_image(motion: Motion) -> None:
    """A label mask and an image of the same numbers, both sampled from the nearest pixel, stay equal inside the image."""
    for size in SIZES:
        masks = (torch.arange(size[0] * size[1]) % 200).view(1, *size)
        matrices = _matrices(motion, size)
        moved = warp_masks(masks, matrices, outside=255)
        images = warp(masks[:, None].double(), matrices, fill=(255.0,), mode="nearest")[:, :, 0]
        assert torch.equal(moved.double(), images), f"mask and image differ at {size}"
        reach = sampling_grid(matrices, size).abs().amax(-1)  # 1 at the image's outer edge, where rounding decides
        assert (moved[0] != 255)[reach < 1 - 1e-9].all(), "a pixel that shows the image is marked as outside"
        assert (moved[0] == 255)[reach > 1 + 1e-9].all(), "a pixel that shows nothing is marked as inside"


def check_policy(motion: Motion) -> None:
    """A registered motion forms a policy that keeps its reference frame, bit for bit, and is restored from its file."""
    if MOTIONS.get(motion.name) is not motion:
        return
    images = _images((7, 12), dtype=torch.float32)
    for frames in (1, 2, 3, 8):
        policy = Policy.single(motion.name, motion.preset[1], frames=frames)
        assert torch.equal(policy.video(images)[:, frames // 2], images), f"the reference of {frames} frames changes"
        assert Policy.from_json(policy.to_json()) == policy, "the policy's file gives another policy"


CHECKS: tuple[Callable[[Motion], None], ...] = (
    check_limits,
    check_shapes,
    check_identity,
    check_both_signs,
    check_inverse,
    check_gradient_of_the_matrix,
    check_gradient_of_the_pixels,
    check_content_moves_forward,
    check_sampling,
    check_dtypes,
    check_batch_independence,
    check_mask_moves_with_the_image,
    check_policy,
)
