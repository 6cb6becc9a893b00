"""The 2D augmentation arms that video arms are compared with: torchvision's transforms, applied to whole batches.

An arm's output equals, bit for bit, that of torchvision's v2 transform applied per image under the same seed (tests
compare them). It is computed several times faster for images of 32 px, and 0.98 to 1.4 times as fast for
224 px (`benchmarks/loading.py`); transforms in threads would also share one generator, and differ from run to run.

Departures [D]: masks, which torchvision's automatic augmentations reject, are moved with their image ("nearest", outside =
ignored); AugMix mixes differently moved images, for which no single mask exists, so with masks it draws from its colour ops
only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, TypeVar, overload

import torch
from torchvision.transforms import v2 as torchvision_transforms

from fieldshift.data.augmentation.colours import Images
from fieldshift.data.augmentation.draws import (
    BlockGenerator,
    Mixture,
    draw_affine,
    draw_augmix,
    draw_autoaugment,
    draw_randaugment,
    draw_trivialaugment,
)
from fieldshift.data.augmentation.kernels import Masks, Op, Placement, apply_ops, images_at_once, place
from fieldshift.data.split import IGNORE
from fieldshift.errors import UserError, unknown_name

AFFINE_DEGREES = 15.0
AFFINE_TRANSLATE = (0.1, 0.1)
AFFINE_SCALE = (0.85, 1.15)
AFFINE_SHEAR = (-10.0, 10.0, -10.0, 10.0)
RANDAUGMENT_LEVELS = 31

# Torchvision's re-exports are not visible to strict type checkers.
v2: Any = torchvision_transforms

Moved = tuple[Images, Masks | None]
Drawn = TypeVar("Drawn")
Run = Callable[["Augmentation", Images, int, Masks | None], Moved]


class Augmentation:
    """A 2D augmentation of a batch of uint8 images, reproducible from an integer seed.

    `transform` is the torchvision transform that it reproduces (None for the arm "none"), `settings` the plain values that
    describe it.
    """

    def __init__(self, name: str, transform: Any, settings: Mapping[str, Any]) -> None:
        self.name = name
        self.transform = transform
        self.settings = dict(settings)

    def __repr__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in self.settings.items())
        return f"augmentation({', '.join(filter(None, [repr(self.name), inside]))})"

    @overload
    def __call__(self, images: Images, seed: int) -> Images: ...
    @overload
    def __call__(self, images: Images, seed: int, masks: Masks) -> tuple[Images, Masks]: ...
    def __call__(self, images: Images, seed: int, masks: Masks | None = None) -> Images | tuple[Images, Masks]:
        """Applies the arm's random ops to images (B, C, H, W) uint8, and the same motions to `masks` (B, H, W) int64.

        C is 1 or 3. The result depends on `seed` alone; torch's random state is unchanged. Returns new tensors on the
        images' device (the arm "none" returns its inputs).
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"Images must be uint8 (B, 1 or 3, H, W), got {images.dtype} {tuple(images.shape)}.")
        if masks is not None and masks.shape != (images.shape[0], *images.shape[2:]):
            raise ValueError(f"Masks must be (B, H, W) of the images {tuple(images.shape)}, got {tuple(masks.shape)}.")
        moved, moved_masks = ARMS[self.name](self, images, seed, masks)
        return moved if moved_masks is None else (moved, moved_masks)


def run_none(arm: Augmentation, images: Images, seed: int, masks: Masks | None) -> Moved:  # noqa: ARG001
    return images, masks


def run_affine(arm: Augmentation, images: Images, seed: int, masks: Masks | None) -> Moved:
    transform = arm.transform
    generator = BlockGenerator(seed)
    mode = transform.interpolation.value

    def apply(part: Images, placements: Sequence[Placement], part_masks: Masks | None) -> Moved:
        return place(part, placements, interpolation=mode, masks=part_masks, mask_fill=IGNORE)

    return by_parts(apply, images, draw_affine(transform, size_of(images), generator, len(images)), masks)


def run_chains(draw: Callable[[Any, tuple[int, int], BlockGenerator], list[Op]]) -> Run:
    def run(arm: Augmentation, images: Images, seed: int, masks: Masks | None) -> Moved:
        generator = BlockGenerator(seed)
        chains = [draw(arm.transform, size_of(images), generator) for _ in range(len(images))]
        return by_parts(lambda *part: apply_chains(*part, mode="nearest"), images, chains, masks)

    return run


def run_augmix(arm: Augmentation, images: Images, seed: int, masks: Masks | None) -> Moved:
    transform = arm.transform
    width = transform.mixture_width

    def apply(part: Images, drawn: Sequence[Mixture], part_masks: Masks | None) -> Moved:
        own = torch.tensor([mixture.own for mixture in drawn], device=part.device).view(-1, 1, 1, 1)
        shares = torch.tensor([mixture.shares for mixture in drawn], device=part.device).view(-1, width, 1, 1, 1)
        chains = [mixture.chains[number] for number in range(width) for mixture in drawn]
        changed, _ = apply_chains(part.repeat(width, 1, 1, 1), chains, None, mode="bilinear")
        mixed = own * part
        for number, chain in enumerate(changed.chunk(width)):
            mixed.add_(shares[:, number] * chain)
        return mixed.to(torch.uint8), part_masks

    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also seed the GPU used for training.
        torch.default_generator.manual_seed(seed)
        drawn = [draw_augmix(transform, size_of(images), colour_only=masks is not None) for _ in range(len(images))]
    return by_parts(apply, images, drawn, masks)


def by_parts(
    apply: Callable[[Images, Sequence[Drawn], Masks | None], Moved],
    images: Images,
    drawn: Sequence[Drawn],
    masks: Masks | None,
) -> Moved:
    """Applies `apply` to the whole batch, or on a CPU to chunks of images that fit its cache."""
    if len(images) == 0:
        return images, masks
    count = images_at_once(images)
    parts = [
        apply(part, drawn[start : start + count], None if masks is None else masks[start : start + count])
        for start, part in zip(range(0, len(images), count), torch.split(images, count), strict=True)
    ]
    if len(parts) == 1:
        return parts[0]
    moved_masks = [part_masks for _, part_masks in parts if part_masks is not None]
    return torch.cat([part for part, _ in parts]), torch.cat(moved_masks) if moved_masks else None


def apply_chains(images: Images, chains: Sequence[list[Op]], masks: Masks | None, *, mode: str) -> Moved:
    for ops in zip_longest(*chains):
        images, masks = apply_ops(images, ops, interpolation=mode, masks=masks, mask_fill=IGNORE)
    return images, masks


def size_of(images: Images) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


ARMS: dict[str, Run] = {
    "none": run_none,
    "affine": run_affine,
    "randaugment": run_chains(draw_randaugment),
    "autoaugment": run_chains(draw_autoaugment),
    "trivialaugment": run_chains(draw_trivialaugment),
    "augmix": run_augmix,
}


def known_augmentations() -> list[str]:
    return list(ARMS)


def augmentation(
    name: str,
    *,
    num_ops: int | None = None,
    magnitude: int | None = None,
    policy: str | None = None,
) -> Augmentation:
    """Returns the arm `name`: none, affine, randaugment, autoaugment, trivialaugment or augmix.

    Defaults are torchvision's: RandAugment's `num_ops` 2 and `magnitude` 9 (of 0 to 30), AutoAugment's `policy` "imagenet"
    (or "cifar10", "svhn"), AugMix's severity 3. The affine arm rotates by up to 15 degrees, translates by up to 0.1 of the
    side, scales by 0.85 to 1.15 and shears by up to 10 degrees, bilinear [D: no published setting]. Pixels from
    outside of the image are 0. Raises UserError for an unknown name and for a setting that the arm does not have.
    """
    if name not in ARMS:
        raise unknown_name("augmentation", name, ARMS)
    given = {key: value for key, value in (("num_ops", num_ops), ("magnitude", magnitude)) if value is not None}
    owner = "randaugment" if given else "autoaugment" if policy is not None else name
    if name != owner or (given and policy is not None):
        setting = ", ".join([*given, *(["policy"] if policy is not None else [])])
        raise UserError(f"The augmentation '{name}' has no setting {setting}; it belongs to '{owner}'; leave it out.")
    if num_ops is not None and num_ops < 0:
        raise UserError(f"num_ops is {num_ops}, but must be 0 or more ops.")
    if magnitude is not None and not 0 <= magnitude < RANDAUGMENT_LEVELS:
        raise UserError(f"magnitude is {magnitude}, but RandAugment's levels are 0 to {RANDAUGMENT_LEVELS - 1}.")
    policies = {member.value: member for member in v2.AutoAugmentPolicy}
    if policy is not None and policy not in policies:
        raise unknown_name("AutoAugment policy", policy, policies)
    settings: dict[str, Any] = {}
    transform: Any = None
    if name == "affine":
        transform = v2.RandomAffine(AFFINE_DEGREES, AFFINE_TRANSLATE, AFFINE_SCALE, AFFINE_SHEAR,
                                    v2.InterpolationMode.BILINEAR, None)  # fmt: skip
    elif name == "randaugment":
        settings |= {"num_ops": 2 if num_ops is None else num_ops, "magnitude": 9 if magnitude is None else magnitude}
        transform = v2.RandAugment(settings["num_ops"], settings["magnitude"], RANDAUGMENT_LEVELS)
    elif name == "autoaugment":
        settings |= {"policy": policy or "imagenet"}
        transform = v2.AutoAugment(policies[settings["policy"]])
    elif name == "trivialaugment":
        transform = v2.TrivialAugmentWide()
    elif name == "augmix":
        transform = v2.AugMix()
    return Augmentation(name, transform, settings)
