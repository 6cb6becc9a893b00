"""One sampling pass against torchvision, scipy, float64 grid_sample and plain sums."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tvf

from fieldshift.errors import UserError
from fieldshift.motions import (
    FILLS,
    MODES,
    MOTIONS,
    compose,
    invert,
    motion,
    sampling_grid,
    warp,
    warp_frames,
    warp_masks,
    warp_mixture,
)
from fieldshift.motions import pixel_map as pixel_map_module

SIZES = [(1, 1), (1, 6), (5, 5), (6, 8), (9, 4), (60, 50)]


def matrix_of(name: str, magnitude: float, size: tuple[int, int]) -> torch.Tensor:
    one = torch.ones((), dtype=torch.float64)
    return motion(name).matrix(one * magnitude, one, size)


def chains(size: tuple[int, int]) -> torch.Tensor:
    """Identity, mild, strong and far-out matrices, (M, 2, 3), float64."""
    return torch.stack(
        [
            torch.eye(2, 3, dtype=torch.float64),
            compose(matrix_of("translate_x", 0.31, size), matrix_of("rotate", 33, size), matrix_of("zoom", 1.7, size)),
            compose(matrix_of("rotate", -71, size), matrix_of("translate_y", -0.4, size), matrix_of("zoom", 0.4, size)),
            compose(matrix_of("shear_x", 25, size), matrix_of("shear_y", -17, size)),
            matrix_of("translate_x", -1.0, size),
        ]
    )


def pixels(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def by_grid_sample(images: torch.Tensor, matrices: torch.Tensor, fill: str, mode: str) -> torch.Tensor:
    """One grid_sample a matrix, in float64, from torch's own affine_grid."""
    height, width = images.shape[-2:]
    moved = []
    for matrix in matrices.double():
        inverse = torch.linalg.inv(torch.cat([matrix, matrix.new_tensor([[0, 0, 1]])]))[:2]
        scale = torch.tensor([width / 2, height / 2, 1.0], dtype=torch.float64)
        theta = inverse * scale / scale[:2, None]
        grid = F.affine_grid(theta.expand(len(images), -1, -1), list(images.shape), align_corners=False)
        moved.append(F.grid_sample(images.double(), grid, mode=mode, padding_mode=fill, align_corners=False))
    return torch.stack(moved, dim=1)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("fill", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("backend", ["rows", "grid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_warp_is_grid_sample_to_1e_5(size, fill, backend, dtype) -> None:
    images, matrices = pixels(3, 2, *size, dtype=dtype), chains(size).requires_grad_(backend == "grid")
    difference = (
        warp(images, matrices, fill=fill).double() - by_grid_sample(images, matrices.detach(), fill, "bilinear")
    ).abs()
    assert difference.max() < 1e-5
    assert torch.equal(warp(images, matrices, fill=fill)[:, 0], images)


@pytest.mark.parametrize("fill", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("backend", ["rows", "grid"])
def test_nearest_reads_the_pixel_that_grid_sample_reads(fill, backend) -> None:
    size = (7, 10)
    images, matrices = pixels(2, 3, *size), chains(size)[:4].requires_grad_(backend == "grid")
    assert torch.equal(
        warp(images, matrices, fill=fill, mode="nearest"), by_grid_sample(images, matrices.detach(), fill, "nearest")
    )


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("size", [(31, 31), (32, 32), (24, 37)], ids=str)
def test_agreement_with_torchvision_affine(size, sign) -> None:
    images = pixels(2, 3, *size, dtype=torch.float32)
    height, width = size
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    for name, magnitude, change in (
        ("rotate", 27.0 * sign, {"angle": 27.0 * sign}),
        ("translate_x", 5 * sign / width, {"translate": [5 * sign, 0]}),
        ("translate_y", 3 * sign / height, {"translate": [0, 3 * sign]}),
        ("zoom", 1.6**sign, {"scale": 1.6**sign}),
        ("shear_x", -20.0 * sign, {"shear": [20.0 * sign, 0.0]}),
        ("shear_y", -20.0 * sign, {"shear": [0.0, 20.0 * sign]}),
    ):
        theirs = tvf.affine(images, **{**still, **change}, interpolation=tvf.InterpolationMode.BILINEAR)
        ours = warp(images, matrix_of(name, magnitude, size)[None])[:, 0]
        assert torch.allclose(ours, theirs, atol=2e-5), name


@pytest.mark.parametrize("size", [(9, 9), (8, 13)], ids=str)
def test_agreement_with_scipy_for_a_chain(size) -> None:
    images = pixels(1, 1, *size)
    matrix = chains(size)[1]
    inverse = invert(matrix).numpy()
    swap = np.array([[0, 1], [1, 0]])  # scipy counts rows first
    linear, offset = swap @ inverse[:, :2] @ swap, swap @ inverse[:, 2]
    centre = (np.array(size) - 1) / 2
    theirs = scipy.ndimage.affine_transform(
        images[0, 0].numpy(), linear, offset + centre - linear @ centre, order=1, mode="grid-constant"
    )
    np.testing.assert_allclose(warp(images, matrix[None])[0, 0, 0].numpy(), theirs, atol=1e-12)


@pytest.mark.parametrize("backend", ["rows", "grid"])
@pytest.mark.parametrize("fill", ["mean", (0.2, 0.7, 0.4), (0.3,)], ids=str)
def test_constant_fill_is_zeros_plus_what_the_image_leaves_open(fill, backend) -> None:
    size = (7, 9)
    images, matrices = pixels(2, 3, *size), chains(size).requires_grad_(backend == "grid")
    cover = warp(torch.ones_like(images), matrices)
    colour = images.mean((-2, -1)) if fill == "mean" else torch.tensor(fill, dtype=torch.float64).expand(2, 3)
    expected = warp(images, matrices) + (1 - cover) * colour[:, None, :, None, None]
    assert torch.allclose(warp(images, matrices, fill=fill), expected, atol=1e-12)


@pytest.mark.parametrize("fill", [*FILLS, (0.1, 0.9)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_gradients_to_the_pixels(fill, mode) -> None:
    size = (2, 3)
    matrices = chains(size)[:2]
    images = pixels(1, 2, *size).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: warp(x, matrices, fill=fill, mode=mode), (images,))
    assert torch.autograd.gradgradcheck(lambda x: warp(x, matrices, fill=fill, mode=mode) ** 2, (images,))


@pytest.mark.parametrize("fill", [*FILLS, (0.1, 0.9)], ids=str)
def test_gradients_to_the_matrices_and_pixels_together(fill) -> None:
    size = (3, 4)
    off_the_kinks = compose(chains(size)[1:4], torch.tensor([[1, 0, 0.123], [0, 1, -0.217]], dtype=torch.float64))
    images, matrices = pixels(1, 2, *size).requires_grad_(), off_the_kinks.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, m: warp(x, m, fill=fill), (images, matrices), eps=1e-7, atol=1e-4)


def test_both_backends_give_the_same_pixel_gradient() -> None:
    size = (60, 50)  # several tiles
    weights = pixels(2, 5, 3, *size)
    gradients = []
    for asked in (False, True):
        images = pixels(2, 3, *size).requires_grad_()
        (warp(images, chains(size).requires_grad_(asked)) * weights).sum().backward()
        gradients.append(images.grad)
    assert torch.allclose(*gradients, atol=1e-9)


def test_gradients_only_where_asked() -> None:
    images, matrices = pixels(1, 1, 5, 5), chains((5, 5))[1:].requires_grad_()
    moved = warp(images, matrices)
    moved.sum().backward()
    assert images.grad is None
    assert matrices.grad is not None
    assert not warp(images, matrices.detach()).requires_grad


@pytest.mark.parametrize("fill", FILLS)
def test_warp_frames_moves_each_frame_by_its_own_matrix(fill) -> None:
    size = (6, 9)
    matrices = chains(size)
    video = pixels(2, len(matrices), 3, *size)
    for asked in (False, True):
        moved = warp_frames(video, matrices.clone().requires_grad_(asked), fill=fill)
        for t, matrix in enumerate(matrices):
            assert torch.allclose(moved[:, t], warp(video[:, t], matrix[None], fill=fill)[:, 0], atol=1e-12)
    assert torch.equal(warp_frames(video, matrices)[:, 0], video[:, 0])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_mixture_is_the_sum_of_its_warps(data) -> None:
    size = (data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7)))
    frames, fill = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([*FILLS, (0.4,)]))
    matrices, video = chains(size), pixels(2, frames, 2, *size)
    term = st.tuples(st.floats(-2, 2), st.integers(0, frames - 1), st.integers(0, len(matrices) - 1))
    mixture = tuple(
        tuple(terms) for terms in data.draw(st.lists(st.lists(term, min_size=1, max_size=3), min_size=1, max_size=3))
    )
    for asked in (False, True):
        mixed = warp_mixture(video, matrices.clone().requires_grad_(asked), mixture, fill)
        for t, terms in enumerate(mixture):
            expected = sum(w * warp(video[:, source], matrices[m, None], fill=fill)[:, 0] for w, source, m in terms)
            assert torch.allclose(mixed[:, t], expected, atol=1e-11)


@pytest.mark.parametrize("shape", [(0, 3, 5, 5), (1, 1, 5, 5), (50, 3, 5, 5), (2, 130, 5, 5)], ids=str)
def test_any_number_of_images_and_channels(shape) -> None:
    images = pixels(*shape, dtype=torch.float32)
    moved = warp(images, chains((5, 5)))
    assert moved.shape == (shape[0], 5, *shape[1:])
    if len(images):
        assert torch.allclose(moved.double(), by_grid_sample(images, chains((5, 5)), "zeros", "bilinear"), atol=1e-5)


def test_inputs_in_any_memory_order() -> None:
    images = pixels(4, 3, 6, 6, dtype=torch.float32)
    expected = warp(images, chains((6, 6)))
    assert torch.equal(warp(images.to(memory_format=torch.channels_last), chains((6, 6))), expected)
    assert torch.equal(warp(images.transpose(2, 3).contiguous().transpose(2, 3), chains((6, 6))), expected)
    assert expected.is_contiguous()


def test_large_outputs_on_huge_pages_are_ordinary_tensors(monkeypatch) -> None:
    images = pixels(2, 3, 20, 20, dtype=torch.float32)
    expected = warp(images, chains((20, 20)))
    monkeypatch.setattr(pixel_map_module, "_HUGE", 0)
    moved = warp(images, chains((20, 20)))
    assert torch.equal(moved, expected)
    moved += 1
    assert torch.equal(moved.clone(), expected + 1)


def test_masks_keep_their_dtype_and_say_where_nothing_was_seen() -> None:
    size = (9, 14)
    for dtype in (torch.uint8, torch.int16, torch.int64):
        masks = torch.randint(0, 20, (3, *size)).to(dtype)
        moved = warp_masks(masks, chains(size), outside=99)
        assert moved.dtype == dtype
        assert torch.equal(moved[:, 0], masks)
        shifted = warp_masks(masks, torch.tensor([[[1.0, 0, 3], [0, 1, -2]]]), outside=99)[:, 0]
        assert torch.equal(shifted[:, :-2, 3:], masks[:, 2:, :-3])
        assert (shifted[:, -2:] == 99).all()
        assert (shifted[:, :, :3] == 99).all()


@pytest.mark.parametrize("size", [(1, 1), (4, 7)], ids=str)
def test_the_grid_is_torchs_affine_grid(size) -> None:
    matrix = chains(size)[1]
    height, width = size
    scale = torch.tensor([width / 2, height / 2, 1.0], dtype=torch.float64)
    theta = invert(matrix) * scale / scale[:2, None]
    expected = F.affine_grid(theta[None], [1, 1, height, width], align_corners=False)
    assert torch.allclose(sampling_grid(matrix[None], size), expected, atol=1e-12)


def test_compose_acts_in_reading_order_and_broadcasts() -> None:
    right, turn = matrix_of("translate_x", 0.5, (10, 10)), matrix_of("rotate", 90, (10, 10))
    assert torch.allclose(compose(right, turn)[:, 2], torch.tensor([0.0, 5.0], dtype=torch.float64), atol=1e-12)
    assert torch.allclose(compose(turn, right)[:, 2], torch.tensor([5.0, 0.0], dtype=torch.float64), atol=1e-12)
    identity = torch.eye(2, 3, dtype=torch.float64)
    for matrix in chains((7, 9)):
        assert torch.equal(compose(matrix, identity), matrix)
        assert torch.equal(compose(identity, matrix), matrix)
    assert compose(chains((7, 9))[:, None], chains((7, 9))).shape == (5, 5, 2, 3)


def test_mistakes_are_told_in_one_line() -> None:
    images, matrices = pixels(1, 3, 4, 4), chains((4, 4))
    for call, words in (
        (lambda: warp(images, matrices, fill="zero"), "Unknown fill 'zero'.*Did you mean 'zeros'"),
        (lambda: warp(images, matrices, mode="cubic"), "Unknown interpolation 'cubic'"),
        (lambda: warp(images, matrices, fill=(0.1, 0.2)), "2 values for 3 channels"),
        (lambda: warp(images, matrices, fill=(float("nan"),)), "finite number"),
        (lambda: warp(images, matrices, fill=()), "finite number"),
        (lambda: warp_masks(torch.zeros(1, 4, 4, dtype=torch.int8), matrices, outside=255), "contain -128 to 127"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="finite and invertible"):
        warp(images, torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="finite and invertible"):
        warp(images, torch.full((1, 2, 3), torch.nan))


@pytest.mark.parametrize("name", MOTIONS)
def test_the_reference_frame_costs_no_sampling(name, monkeypatch) -> None:
    still = MOTIONS[name].matrix(torch.tensor(MOTIONS[name].preset[1]), torch.tensor(0.0), (5, 5))[None]
    monkeypatch.setattr(F, "grid_sample", None)
    monkeypatch.setattr(torch, "embedding_bag", None)
    images = pixels(2, 3, 5, 5)
    for matrices in (still, still.clone().requires_grad_()):
        assert torch.equal(warp(images, matrices)[:, 0], images)
