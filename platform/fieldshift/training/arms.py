"""The arms of a comparison: their images, networks and controls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from fieldshift.errors import UserError, unknown_name
from fieldshift.forms import Form

Frames = Literal["image", "searched", "replicated", "random", "searched-as-images"]
Kind = Literal["baseline", "control", "das"]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train, with everything else equal.

    Attributes:
        name: name on the command line and in results.
        kind: baseline (a 2D network), control (needed to interpret the result) or das.
        frames: the network's input: the image itself; the video of the searched policy, of T equal frames, or of a
            random policy of the same space; or the searched policy's frames as ordinary augmented images.
        augmentation: the name of a 2D augmentation from `fieldshift.data`.
        shift: whether the temporal module is included; without it the frames' logits are only averaged.
        wide_field: whether the 2D network has larger kernels, or in ResNets dilation in place of the last two strides, which
            makes the last map finer and keeps its theoretical field.
        dilated: whether the last stage's kernels are dilated, with unchanged strides: a larger field for no operations.
        form: whether the motions make a video, or move channels inside one frame (folded).
        summary: one line for tables and help.
    """

    name: str
    kind: Kind
    frames: Frames = "image"
    augmentation: str = "none"
    shift: bool = False
    wide_field: bool = False
    dilated: bool = False
    form: Form = "video"
    summary: str

    @property
    def moves(self) -> bool:
        """Whether the network uses motions, as a video or folded."""
        return self.frames in {"searched", "replicated", "random"}

    @property
    def is_video(self) -> bool:
        """Whether the network reads several frames."""
        return self.moves and self.form == "video"

    @property
    def needs_policy(self) -> bool:
        return self.frames in {"searched", "searched-as-images"}


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(name="none", kind="baseline", summary="the 2D network on plain images"),
        Arm(name="affine", kind="baseline", augmentation="affine", summary="2D, random affine augmentation"),
        Arm(name="randaugment", kind="baseline", augmentation="randaugment", summary="2D, RandAugment"),
        Arm(
            name="autoaugment",
            kind="baseline",
            augmentation="autoaugment",
            summary="2D, AutoAugment (CIFAR-10's policy up to 64 px, else ImageNet's)",
        ),
        Arm(name="trivialaugment", kind="baseline", augmentation="trivialaugment", summary="2D, TrivialAugmentWide"),
        Arm(name="augmix", kind="baseline", augmentation="augmix", summary="2D, AugMix"),
        Arm(
            name="policy-2d",
            kind="baseline",
            frames="searched-as-images",
            summary="2D, the policy's frames as augmented images, averaged at test time",
        ),
        Arm(
            name="das",
            kind="das",
            frames="searched",
            shift=True,
            summary="video of the searched policy, temporal shift",
        ),
        Arm(
            name="replicate", kind="control", frames="replicated", shift=True, summary="video of T equal frames, shift"
        ),
        Arm(
            name="no-shift",
            kind="control",
            frames="searched",
            summary="the policy's frames averaged, no temporal shift",
        ),
        Arm(
            name="random-policy",
            kind="control",
            frames="random",
            shift=True,
            summary="video of a random policy of the same space, one per seed",
        ),
        Arm(
            name="das-folded",
            kind="das",
            frames="searched",
            shift=True,
            form="folded",
            summary="one frame, channels moved as the searched policy's neighbouring frames",
        ),
        Arm(
            name="random-policy-folded",
            kind="control",
            frames="random",
            shift=True,
            form="folded",
            summary="one frame, channels moved by a random policy of the same space, one per seed",
        ),
        Arm(
            name="identity-folded",
            kind="control",
            frames="replicated",
            shift=True,
            form="folded",
            summary="one frame, the folded network without motion",
        ),
        Arm(name="wide-field", kind="control", wide_field=True, summary="2D, larger kernels or finer last maps"),
        Arm(
            name="dilated",
            kind="control",
            dilated=True,
            summary="2D, the last stage's kernels dilated: no additional operations",
        ),
    )
}


FOLDED_ARMS = {"das": "das-folded", "random-policy": "random-policy-folded", "replicate": "identity-folded"}
"""The arms whose motions have a folded form, and its name."""


def arm_named(name: str) -> Arm:
    """The arm of this name, or of a name joined with a 2D augmentation: "das-folded+affine".

    In a joined arm the augmentation is applied before the motion. Raises UserError with the known names and the nearest one.
    """
    if name in ARMS:
        return ARMS[name]
    base, joined, augmentation = name.partition("+")
    if not joined or base not in ARMS:
        raise unknown_name("arm", base, ARMS)
    known = {arm.augmentation for arm in ARMS.values()} - {"none"}
    if augmentation not in known:
        raise unknown_name(f"augmentation to join the arm '{base}' with", augmentation, known)
    arm = ARMS[base]
    if arm.augmentation != "none" or base == "none":
        raise UserError(f"The arm '{name}' is the same as '{augmentation if base == 'none' else base}'; use that name.")
    return replace(arm, name=name, augmentation=augmentation, summary=f"{arm.summary}; with {augmentation}")
