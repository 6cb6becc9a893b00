"""Converts stored images to the network's input: augmentation, motions, normalisation, in this order, on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from fieldshift.data import Augmentation, BasicAugmentation
from fieldshift.motions import Policy
from fieldshift.tensor_cache import constant


@dataclass(frozen=True, kw_only=True)
class FramePlan:
    """The conversion of one arm from uint8 images (B, C, H, W) to videos (B, T, C, H, W), in training and in evaluation.

    Attributes:
        policy: the motions; None reads the image itself as a video of one frame.
        as_images: the policy's frames are ordinary augmented images: one random frame per image in training, the plain
            image in evaluation, all frames averaged at test time (`views`).
        basic: the crop, flip and scale that every arm shares, applied first, in training only; None for none.
        augmentation: a 2D augmentation before the motions, in training only; None for none.
        mean: channel means, in [0, 1].
        std: channel standard deviations, in [0, 1].
        outside: the mask value for pixels outside a moved mask.
    """

    policy: Policy | None
    as_images: bool = False
    basic: BasicAugmentation | None = None
    augmentation: Augmentation | None = None
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    outside: int = 255

    @property
    def frames(self) -> int:
        """Number of frames in the video that the network reads."""
        return 1 if self.policy is None or self.as_images else self.policy.frames

    def normalise(self, video: Float[Tensor, "batch frames channels height width"]) -> Tensor:
        mean, std = (constant(values, video.dtype, video.device) for values in (self.mean, self.std))
        return (video - mean.view(1, 1, -1, 1, 1)) / std.view(1, 1, -1, 1, 1)

    def training_video(
        self, images: UInt8[Tensor, "batch channels height width"], targets: Int[Tensor, "batch ..."], seed: int
    ) -> tuple[Tensor, Tensor]:
        """The augmented, moved, normalised video and its targets; every random draw depends on `seed`."""
        if self.basic is not None:
            images, masks = self.basic(images, seed, targets if targets.dim() > 1 else None)
            targets = targets if masks is None else masks
        if self.augmentation is not None:
            if targets.dim() > 1:
                images, targets = self.augmentation(images, seed, masks=targets)
            else:
                images = self.augmentation(images, seed)
        pixels = as_floats(images)
        if self.policy is None:
            return self.normalise(pixels.unsqueeze(1)), targets
        if not self.as_images:
            return self.normalise(self.policy.video(pixels)), targets
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(self.policy.frames, (len(pixels),), generator=generator).to(pixels.device)
        rows = torch.arange(len(pixels), device=pixels.device)
        frames = self.policy.video(pixels)[rows, chosen]
        if targets.dim() > 1:
            targets = self.policy.video_masks(targets, outside=self.outside)[rows, chosen]
        return self.normalise(frames.unsqueeze(1)), targets

    def evaluation_video(self, images: UInt8[Tensor, "batch channels height width"]) -> Tensor:
        """The video without random draws."""
        pixels = as_floats(images)
        if self.policy is None or self.as_images:
            return self.normalise(pixels.unsqueeze(1))
        return self.normalise(self.policy.video(pixels))

    def views_for(self, copies: int) -> int:
        """Number of views for test-time averaging: as many as fit into `copies` + 1 single-frame passes, at least one.

        A view of a video takes T passes. One if there is nothing to average: no augmentation, and no policy used as images.
        """
        varied = self.augmentation is not None or (self.as_images and self.policy is not None)
        return max(1, (copies + 1) // self.frames) if varied else 1

    def views(self, images: UInt8[Tensor, "batch channels height width"], copies: int) -> list[Tensor]:
        """The videos for test-time averaging of logits: the plain one and augmented ones, `views_for(copies)` in all.

        For a policy used as images the views are its frames, at as many distances as there are passes; for an arm without
        augmentation there is only the plain one. Geometry that would move a dense map (segmentation) is not averaged: there
        is one view.
        """
        if self.as_images and self.policy is not None:
            frames = self.policy.with_frames(self.views_for(copies)).video(as_floats(images))
            return [self.normalise(frame) for frame in frames.split(1, dim=1)]
        plain = self.evaluation_video(images)
        if self.augmentation is None:
            return [plain]
        augmented = (self.augmentation(images, seed) for seed in range(self.views_for(copies) - 1))
        return [plain, *(self.evaluation_video(moved) for moved in augmented)]

    def alignment(self, size: tuple[int, int]) -> Tensor | None:
        """Frame matrices (T, 2, 3) that fuse dense maps in the reference frame; None if nothing moved."""
        if self.policy is None or self.as_images:
            return None
        return self.policy.matrices(size)


def as_floats(images: Tensor) -> Tensor:
    """Converts uint8 images to floats in [0, 1]; floats are unchanged."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images
