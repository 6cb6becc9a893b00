"""The 2D arms: torchvision's transforms to the bit, a batch at a time, reproducible, masks moved along."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from fieldshift.data import known_augmentations
from fieldshift.data.augmentation.arms import ARMS, augmentation
from fieldshift.data.augmentation.draws import BlockGenerator
from fieldshift.errors import UserError

SIZES = [(1, 40, 40), (3, 32, 32), (3, 23, 37)]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in known_augmentations()),
    ("randaugment", {"num_ops": 3, "magnitude": 30}),
    ("randaugment", {"num_ops": 0}),
    ("autoaugment", {"policy": "cifar10"}),
    ("autoaugment", {"policy": "svhn"}),
]
MOVING = [name for name in known_augmentations() if name != "none"]


def pictures(count: int, channels: int, height: int, width: int) -> Tensor:
    """Smooth random pictures with flat parts, so that ops on contrast have something to do."""
    coarse = torch.rand(count, channels, 6, 6, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return (smooth * 300 - 20).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("few", [0, 100], ids=["grouped", "one by one"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=str)
def test_a_batch_is_what_torchvision_makes_of_its_images(
    name: str, settings: dict[str, Any], size: tuple[int, int, int], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fieldshift.data.augmentation.kernels.FEW", few)
    images = pictures(12, *size)
    arm = augmentation(name, **settings)
    for seed in (0, 2**40 + 3):
        moved = arm(images, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            expected = torch.stack([arm.transform(image) if arm.transform else image for image in images])
        if name == "affine":  # drawn by our own formula: the last bit of an angle may differ
            assert (moved.int() - expected.int()).abs().max() <= 1
            assert (moved != expected).float().mean() < 1e-4
        else:
            assert torch.equal(moved, expected)
        assert torch.equal(arm(images, seed), moved)


def test_every_op_of_torchvision_is_known() -> None:
    """The tables that the arms draw from must not have grown ops that we do not have."""
    from fieldshift.data.augmentation.colours import COLOURS
    from fieldshift.data.augmentation.kernels import PLACEMENTS

    for kind in (v2.RandAugment, v2.AutoAugment, v2.TrivialAugmentWide, v2.AugMix):
        assert set(kind._AUGMENTATION_SPACE) <= {*COLOURS, *PLACEMENTS, "Identity"}


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**62 + 17])
def test_the_dice_are_torchs(seed: int) -> None:
    generator = BlockGenerator(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for count in [14, 31, 2, 25] * 400:
            assert generator.below(count) == int(torch.randint(count, ()))
            assert generator.unit() == float(torch.rand(()))


@pytest.mark.parametrize("name", MOVING)
def test_seeds_differ_and_the_random_state_is_left_alone(name: str) -> None:
    images = pictures(16, 3, 32, 32)
    before, kept = torch.get_rng_state(), images.clone()
    arm = augmentation(name)
    assert not torch.equal(arm(images, 0), arm(images, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(images, kept)


@pytest.mark.parametrize("few", [0, 100], ids=["grouped", "one by one"])
@pytest.mark.parametrize("name", known_augmentations())
def test_masks_move_with_their_images(name: str, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that show their mask: where no colour op changed the greys, image and mask still agree everywhere."""
    monkeypatch.setattr("fieldshift.data.augmentation.kernels.FEW", few)
    masks = (pictures(48, 1, 24, 30)[:, 0].long() // 64) % 3
    images = (masks * 60 + 60).to(torch.uint8)[:, None]
    arm = augmentation(name)
    moved, moved_masks = arm(images, 3, masks)
    assert moved_masks.dtype == torch.int64
    assert set(moved_masks.unique().tolist()) <= {0, 1, 2, 255}
    if name in ("none", "augmix"):  # AugMix mixes, so with masks it moves nothing
        assert torch.equal(moved_masks, masks)
        return
    assert torch.equal(arm(images, 3), moved)
    if name == "affine":  # torchvision moves masks here itself
        with torch.random.fork_rng():
            torch.manual_seed(3)
            transform = v2.RandomAffine(**settings_of(arm.transform), fill={Any: 0, tv_tensors.Mask: 255})
            expected = [transform(tv_tensors.Image(i), tv_tensors.Mask(m)) for i, m in zip(images, masks, strict=True)]
        assert (torch.stack([mask for _, mask in expected]) != moved_masks).float().mean() < 1e-3
        return
    shown = torch.where(moved_masks == 255, 0, moved_masks * 60 + 60).to(torch.uint8)
    agreed = [bool(torch.equal(image[0], picture)) for image, picture in zip(moved, shown, strict=True)]
    changed = [bool((mask != before).any()) for mask, before in zip(moved_masks, masks, strict=True)]
    greys = [set(image.unique().tolist()) <= {0, 60, 120, 180} for image in moved]
    assert all(same for same, grey in zip(agreed, greys, strict=True) if grey)
    assert sum(same and different for same, different in zip(agreed, changed, strict=True)) >= 3


def settings_of(transform: v2.RandomAffine) -> dict[str, Any]:
    return {name: getattr(transform, name) for name in ("degrees", "translate", "scale", "shear")}


@pytest.mark.parametrize("name", known_augmentations())
def test_no_images_are_no_work(name: str) -> None:
    empty = torch.empty(0, 3, 8, 8, dtype=torch.uint8)
    assert augmentation(name)(empty, 0).shape == empty.shape


@pytest.mark.parametrize("name", MOVING)
def test_large_batches_go_in_parts_without_a_difference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(10, 1, 16, 16)
    arm = augmentation(name)
    whole = arm(images, 0)
    monkeypatch.setattr("fieldshift.data.augmentation.kernels.CACHED_VALUES", 700)
    assert torch.equal(arm(images, 0), whole)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("randagument", {}, "Did you mean 'randaugment'"),
        ("affine", {"num_ops": 2}, "no setting num_ops"),
        ("trivialaugment", {"policy": "cifar10"}, "no setting policy"),
        ("randaugment", {"magnitude": 31}, "0 to 30"),
        ("randaugment", {"num_ops": -1}, "0 or more"),
        ("autoaugment", {"policy": "cifar11"}, "Did you mean 'cifar10'"),
    ],
)
def test_settings_that_cannot_be_are_refused(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        augmentation(name, **settings)


def test_an_arm_says_what_it_is() -> None:
    assert repr(augmentation("randaugment")) == "augmentation('randaugment', num_ops=2, magnitude=9)"
    assert list(ARMS) == known_augmentations()


def test_images_of_another_type_are_refused() -> None:
    with pytest.raises((ValueError, TypeError)):
        augmentation("affine")(torch.zeros(2, 3, 8, 8), 0)
    with pytest.raises(ValueError, match="1 or 3"):
        augmentation("affine")(torch.zeros(2, 4, 8, 8, dtype=torch.uint8), 0)
