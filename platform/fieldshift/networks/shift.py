"""The temporal shift module (TSM): exchanges channels with the neighbouring frames, without parameters or FLOPs.

B batch, T frames, C channels, H, W. Rows are batch-major: row b * T + t is frame t of sample b.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.networks.frames import check_frames, split_frames

Direction = Literal["both", "past"]


@dataclass(frozen=True)
class MovedChannels:
    """The number of channels that a module moves, and the number requested by its ratio."""

    width: int
    """Number of moved channels: the largest number not above `asked` that the module supports."""
    asked: float
    """ratio * channels, rarely a supported number."""
    how: str
    """How they are moved, in words: "shifted each way"."""

    def __str__(self) -> str:
        exact = abs(self.width - self.asked) < 1e-6
        return f"{self.width} {self.how}" + ("" if exact else f" (the ratio asks for {self.asked:g}, lowered to fit)")


def fitting_width(channels: int, ratio: float, multiple: int, module: str) -> int:
    """The nearest width not above `ratio * channels` that is a multiple of `multiple`.

    Raises UserError when the ratio is outside (0, 1] or when no channel would be left to move.
    """
    check_ratio(ratio, 1.0)
    width = int(ratio * channels + 1e-9) // multiple * multiple
    if width == 0:
        least = "" if multiple == 1 else f": it needs at least {multiple}"
        raise UserError(
            f"{module} with ratio {ratio:g} over {channels} channels moves no channel{least}; "
            f"use a ratio of {min(1.0, multiple / channels):g} or more, or a wider layer."
        )
    return width


def check_ratio(ratio: float, most: float) -> None:
    """Raises UserError unless 0 < ratio <= most."""
    if not 0.0 < ratio <= most:
        raise UserError(f"The value of `ratio` is {ratio}, but must be above 0 and at most {most:g}.")


def _slabs(video: Tensor, ahead: int, behind: int, reverse: bool) -> Tensor:
    """The shift by concatenation only, so that tracing and exporting see no write to a slice."""
    if reverse:
        first, second = slice(0, ahead), slice(ahead, ahead + behind)
        from_next, from_previous = video[:, :, second], video[:, :, first]
    else:
        from_next, from_previous = video[:, :, :ahead], video[:, :, ahead : ahead + behind]
    next_frame = torch.cat([from_next[:, 1:], torch.zeros_like(from_next[:, :1])], dim=1)
    previous_frame = torch.cat([torch.zeros_like(from_previous[:, :1]), from_previous[:, :-1]], dim=1)
    pair = [previous_frame, next_frame] if reverse else [next_frame, previous_frame]
    return torch.cat([*pair, video[:, :, ahead + behind :]], dim=2)


def _written(video: Tensor, ahead: int, behind: int, reverse: bool) -> Tensor:
    """The shift in one pass: every element is read once and written once."""
    shifted = torch.empty_like(video)
    first, second = slice(0, ahead), slice(ahead, ahead + behind)
    from_next, from_previous = (second, first) if reverse else (first, second)
    shifted[:, :-1, from_next] = video[:, 1:, from_next]
    shifted[:, -1, from_next] = 0.0
    shifted[:, 1:, from_previous] = video[:, :-1, from_previous]
    shifted[:, 0, from_previous] = 0.0
    shifted[:, :, ahead + behind :] = video[:, :, ahead + behind :]
    return shifted


class _Shift(torch.autograd.Function):
    """The shift with its adjoint, the opposite shift, as its backward: avoids a zero-filled gradient per slice."""

    generate_vmap_rule = True

    @staticmethod
    def forward(video: Tensor, ahead: int, behind: int, reverse: bool) -> Tensor:
        return _written(video, ahead, behind, reverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        _, ctx.ahead, ctx.behind, ctx.reverse = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Shift.apply(gradients[0], ctx.ahead, ctx.behind, not ctx.reverse), None, None, None


def shift_frames(
    video: Float[Tensor, "batch frames channels height width"], ahead: int, behind: int
) -> Float[Tensor, "batch frames channels height width"]:
    """Moves the first `ahead` channels in from frame t + 1 and the next `behind` from frame t - 1, zeros at the ends.

    The other channels stay. Linear, with an exact adjoint, differentiable any number of times; traced and exported as
    concatenations.
    """
    tracing: bool = torch.jit.is_tracing()
    if tracing or torch.compiler.is_compiling():
        return _slabs(video, ahead, behind, reverse=False)
    shifted: Tensor = _Shift.apply(video, ahead, behind, False)
    return shifted


@dataclass
class Carried:
    """The state that a causal shift carries from one chunk of a video to the next."""

    frames: int
    """Number of frames in the current chunk."""
    last: Tensor | None
    """The moved channels of the last frame seen, (B, fold, H, W); None before the first."""


class TSM(nn.Module):
    """Shifts `ratio` of the channels in from the next frame and the same share from the previous one (Lin et al., ICCV 2019).

    (B * T, C, H, W) -> the same shape; floor(ratio * C) channels each way, zeros at the ends of the video. With
    `direction="past"` channels come only from the previous frame (online TSM), so frame t never sees a later one.
    A video of one frame has no neighbours and passes unchanged [D: a shift would clear its moved channels].
    Raises UserError where no channel would move and ValueError where B * T is not a multiple of T.
    """

    def __init__(self, channels: int, frames: int, ratio: float = 1 / 8, direction: Direction = "both") -> None:
        super().__init__()
        check_frames(frames)
        check_ratio(ratio, 0.5 if direction == "both" else 1.0)
        self.channels, self.frames, self.direction = channels, frames, direction
        self.fold = fitting_width(channels, ratio, 1, "TSM")
        how = "shifted each way" if direction == "both" else "shifted in from the past"
        self.moved = MovedChannels(self.fold, ratio * channels, how)
        self.carried: Carried | None = None

    def forward(
        self, features: Float[Tensor, "batch_frames channels height width"]
    ) -> Float[Tensor, "batch_frames channels height width"]:
        if self.carried is not None:
            return self._continued(features, self.carried)
        if self.frames == 1:
            return features
        video = split_frames(features, self.frames, "TSM")  # (B, T, C, H, W)
        ahead = self.fold if self.direction == "both" else 0
        return shift_frames(video, ahead, self.fold).flatten(0, 1)

    def _continued(self, features: Tensor, carried: Carried) -> Tensor:
        assert self.direction == "past", "only a shift from the past can carry on from chunk to chunk"
        video = split_frames(features, carried.frames, "TSM")  # (B, t, C, H, W)
        moved = video[:, :, : self.fold]
        first = torch.zeros_like(moved[:, 0]) if carried.last is None else carried.last
        carried.last = moved[:, -1].clone()
        arrived = torch.cat([first[:, None], moved[:, :-1]], dim=1)
        return torch.cat([arrived, video[:, :, self.fold :]], dim=2).flatten(0, 1)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, frames={self.frames}, fold={self.fold}, direction={self.direction}"
