"""A policy as a torchvision transform and as an exportable layer."""

from __future__ import annotations

import PIL.Image
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from fieldshift.errors import UserError
from fieldshift.motions import ImageToVideo, Policy
from fieldshift.motions.graph import Edge, Step
from fieldshift.motions.placed import PlacedMotion, PlacedPolicy

POLICY = Policy.chain([("translate_x", 0.25), ("rotate", 20)], frames=5)
MIXED = Policy(
    nodes=2,
    edges=(
        Edge(0, 1, (Step("zoom", 1.6),)),
        Edge(0, 2, (Step("translate_y", -0.3),)),
        Edge(1, 2, (Step("shear_x", 12),)),
    ),
    frames=3,
    fill="border",
)


def image(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def test_what_has_a_policy_is_given_in_place_of_it() -> None:
    class Found:
        policy = POLICY

    assert torch.equal(ImageToVideo(Found())(image(3, 12, 16)), ImageToVideo(POLICY)(image(3, 12, 16)))


def test_what_is_no_policy_of_one_video_is_refused() -> None:
    placed = PlacedPolicy(motions=(PlacedMotion(("conv1",), (POLICY,)),))
    for given, words in (
        ("policy.json", r"read a file by Policy\.load"),
        (placed, "use it with fold"),
        (3, "is a int"),
    ):
        with pytest.raises(UserError, match=words):
            ImageToVideo(given)


def test_image_and_mask_of_a_sample_move_together() -> None:
    sample = {
        "image": tv_tensors.Image(image(3, 12, 16)),
        "mask": tv_tensors.Mask(image(12, 16) // 13),
        "label": 3,
        "name": "one",
    }
    moved = ImageToVideo(POLICY)(sample)
    assert isinstance(moved["image"], tv_tensors.Video)
    assert moved["image"].shape == (5, 3, 12, 16)
    assert moved["image"].dtype == torch.uint8
    expected = (POLICY.video(sample["image"][None].as_subclass(torch.Tensor)) * 255).round().to(torch.uint8)
    assert torch.equal(moved["image"].as_subclass(torch.Tensor), expected[0])
    assert torch.equal(moved["image"][2].as_subclass(torch.Tensor), sample["image"].as_subclass(torch.Tensor))
    assert isinstance(moved["mask"], tv_tensors.Mask)
    assert torch.equal(moved["mask"], POLICY.video_masks(sample["mask"][None].as_subclass(torch.Tensor))[0])
    assert (moved["label"], moved["name"]) == (3, "one")


def test_every_kind_of_image() -> None:
    transform = ImageToVideo(POLICY)
    pixels = image(3, 12, 16)
    expected = transform(pixels)
    assert expected.shape == (5, 3, 12, 16)
    picture = PIL.Image.fromarray(pixels.permute(1, 2, 0).numpy())
    assert torch.equal(transform(picture), expected)
    assert torch.equal(transform(pixels.expand(2, 4, 3, 12, 16)), expected.expand(2, 4, 5, 3, 12, 16))
    floats = transform(pixels / 255)
    assert floats.dtype == torch.float32
    assert torch.equal((floats * 255).round().to(torch.uint8), expected)
    assert transform(tv_tensors.Mask(image(2, 12, 16))).shape == (2, 5, 12, 16)


@pytest.mark.parametrize("mode", ["P", "1", "L", "LA", "RGBA"])
def test_of_a_picture_the_colours_move_whatever_its_mode(mode: str) -> None:
    """A palette's numbers are no colours, and one bit is 0 or 255: as Pillow itself converts them."""
    picture = PIL.Image.fromarray(image(12, 16, 3).numpy()).convert(mode)
    plain = picture.convert({"P": "RGB", "1": "L"}.get(mode, mode))
    moved = ImageToVideo(POLICY)(picture)
    assert torch.equal(moved[2].as_subclass(torch.Tensor), v2.functional.pil_to_tensor(plain))
    assert moved.shape == (5, len(plain.getbands()), 12, 16)


def test_a_palette_with_transparency_keeps_it() -> None:
    picture = PIL.Image.new("P", (4, 4))
    picture.putpalette([0, 0, 0, 200, 30, 30])
    picture.info["transparency"] = 0
    assert ImageToVideo(POLICY)(picture).shape == (5, 4, 4, 4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32])
def test_masks_of_any_whole_numbers_move_alike(dtype: torch.dtype) -> None:
    labels = image(12, 16) // 13
    moved = ImageToVideo(POLICY)(tv_tensors.Mask(labels.to(dtype)))
    assert moved.dtype == dtype
    assert torch.equal(moved.long().as_subclass(torch.Tensor), POLICY.video_masks(labels[None].long())[0])


def test_inside_a_pipeline_of_v2() -> None:
    pipeline = v2.Compose(
        [v2.ToImage(), ImageToVideo(POLICY), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    )
    video = pipeline(PIL.Image.new("RGB", (10, 8), (255, 0, 0)))
    assert video.shape == (5, 3, 8, 10)
    assert torch.equal(video[2, :, 0, 0].as_subclass(torch.Tensor), torch.tensor([1.0, -1, -1]))
    assert "translate_x by 0.25 of the width" in repr(pipeline)


def test_what_it_cannot_move_is_refused() -> None:
    transform = ImageToVideo(POLICY)
    boxes = tv_tensors.BoundingBoxes([[0, 0, 3, 3]], format="XYXY", canvas_size=(8, 8))
    for sample, words in (
        ({"image": image(3, 8, 8), "boxes": boxes}, "contains BoundingBoxes"),
        (tv_tensors.Video(image(2, 3, 8, 8)), "contains Video"),
        (image(8, 8), "must be \\(..., C, H, W\\)"),
        (image(3, 8, 8).int(), "torch.int32, but must be uint8 or floats"),
        (tv_tensors.Mask(image(8, 8) > 99), "torch.bool"),
        (tv_tensors.Mask(image(8, 8).float()), "torch.float32, but labels must be integers"),
        (tv_tensors.Mask(image(8, 8).to(torch.int8)), "outside is 255, but torch.int8 masks contain 0 to 127"),
        (PIL.Image.new("I;16", (8, 8)), "the mode I;16"),
        (PIL.Image.new("F", (8, 8)), "the mode F"),
        (PIL.Image.new("CMYK", (8, 8)), "the mode CMYK"),
    ):
        with pytest.raises(UserError, match=words):
            transform(sample)
    with pytest.raises(UserError, match="mixes 2 paths"):
        ImageToVideo(MIXED)(tv_tensors.Mask(image(8, 8)))
