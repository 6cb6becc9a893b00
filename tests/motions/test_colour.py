"""Colour changes against torchvision's, and the promises that all of them share."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as tvf

from fieldshift.errors import UserError
from fieldshift.motions import COLOURS, colour, register_colour


def pixels(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(5)) / 255).to(dtype)


def strength(*values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("brightness", lambda x: lambda m: tvf.adjust_brightness(x, 1 + m)),
        ("contrast", lambda x: lambda m: tvf.adjust_contrast(x, 1 + m)),
        ("saturation", lambda x: lambda m: tvf.adjust_saturation(x, 1 + m)),
        ("sharpness", lambda x: lambda m: tvf.adjust_sharpness(x, 1 + m)),
    ],
)
def test_blends_are_torchvisions(name, theirs, channels, sign) -> None:
    images = pixels(4, channels, 9, 12)
    for size in (0.3, 0.9):
        ours = colour(name).apply(images, strength(sign * size)[0])
        assert torch.allclose(ours, theirs(images)(sign * size), atol=2e-5), size


@pytest.mark.parametrize("channels", [1, 3])
def test_full_effects_are_torchvisions(channels) -> None:
    images = pixels(4, channels, 33, 32)  # torchvision leaves planes of fewer than 256 pixels unequalised
    images[1] = 0.4  # a flat image
    images[2, :, :, :6] = 0.1
    as_bytes = (images * 255).round().to(torch.uint8)
    for name, magnitude, theirs in (
        ("autocontrast", 1.0, tvf.autocontrast(images)),
        ("equalize", 1.0, tvf.equalize(as_bytes) / 255),
        ("solarize", 0.5, tvf.solarize(images, 0.5)),
        ("posterize", 3.0, tvf.posterize(as_bytes, 5) / 255),
        ("posterize", 7.0, tvf.posterize(as_bytes, 1) / 255),
    ):
        for signed in (magnitude, -magnitude):
            assert torch.allclose(colour(name).apply(images, strength(signed)[0]), theirs, atol=1e-5), name


@pytest.mark.parametrize("name", COLOURS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_strength_zero_changes_nothing_and_frames_keep_to_themselves(name, channels, dtype) -> None:
    video = pixels(3, 4, channels, 8, 7, dtype=dtype)
    low, high = colour(name).preset
    s = strength(low, 0, high, 0.3 * high, dtype=dtype)
    changed = colour(name).apply(video, s)
    assert changed.dtype == dtype
    assert changed.shape == video.shape
    assert torch.equal(changed[:, 1], video[:, 1])
    assert changed.min() >= 0
    assert changed.max() <= 1
    alone = torch.stack([torch.stack([colour(name).apply(video[b, t], s[t]) for t in range(4)]) for b in range(3)])
    assert torch.allclose(changed.float(), alone.float(), atol=1e-6 if dtype != torch.bfloat16 else 1e-2)


@pytest.mark.parametrize("name", COLOURS)
def test_the_effect_grows_from_nothing(name) -> None:
    """No jump at strength 0: a small magnitude is a small change, whatever the sign (a solarized pixel may jump)."""
    images = pixels(2, 3, 8, 8, dtype=torch.float64) * 0.9
    for tiny in (-1e-3, 1e-3):
        change = (colour(name).apply(images, strength(tiny, dtype=torch.float64)[0]) - images).abs().max()
        assert change < 2e-2


@pytest.mark.parametrize("name", [name for name in COLOURS if name != "solarize"])
@pytest.mark.parametrize("value", [-0.4, 0.35])
def test_gradient_to_the_strength(name, value) -> None:
    images = (pixels(1, 3, 5, 5, dtype=torch.float64) * 0.3 + 0.3).requires_grad_(False)
    asked = strength(value, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: colour(name).apply(images, s[0]), (asked,))


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "sharpness", "autocontrast", "solarize"])
def test_gradient_to_the_pixels(name) -> None:
    images = (pixels(1, 3, 4, 4, dtype=torch.float64) * 0.3 + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: colour(name).apply(x, strength(0.45, dtype=torch.float64)[0]), (images,))


@pytest.mark.parametrize("name", ["equalize", "posterize"])
def test_gradient_passes_straight_through_counts(name) -> None:
    images = pixels(1, 3, 6, 6).requires_grad_()
    weights = pixels(1, 3, 6, 6) + 0.5
    (colour(name).apply(images, strength(1.0)[0]) * weights).sum().backward()
    assert torch.allclose(images.grad, weights)


def test_small_frames_and_mistakes() -> None:
    assert torch.equal(colour("sharpness").apply(torch.ones(1, 2, 2), strength(0.5)[0]), torch.ones(1, 2, 2))
    with pytest.raises(UserError, match="Unknown colour change 'brigthness'. Did you mean 'brightness'"):
        colour("brigthness")
    with pytest.raises(UserError, match="brightness is -2, but must be from -1 to 3"):
        colour("brightness").check(-2)
    with pytest.raises(UserError, match="is already registered"):
        register_colour(colour("contrast"))
    with pytest.raises(UserError, match="1 or 3"):
        colour("saturation").apply(torch.rand(2, 4, 5, 5), strength(0.5)[0])
