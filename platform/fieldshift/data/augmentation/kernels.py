"""Torchvision's augmentation ops on a batch with one op per image, bit for bit as applied per image.

Images with the same colour op are processed together, and all geometric ops share one sampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeGuard

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from fieldshift.data.augmentation.colours import ADJUSTED, COLOURS, Images

# Torchvision's re-exports are not visible to strict type checkers.
F: Any = functional

Masks = Int64[Tensor, "batch height width"]


CACHED_VALUES = 2**19
LARGEST_REMEMBERED = 64 * 64
FEW = 16
"""Up to so many images, each is changed by itself: bringing those with the same op together would copy them twice."""


def images_at_once(images: Images) -> int:
    """The number of images to change at once: on a CPU as many as fit into its cache, elsewhere all."""
    return max(1, CACHED_VALUES // images[0].numel()) if images.is_cpu else len(images)


@dataclass(frozen=True, slots=True)
class Op:
    """One op of torchvision's augmentation space on one image, in torchvision's own units (`magnitude` of `name`)."""

    name: str
    magnitude: float = 0.0


@dataclass(frozen=True, slots=True)
class Placement:
    """Parameters of a sampling, as in torchvision's affine: angles in degrees, shifts in pixels."""

    angle: float = 0.0
    translate: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    shear: tuple[float, float] = (0.0, 0.0)
    corner: bool = False
    """Whether the fixed point is the upper left corner of the image instead of its centre."""


PLACEMENTS: dict[str, Callable[[float], Placement]] = {
    "ShearX": lambda size: Placement(shear=(math.degrees(math.atan(size)), 0.0), corner=True),
    "ShearY": lambda size: Placement(shear=(0.0, math.degrees(math.atan(size))), corner=True),
    "TranslateX": lambda size: Placement(translate=(float(int(size)), 0.0)),
    "TranslateY": lambda size: Placement(translate=(0.0, float(int(size)))),
    # torchvision's `rotate` turns in the opposite direction to its `affine`.
    "Rotate": lambda size: Placement(angle=-(size % 360)),
}


def apply_ops(
    images: Images,
    ops: Sequence[Op | None],
    *,
    interpolation: str,
    masks: Masks | None = None,
    mask_fill: int = 255,
) -> tuple[Images, Masks | None]:
    """Applies one op to every image (None and "Identity" leave it unchanged) and moves masks with their images.

    Pixels from outside are 0, in masks `mask_fill`; masks are sampled "nearest", images with `interpolation` ("nearest" or
    "bilinear").
    """
    if len(images) <= FEW:
        return one_by_one(images, ops, interpolation=interpolation, masks=masks, mask_fill=mask_fill)
    kept, placed, groups = grouped(ops)
    if len(kept) == len(images):
        return images, masks
    # Images with the same op are adjacent, so that each op gets a slice and there is one reordering, not one per op.
    order = torch.tensor([*kept, *placed, *(position for group in groups.values() for position in group)])
    counts = [len(kept), len(placed), *(len(group) for group in groups.values())]
    order = order.to(images.device)
    # index_select copies whole images; indexing would copy element by element.
    parts = list(torch.split(images.index_select(0, order), counts))
    mask_parts = None if masks is None else list(torch.split(masks.index_select(0, order), counts))
    if placed:
        placements = [PLACEMENTS[op.name](op.magnitude) for op in map(ops.__getitem__, placed) if op is not None]
        grid = torch.cat(
            [grid_of(placement, images.shape[2], images.shape[3], images.device) for placement in placements]
        )
        parts[1], moved_masks = sample(
            parts[1], grid, interpolation=interpolation,
            masks=None if mask_parts is None else mask_parts[1], mask_fill=mask_fill,
        )  # fmt: skip
        if mask_parts is not None and moved_masks is not None:
            mask_parts[1] = moved_masks
    for number, (key, members) in enumerate(groups.items(), start=2):
        if isinstance(key, Op):
            own = None if mask_parts is None else mask_parts[number]
            parts[number], turned = turn(parts[number], key.magnitude, interpolation, own, mask_fill)
            if mask_parts is not None and turned is not None:
                mask_parts[number] = turned
        else:
            magnitudes = [op.magnitude for op in map(ops.__getitem__, members) if op is not None]
            strengths = torch.tensor(magnitudes, dtype=torch.float64, device=images.device)
            parts[number] = COLOURS[key](parts[number], strengths)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    moved = torch.cat(parts).index_select(0, back)
    return moved, None if mask_parts is None else torch.cat(mask_parts).index_select(0, back)


def changes(op: Op | None) -> TypeGuard[Op]:
    return op is not None and op.name != "Identity"


def is_quarter_turn(op: Op) -> bool:
    return op.name == "Rotate" and op.magnitude % 90 == 0


def grouped(ops: Sequence[Op | None]) -> tuple[list[int], list[int], dict[str | Op, list[int]]]:
    """The positions of images that stay, of those that are sampled, and of those of every other op."""
    kept: list[int] = []
    placed: list[int] = []
    groups: dict[str | Op, list[int]] = {}
    for position, op in enumerate(ops):
        if not changes(op):
            kept.append(position)
        elif op.name in COLOURS:
            groups.setdefault(op.name, []).append(position)
        elif is_quarter_turn(op):
            groups.setdefault(op, []).append(position)
        else:
            placed.append(position)
    return kept, placed, groups


def one_by_one(
    images: Images, ops: Sequence[Op | None], *, interpolation: str, masks: Masks | None, mask_fill: int
) -> tuple[Images, Masks | None]:
    """`apply_ops`, image by image."""
    if not any(map(changes, ops)):
        return images, masks
    changed, moved = list(images.split(1)), None if masks is None else list(masks.split(1))
    for number, op in enumerate(ops):
        if not changes(op):
            continue
        image, mask = changed[number], None if moved is None else moved[number]
        if op.name in ADJUSTED:
            image = ADJUSTED[op.name](image, 1.0 + op.magnitude)
        elif op.name in COLOURS:
            image = COLOURS[op.name](image, torch.tensor([op.magnitude], dtype=torch.float64, device=image.device))
        elif is_quarter_turn(op):
            image, mask = turn(image, op.magnitude, interpolation, mask, mask_fill)
        else:
            grid = grid_of(PLACEMENTS[op.name](op.magnitude), image.shape[2], image.shape[3], image.device)
            image, mask = sample(image, grid, interpolation=interpolation, masks=mask, mask_fill=mask_fill)
        changed[number] = image
        if moved is not None and mask is not None:
            moved[number] = mask
    return torch.cat(changed), None if moved is None else torch.cat(moved)


def turn(
    images: Images, degrees: float, interpolation: str, masks: Masks | None, mask_fill: int
) -> tuple[Images, Masks | None]:
    """Turns by a multiple of 90 degrees, which torchvision does without sampling where the image is square."""
    turned = F.rotate(images, degrees, InterpolationMode(interpolation))
    if masks is None:
        return turned, None
    return turned, F.rotate(masks[:, None].float(), degrees, fill=[float(mask_fill)])[:, 0].long()


def place(
    images: Images,
    placements: Sequence[Placement],
    *,
    interpolation: str,
    masks: Masks | None = None,
    mask_fill: int = 255,
) -> tuple[Images, Masks | None]:
    """Samples every image (and mask) once under its own placement, as torchvision's `affine` would one by one."""
    grid = sampling_grid(placements, images.shape[2], images.shape[3], images.device)
    return sample(images, grid, interpolation=interpolation, masks=masks, mask_fill=mask_fill)


def sample(
    images: Images,
    grid: Float[Tensor, "batch height width 2"],
    *,
    interpolation: str,
    masks: Masks | None,
    mask_fill: int,
) -> tuple[Images, Masks | None]:
    values = grid_sample(images.float(), grid, mode=interpolation, padding_mode="zeros", align_corners=False)
    moved = values.round_().to(torch.uint8)
    if masks is None:
        return moved, None
    # Shifted by one so that the zeros that sampling writes outside differ from class 0.
    labels = grid_sample((masks[:, None] + 1).float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    labels = labels[:, 0].long()
    return moved, torch.where(labels == 0, mask_fill, labels - 1)


def grid_of(placement: Placement, height: int, width: int, device: torch.device) -> Float[Tensor, "1 height width 2"]:
    """The grid of one placement; grids of small images are cached, since magnitudes come from short tables."""
    # One product per placement, as in torchvision: a batched product may round the last bit differently, and a sample
    # half way between two pixels would then be read from the other one.
    make = remembered_grid if height * width <= LARGEST_REMEMBERED else sampling_grid
    return make((placement,), height, width, device)


def sampling_grid(
    placements: Sequence[Placement], height: int, width: int, device: torch.device
) -> Float[Tensor, "batch height width 2"]:
    base = points(height, width, device)
    matrices = torch.tensor([inverse_matrix(placement, height, width) for placement in placements], device=device)
    scaled = matrices.view(-1, 2, 3).transpose(1, 2).div(torch.tensor([0.5 * width, 0.5 * height], device=device))
    return base.expand(len(placements), -1, -1).bmm(scaled).view(-1, height, width, 2)


@lru_cache(maxsize=2)
def points(height: int, width: int, device: torch.device) -> Float[Tensor, "1 pixels 3"]:
    """The pixels as (x, y, 1) from the image's centre, row by row."""
    base = torch.empty(1, height, width, 3)
    base[..., 0] = torch.linspace((1.0 - width) * 0.5, (width - 1.0) * 0.5, steps=width)
    base[..., 1] = torch.linspace((1.0 - height) * 0.5, (height - 1.0) * 0.5, steps=height).unsqueeze(-1)
    base[..., 2] = 1
    return base.view(1, height * width, 3).to(device)


remembered_grid = lru_cache(maxsize=512)(sampling_grid)


def inverse_matrix(placement: Placement, height: int, width: int) -> list[float]:
    """The six numbers of the map from output pixels to the points they are read from, both centred on the image.

    Forward, about the fixed point: shear x, shear y, scale, rotation, then translation; the order of torchvision.
    """
    turn = math.radians(placement.angle)
    shear_x, shear_y = (math.radians(shear) for shear in placement.shear)
    shift_x, shift_y = placement.translate
    centre_x, centre_y = (-width * 0.5, -height * 0.5) if placement.corner else (0.0, 0.0)
    a = math.cos(turn - shear_y) / math.cos(shear_y)
    b = -(a * math.tan(shear_x) + math.sin(turn))
    c = math.sin(turn - shear_y) / math.cos(shear_y)
    d = math.cos(turn) - c * math.tan(shear_x)
    m = [d / placement.scale, -b / placement.scale, 0.0, -c / placement.scale, a / placement.scale, 0.0]
    m[2] = centre_x - m[0] * (centre_x + shift_x) - m[1] * (centre_y + shift_y)
    m[5] = centre_y - m[3] * (centre_x + shift_x) - m[4] * (centre_y + shift_y)
    return m
