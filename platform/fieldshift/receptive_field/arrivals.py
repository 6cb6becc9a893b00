"""Splits the gradient of a reference frame's unit by the frames through which it reaches the image.

A video shows the same image in every frame, so a unit that is averaged over the frames depends on the union of what the
frames show, with or without a temporal module. The unit of the reference frame alone depends on another frame only if
the network connects the frames. Its gradient is the sum of the parts that arrive through the reference frame and
through the others; the share of the others is mass(others) / (mass(own) + mass(others)), where the mass of a gradient is
the sum over pixels of its mean absolute value over channels.

In the folded form there is one frame, and a moved channel stands for one of a neighbouring frame. Paths are therefore
classified by the frames that they would have crossed: one forward for a channel that is moved like the next frame, one
back for one moved like the previous frame. Paths whose steps add up to 0 belong to the own frame, all others to
the other frames, which equals the video's share if the two forms have the same features (METHOD.md 5). It is computed by
running several copies of the image together and exchanging the moved channels between copies: all copies have the same
features, so only the gradient changes. Steps are counted modulo the number of copies: exact for up to 4 places, and for
more places up to paths of 9 steps in one direction.
Without motion no channel is exchanged: a folded network without motion is a 2D network, and the share is 0. The
spatial means that GSF's weights read count as the own frame's.

Shape letters: B batch, T frames, N copies, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fieldshift.networks.cells import Cells
from fieldshift.networks.folded import Motion
from fieldshift.networks.movement import Movement
from fieldshift.receptive_field.passages import folded_places
from fieldshift.receptive_field.unit_gradient import UnitGradient

MOST_COPIES = 9


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """Gradients of one unit with respect to the images, (B, C, H, W) each.

    own, others: of the reference frame's unit, through that frame and through all others; their sum is its gradient.
    others is None for a unit behind the fusion, which belongs to no frame. averaged: of the mean over all frames, None
    if there is one frame. silent: number of images for which the unit is zero.
    """

    own: Tensor
    others: Tensor | None
    averaged: Tensor | None
    silent: int

    @property
    def whole(self) -> Tensor:
        """The gradient of the unit."""
        return self.own if self.others is None else self.own + self.others


def copies_for(passages: int) -> int:
    """The number of image copies that distinguishes the paths through this many passages of moved channels."""
    return min(2 * passages + 1, MOST_COPIES)


def arrivals(
    probe: UnitGradient, read: Callable[[Tensor], Tensor], images: Tensor, *, frames: int, reference: int, copies: int
) -> Arrivals:
    """Computes the gradients of the probe's unit; `read` converts images to the network's input.

    images (B, C, H, W) in floats; frames: T of the network. copies: above 1 for a folded network, see `copies_for`.
    """
    if copies > 1:
        return _through_channels(probe, read, images, copies)
    images = images.detach().requires_grad_(True)
    example = read(images)
    units = probe.units(example, len(images))  # (B, T, C')
    silent = _silent(units)
    if frames == 1 or units.shape[1] != frames:
        own = probe.back(units.sum() / units.shape[1], images)
        return Arrivals(own=own, others=torch.zeros_like(own) if frames == 1 else None, averaged=None, silent=silent)
    to_video = probe.back(units[:, reference].sum(), example, keep=True)  # (B, T, C, H, W)
    own_frame = torch.zeros_like(to_video)
    own_frame[:, reference] = to_video[:, reference]
    return Arrivals(
        own=probe.back(example, images, own_frame, keep=True),
        others=probe.back(example, images, to_video - own_frame, keep=True),
        averaged=probe.back(units.sum() / frames, images),
        silent=silent,
    )


def _through_channels(probe: UnitGradient, read: Callable[[Tensor], Tensor], images: Tensor, copies: int) -> Arrivals:
    copied = images.detach().repeat_interleave(copies, dim=0).requires_grad_(True)  # (B * N, C, H, W)
    with crossing(probe.network, copies):
        units = probe.units(read(copied), len(copied)).unflatten(0, (-1, copies))[:, 0]  # (B, 1, C')
    by_copy = probe.back(units.sum(), copied).unflatten(0, (-1, copies))  # (B, N, C, H, W)
    return Arrivals(own=by_copy[:, 0], others=by_copy[:, 1:].sum(dim=1), averaged=None, silent=_silent(units))


def _silent(units: Tensor) -> int:
    return int((units.flatten(1) == 0).all(dim=1).sum())


@dataclass(frozen=True, kw_only=True)
class _Crossing(Movement):
    """A movement whose channels come from the next copy and from the previous one, cyclically over the N copies."""

    inner: Movement
    copies: int

    def move(self, features: Tensor, width: int) -> Tensor:
        if self.is_identity or features.is_meta:
            return self.inner.move(features, width)
        split, half = features.unflatten(0, (-1, self.copies)), width // 2  # (B, N, C, H, W)
        following, previous = split[:, :, :half].roll(-1, 1), split[:, :, half:width].roll(1, 1)
        crossed = torch.cat([following, previous, split[:, :, width:]], dim=2)
        return self.inner.move(crossed.flatten(0, 1), width)


@dataclass(frozen=True)
class _CrossingMotion:
    motion: Motion
    copies: int

    @property
    def groups(self) -> int:
        return self.motion.groups

    def __call__(self, size: tuple[int, int], like: Tensor, cells: Cells | None = None) -> Movement:
        inner = self.motion(size, like, cells)
        return _Crossing(
            inner.size, inner.blocks, inner.taps, inner.weights, is_identity=inner.is_identity, inner=inner,
            copies=self.copies,
        )  # fmt: skip


@contextmanager
def crossing(network: nn.Module, copies: int) -> Iterator[None]:
    """Within the block, moved channels of a folded network are also exchanged between the N copies (B * N, ...) it reads."""
    places = folded_places(network).values()
    before = [part.motion for part in places]
    try:
        for part in places:
            part.motion = _CrossingMotion(part.motion, copies)
        yield
    finally:
        for part, motion in zip(places, before, strict=True):
            part.motion = motion
