"""One warp, one result: every backend of sampling against numpy, pixel by pixel, for every motion, fill and odd sizes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fieldshift.folding import PolicyMotion
from fieldshift.motions import FILLS, MOTIONS, Policy, invert, warp, warp_masks
from fieldshift.motions.exportable import ExportableVideo
from fieldshift.motions.warp import padding_of
from fieldshift.search.mixture import Mixing, from_slab, mix_warps, to_slab

COLOUR = (0.1, 0.6)
SIZES = [(5, 7), (8, 3), (1, 6)]
Fill = str | tuple[float, ...]


def mirrored(at: np.ndarray, side: int) -> np.ndarray:
    """Coordinates mirrored at -1/2 and side - 1/2, one mirror after the other."""
    at = at.copy()
    while (outside := (at < -0.5) | (at > side - 0.5)).any():
        at[outside & (at < 0)] = -1 - at[outside & (at < 0)]
        at[outside & (at > side - 0.5)] = 2 * side - 1 - at[outside & (at > side - 0.5)]
    return at


def by_numpy(image: np.ndarray, matrix: np.ndarray, fill: Fill, mode: str) -> np.ndarray:
    """The image (C, H, W) under a forward matrix (2, 3), each output pixel on its own terms, in double precision."""
    channels, height, width = image.shape
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    points = np.stack([x, y], axis=-1) - centre
    source = (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T + centre
    x, y = source[..., 0], source[..., 1]
    if fill == "reflection":
        x, y = mirrored(x, width), mirrored(y, height)
    if fill in ("border", "reflection"):
        x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    around = image.mean((1, 2)) if fill == "mean" else np.array(fill if isinstance(fill, tuple) else (0.0,) * channels)
    result = np.zeros_like(image)
    for j in range(height):
        for i in range(width):
            if mode == "nearest":
                read = [(round(x[j, i]), round(y[j, i]), 1.0)]
            else:
                left, top = int(np.floor(x[j, i])), int(np.floor(y[j, i]))
                right, down = x[j, i] - left, y[j, i] - top
                read = [(left, top, (1 - right) * (1 - down)), (left + 1, top, right * (1 - down)),
                        (left, top + 1, (1 - right) * down), (left + 1, top + 1, right * down)]  # fmt: skip
            for column, row, share in read:
                inside = 0 <= column < width and 0 <= row < height
                result[:, j, i] += share * (image[:, row, column] if inside else around)
    return result


def background(images: Tensor, fill: Fill) -> Tensor:
    if fill == "mean":
        return images.mean((-2, -1), keepdim=True)
    return torch.tensor(fill if isinstance(fill, tuple) else (0.0,)).view(1, -1, 1, 1)


def by_pixel_map(images: Tensor, policy: Policy, matrix: Tensor) -> Tensor:
    return warp(images, matrix[None], fill=policy.fill, mode=policy.interpolation)[:, 0]


def by_grid_sample(images: Tensor, policy: Policy, matrix: Tensor) -> Tensor:
    matrices = matrix[None].clone().requires_grad_()
    return warp(images, matrices, fill=policy.fill, mode=policy.interpolation)[:, 0].detach()


def by_policy(images: Tensor, policy: Policy, matrix: Tensor) -> Tensor:
    return policy.video(images)[:, 2]


def by_exportable(images: Tensor, policy: Policy, matrix: Tensor) -> Tensor:
    return ExportableVideo(policy, (images.shape[-2], images.shape[-1]))(images)[:, 2]


def by_slab(images: Tensor, policy: Policy, matrix: Tensor) -> Tensor:
    around = background(images, policy.fill)
    mixing = Mixing((images.shape[-2], images.shape[-1]), padding_of(policy.fill), 1, (((0,),),), False)
    inverse = invert(matrix)[None, None].float()
    mixed = mix_warps([to_slab(images - around)], [torch.ones(1)], [torch.zeros(1)], [inverse], mixing)
    return from_slab(mixed, len(images))[:, 0] + around


def movement_of(
    images: Tensor, policy: Policy
) -> tuple[Tensor, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The channels of both directions, the movement of them as it runs and as it is traced."""
    both = torch.cat([images, images], dim=1)
    movement = PolicyMotion((policy,))((images.shape[-2], images.shape[-1]), both)
    width = both.shape[1]
    return (
        both,
        lambda features: movement.move(features, width),
        lambda features: movement._filled(features, movement.gathered),
    )


def by_movement(images: Tensor, policy: Policy, matrix: Tensor) -> Tensor:
    both, moved, _ = movement_of(images, policy)
    return moved(both)[:, : images.shape[1]]


def by_traced_movement(images: Tensor, policy: Policy, matrix: Tensor) -> Tensor:
    both, _, traced = movement_of(images, policy)
    return traced(both)[:, : images.shape[1]]


def by_index(images: Tensor, policy: Policy, matrix: Tensor) -> Tensor:
    """The lookup of label masks, of the pixels' own numbers: which pixel is read, if any."""
    height, width = images.shape[-2:]
    numbers = warp_masks(torch.arange(height * width).view(1, height, width), matrix[None], outside=height * width)[
        0, 0
    ]
    around = background(images, policy.fill).expand(*images.shape[:2], 1, 1).flatten(2)
    return torch.cat([images.flatten(2), around], dim=-1)[:, :, numbers]


BACKENDS = {
    each.__name__.removeprefix("by_"): each
    for each in (
        by_pixel_map,
        by_grid_sample,
        by_policy,
        by_exportable,
        by_slab,
        by_movement,
        by_traced_movement,
        by_index,
    )
}
BILINEAR_ONLY, NEAREST_ONLY = {"slab"}, {"index"}
FEATURES = {"movement", "traced_movement"}  # have no colours, and so no fill of a colour
LOOKUPS = {"zeros", "mean", COLOUR}  # an index lookup has a label outside


@pytest.mark.parametrize("fill", [*FILLS, COLOUR], ids=str)
@pytest.mark.parametrize("name", sorted(set(MOTIONS) - {"identity"}))
def test_every_backend_reads_the_same_pixels(name: str, fill: Fill) -> None:
    low, high = MOTIONS[name].preset
    for size in SIZES:
        images = torch.rand(2, 2, *size, generator=torch.Generator().manual_seed(3))
        for share in (0.07, 0.83):  # to either side, and nowhere halfway between pixels
            magnitude = low + share * (high - low)
            matrix = MOTIONS[name].matrix(torch.tensor(magnitude).double(), torch.ones((), dtype=torch.float64), size)
            for mode in ("bilinear", "nearest"):
                policy = Policy.single(name, magnitude, frames=3, fill=fill, interpolation=mode)
                expected = np.stack([by_numpy(each, matrix.numpy(), fill, mode) for each in images.double().numpy()])
                for backend, moved in BACKENDS.items():
                    if backend in (BILINEAR_ONLY if mode == "nearest" else NEAREST_ONLY):
                        continue
                    if (backend in FEATURES and fill == COLOUR) or (backend in NEAREST_ONLY and fill not in LOOKUPS):
                        continue
                    found = moved(images, policy, matrix)
                    difference = np.abs(found.double().numpy() - expected).max()
                    assert difference < 2e-5, f"{backend}, {size}, {magnitude}, {mode}: {difference}"
