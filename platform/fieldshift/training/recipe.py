"""The training recipe: all settings that are the same in every arm of a comparison."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Literal

from fieldshift.errors import UserError
from fieldshift.settings import accept_fields

AUGMENTED = ("flip", "crop", "scale", "resized_crop", "label_smoothing")
"""Settings of the augmentation and smoothing that every arm shares."""

LARGEST_SCALE = 20.0
"""The largest factor of random scaling: the limit of the motion zoom, beyond which a few pixels fill the image."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The training recipe.

    Attributes:
        epochs: passes over the training images.
        batch: images per step, over all workers together.
        accumulate: number of micro-batches per step on each worker (gradient accumulation), to need less memory.
        optimizer: adamw or sgd (Nesterov momentum: 0.9, or from 0.95 to 0.85 and back with one-cycle).
        learning_rate: the peak step size.
        weight_decay: decoupled (adamw) or L2 (sgd); not applied to biases and normalisation.
        schedule: one-cycle, cosine or constant, over all steps.
        flip: probability of a left-right flip of a training image, in [0, 1].
        crop: maximum distance of the random crop from the centre, in pixels in every direction; below the shorter side of the
            images.
        scale: largest factor of a training image's random scaling, in both directions, from 1 to 20; 1 keeps the size.
        resized_crop: smallest share of a training image's area that a random crop keeps, which is resized to the image's size
            (torchvision's RandomResizedCrop, 0.08 for ImageNet), in place of `crop` and `scale`; 1 crops nothing.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        clip_norm: maximum norm of the gradient; 0 disables clipping.
        auxiliary_weight: weight of a segmenter's auxiliary head in the loss.
        precision: float32, or bf16 (autocast on devices that support it).
        channels_last: keep 2D convolutions in channels-last memory order.
        compile: use torch.compile on the network.
        sync_batch_norm: BatchNorm statistics over the batches of all workers of a training, not over each worker's part.
    """

    epochs: int = 12
    batch: int = 64
    accumulate: int = 1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 6e-3
    weight_decay: float = 5e-3
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    flip: float = 0.0
    crop: int = 0
    scale: float = 1.0
    resized_crop: float = 1.0
    label_smoothing: float = 0.0
    clip_norm: float = 0.0
    auxiliary_weight: float = 0.4
    precision: Literal["float32", "bf16"] = "float32"
    channels_last: bool = True
    compile: bool = False
    sync_batch_norm: bool = False

    def __post_init__(self) -> None:
        accept_fields(self, "recipe")
        if self.epochs < 1:
            raise UserError(f"recipe.epochs is {self.epochs}, but must be at least 1.")
        if self.batch < 1:
            raise UserError(f"recipe.batch is {self.batch}, but must be at least 1.")
        if self.accumulate < 1:
            raise UserError(f"recipe.accumulate is {self.accumulate}, but must be at least 1.")
        if not self.learning_rate > 0:
            raise UserError(f"recipe.learning_rate is {self.learning_rate}, but must be above 0.")
        check_learning("recipe", **{name: getattr(self, name) for name in AUGMENTED})
        for name in ("weight_decay", "clip_norm", "auxiliary_weight"):
            if getattr(self, name) < 0:
                raise UserError(f"recipe.{name} is {getattr(self, name)}, but must be 0 or more.")

    def check(self, workers: int, *, here: bool, recompute: bool = False) -> None:
        """Raises UserError if `workers` cannot share the batch or, `here` on this machine, nothing can be compiled.

        `recompute`: whether the network is to recompute activations, which torch.compile decides itself.
        """
        check_batch(self.batch, workers, self.accumulate)
        if self.compile and recompute:
            raise UserError(
                "--recipe.compile and --architecture.recompute cannot be combined, as torch.compile decides itself what to "
                "recompute; leave one out."
            )
        if self.compile and self.accumulate > 1 and workers > 1:
            raise UserError(
                f"--recipe.accumulate {self.accumulate} and --recipe.compile cannot be combined with {workers} workers, which "
                "share gradients after the last micro-batch only; leave one out."
            )
        if self.sync_batch_norm:
            check_synchronised("recipe", workers)
            if self.compile:
                raise UserError(
                    "--recipe.compile and --recipe.sync_batch_norm cannot be combined, as workers communicate within a step; "
                    "leave one out."
                )
        compiler = os.environ.get("CXX", "g++")  # the compiler that torch.compile calls
        if self.compile and here and shutil.which(compiler) is None and not has_gpu():
            raise UserError(
                f"--recipe.compile needs a C++ compiler, but '{compiler}' is not installed; install g++ (Debian: package g++), "
                "name another one in CXX, or leave out --recipe.compile."
            )


def check_learning(
    section: str, *, flip: float, crop: int, scale: float, resized_crop: float, label_smoothing: float
) -> None:
    """Raises UserError for an invalid augmentation or smoothing; names of options begin with `section`."""
    if not 0 <= label_smoothing < 1:
        raise UserError(f"{section}.label_smoothing is {label_smoothing}, but must be in [0, 1).")
    if not 0 <= flip <= 1:
        raise UserError(f"{section}.flip is {flip}, but a probability must be from 0 to 1.")
    if not 1 <= scale <= LARGEST_SCALE:
        raise UserError(f"{section}.scale is {scale}, but the largest factor must be from 1 to {LARGEST_SCALE:g}.")
    if crop < 0:
        raise UserError(f"{section}.crop is {crop}, but must be 0 or more.")
    if not 0 < resized_crop <= 1:
        raise UserError(
            f"{section}.resized_crop is {resized_crop}, but a share of the area must be above 0, at most 1."
        )
    if resized_crop < 1 and (crop > 0 or scale > 1):
        other, off = (f"crop {crop}", "crop 0") if crop > 0 else (f"scale {scale}", "scale 1")
        raise UserError(
            f"{section}.resized_crop {resized_crop} crops and scales in place of {section}.{other}; give "
            f"--{section}.{off}, or --{section}.resized_crop 1."
        )


def check_crop(section: str, crop: int, size: tuple[int, int]) -> None:
    """Raises UserError for a crop that may leave nothing of an image of `size` (height, width)."""
    if crop >= min(size):
        raise UserError(
            f"{section}.crop is {crop}, but must be below the shorter side of the images ({size[0]} x {size[1]} pixels), or "
            f"some would be black; give {min(size) - 1} or less, such as --{section}.crop {min(size) // 8}."
        )


def check_synchronised(section: str, workers: int) -> None:
    """Raises UserError unless there are at least two workers to share the statistics of a batch."""
    if workers < 2:
        raise UserError(
            f"--{section}.sync_batch_norm shares the statistics of a batch between workers, but there is only one process; "
            "leave it out, or give --cluster.workers 2 or more (of each trial: --cluster.trial_workers, "
            "which takes Ray and --cluster.trials_at_once other than 0)."
        )


def has_gpu() -> bool:
    """Whether torch can use a GPU of this machine."""
    import torch

    return torch.cuda.is_available()


def check_batch(batch: int, workers: int, accumulate: int = 1) -> None:
    """Raises UserError if `workers` cannot share a global batch of `batch` images equally, in `accumulate` parts each."""
    parts = max(workers, 1) * accumulate
    if accumulate > 1 and batch % parts:
        each = f" for each of {workers} workers" if workers > 1 else ""
        raise UserError(
            f"A batch of {batch} cannot be divided equally into {accumulate} micro-batches{each} (recipe.accumulate); "
            f"give a multiple of {parts}, such as --recipe.batch {max(parts, batch - batch % parts)}."
        )
    if workers > 1 and batch % workers:
        nearest = max(workers, batch - batch % workers)
        raise UserError(
            f"A batch of {batch} cannot be shared equally by {workers} workers; "
            f"give a multiple of {workers}, such as --recipe.batch {nearest}."
        )
