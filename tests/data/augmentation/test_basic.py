"""The augmentation that every arm shares, against torchvision's own crop, flip and affine."""

from __future__ import annotations

import pytest
import torch
import torchvision.transforms.v2.functional as tvf
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from fieldshift.data import BasicAugmentation
from fieldshift.data.augmentation.basic import resized_crops


def some_images(batch: int = 40, channels: int = 3, size: tuple[int, int] = (9, 14)) -> Tensor:
    return torch.randint(
        0, 256, (batch, channels, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def test_nothing_asked_leaves_the_very_tensor() -> None:
    images = some_images()
    assert BasicAugmentation()(images, 3)[0] is images


@pytest.mark.parametrize("size", [(9, 14), (8, 8), (1, 5)])
def test_every_crop_is_one_of_torchvisions(size: tuple[int, int]) -> None:
    images, reach = some_images(size=size), 2
    moved, _ = BasicAugmentation(crop=reach, flip=0.5)(images, 7)
    padded = tvf.pad(images, [reach])
    crops = [
        tvf.crop(tvf.horizontal_flip(padded) if flip else padded, top, left, *size)
        for flip in (False, True)
        for top in range(2 * reach + 1)
        for left in range(2 * reach + 1)
    ]
    matches = torch.stack([(crop == moved).flatten(1).all(1) for crop in crops])
    assert matches.any(0).all()
    assert len(matches.nonzero()[:, 0].unique()) > 10  # crops and flips of many kinds were drawn


@pytest.mark.parametrize(("flip", "share"), [(0.0, 0.0), (1.0, 1.0), (0.25, 0.25)])
def test_the_chance_of_a_flip(flip: float, share: float) -> None:
    images = torch.arange(4, dtype=torch.uint8).expand(4000, 1, 3, 4).contiguous()
    moved, _ = BasicAugmentation(flip=flip)(images, 0)
    flipped = (moved[:, 0, 0, 0] == 3).float().mean()
    assert abs(float(flipped) - share) < 0.03


def test_scaling_is_torchvisions_affine_about_the_middle() -> None:
    images = some_images(batch=24, size=(21, 16))
    augmentation = BasicAugmentation(scale=1.5)
    moved, _ = augmentation(images, 11)
    generator = torch.Generator().manual_seed(11)
    torch.rand(24, generator=generator)
    torch.randint(0, 1, (24, 2), generator=generator)
    factors = 1.5 ** (2 * torch.rand(24, generator=generator) - 1)
    assert factors.min() < 0.9
    assert factors.max() > 1.1
    for image, result, factor in zip(images, moved, factors, strict=True):
        theirs = tvf.affine(
            image.float(), 0.0, [0, 0], float(factor), [0.0, 0.0], interpolation=tvf.InterpolationMode.BILINEAR
        )
        assert (result.float() - theirs).abs().max() <= 0.51


def boxes_drawn(size: tuple[int, int], smallest: float, count: int, seed: int) -> Tensor:
    """Boxes and flips (N, 5) that the augmentation draws: a box as top, left, height, width; 1 for a flip."""
    generator = torch.Generator().manual_seed(seed)
    flips = torch.rand(count, generator=generator) < 0.5
    return torch.cat([resized_crops(size, smallest, count, generator), flips[:, None].float()], 1)


@pytest.mark.parametrize("size", [(21, 16), (16, 40), (9, 9)])
def test_a_resized_crop_has_torchvisions_pixels_and_labels(size: tuple[int, int]) -> None:
    images = some_images(batch=60, size=size)
    masks = torch.randint(0, 9, (60, *size), generator=torch.Generator().manual_seed(4))
    moved, labels = BasicAugmentation(flip=0.5, resized_crop=0.1)(images, 8, masks)
    assert labels is not None
    drawn = boxes_drawn(size, 0.1, 60, 8).int().tolist()
    assert {flip for *_, flip in drawn} == {0, 1}
    for image, mask, pixels, label, (top, left, height, width, flip) in zip(
        images, masks, moved, labels, drawn, strict=True
    ):
        theirs = tvf.resized_crop(image.float(), top, left, height, width, list(size), antialias=False)
        nearest = tvf.resized_crop(
            mask[None], top, left, height, width, list(size), interpolation=tvf.InterpolationMode.NEAREST_EXACT
        )[0]
        assert (pixels.float() - (theirs.flip(-1) if flip else theirs)).abs().max() <= 0.51
        same = (nearest.flip(-1) if flip else nearest) == label
        assert same.float().mean() > 0.99  # rounding decides between two labels half way


@pytest.mark.parametrize("size", [(32, 32), (20, 60)])
def test_resized_crops_are_drawn_as_torchvision_draws_them(size: tuple[int, int]) -> None:
    boxes = boxes_drawn(size, 0.08, 3000, 1)[:, :4]
    torch.manual_seed(2)
    pixels = torch.zeros(1, *size)
    theirs = torch.tensor([RandomResizedCrop.get_params(pixels, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= torch.tensor(size)).all()
    for number in range(4):
        assert ks_2samp(boxes[:, number].numpy(), theirs[:, number].float().numpy()).pvalue > 0.001
    area = [(each[:, 2] * each[:, 3]).float().numpy() for each in (boxes, theirs)]
    assert ks_2samp(*area).pvalue > 0.001


def test_an_image_that_no_box_fits_gets_the_central_one() -> None:
    torch.manual_seed(0)
    for size in ((4, 40), (40, 4)):
        central = RandomResizedCrop.get_params(torch.zeros(1, *size), [0.9, 1.0], [3 / 4, 4 / 3])
        assert boxes_drawn(size, 0.9, 5, 0)[:, :4].tolist() == [[float(each) for each in central]] * 5


@pytest.mark.parametrize("scale", [1.0, 1.4])
def test_masks_move_with_their_images(scale: float) -> None:
    labels = torch.randint(1, 6, (12, 10, 10), generator=torch.Generator().manual_seed(2)).repeat_interleave(4, 1)
    labels = labels.repeat_interleave(4, 2)
    images = (labels * 40).to(torch.uint8)[:, None]
    moved, masks = BasicAugmentation(flip=0.5, crop=6, scale=scale)(images, 5, labels)
    assert masks is not None
    assert set(masks.unique().tolist()) <= {1, 2, 3, 4, 5, 255}
    same = (moved[:, 0].long() == masks * 40) | ((masks == 255) & (moved[:, 0] < 220))
    assert same.float().mean() > (0.999 if scale == 1 else 0.7)  # between two labels pixels are mixed


def test_a_part_of_a_batch_gets_what_it_gets_in_the_whole() -> None:
    images, masks = some_images(), torch.randint(0, 5, (40, 9, 14))
    for augmentation in (BasicAugmentation(flip=0.5, crop=2, scale=1.3), BasicAugmentation(flip=0.5, resized_crop=0.2)):
        whole = augmentation(images, 4, masks)
        for first, last in ((0, 13), (13, 40)):
            part = augmentation(images[first:last], 4, masks[first:last], part=(first, 40))
            for mine, theirs in zip(part, whole, strict=True):
                assert mine is not None
                assert theirs is not None
                assert torch.equal(mine, theirs[first:last])


@pytest.mark.parametrize("settings", [{"scale": 1.3, "crop": 2}, {"resized_crop": 0.2}])
def test_large_batches_go_in_parts_without_a_difference(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, float]
) -> None:
    images, masks = some_images(), torch.randint(0, 5, (40, 9, 14))
    augmentation = BasicAugmentation(flip=0.5, **settings)  # type: ignore[arg-type]
    whole = augmentation(images, 4, masks)
    monkeypatch.setattr("fieldshift.data.augmentation.kernels.CACHED_VALUES", 7 * images[0].numel())
    for mine, theirs in zip(augmentation(images, 4, masks), whole, strict=True):
        assert mine is not None
        assert theirs is not None
        assert torch.equal(mine, theirs)


def test_crops_of_both_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="in place of crop and scale"):
        BasicAugmentation(resized_crop=0.5, crop=4)


def test_draws_depend_on_the_seed_alone() -> None:
    images = some_images()
    augmentation = BasicAugmentation(flip=0.5, crop=2, scale=1.2)
    first, again, other = (augmentation(images, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert augmentation(images[:0], 1)[0].shape == (0, 3, 9, 14)
