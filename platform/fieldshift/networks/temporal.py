"""The registry of temporal modules: their constructors, places, and the frames that each connects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldshift.errors import UserError, unknown_name
from fieldshift.networks.folded import FoldedGSF, FoldedGSM, FoldedTSM, Motion
from fieldshift.networks.frames import check_frames, split_frames
from fieldshift.networks.gate import GSF, GSM
from fieldshift.networks.names import NOT_FOLDED, check_temporal_folds
from fieldshift.networks.shift import TSM, MovedChannels, shift_frames

Place = Literal["nowhere", "before-first-conv", "before-block", "after-last-conv"]


class TemporalConv(nn.Module):
    """A 3x1x1 convolution over time that is initialised as the identity: a baseline for the shift modules.

    (B * T, C, H, W) -> the same shape, zeros beyond the ends; 3 C * C parameters, no bias, computed as a 1x1
    convolution over each frame concatenated with its two neighbours. Initialising as the identity preserves a pretrained
    2D function [D]. A video of one frame passes unchanged [D].
    """

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        check_frames(frames)
        self.channels, self.frames = channels, frames
        self.moved = MovedChannels(channels, channels, "convolved")
        self.taps = nn.Conv2d(3 * channels, channels, 1, bias=False)  # inputs: (next, previous, own frame)
        with torch.no_grad():
            self.taps.weight.zero_()
            self.taps.weight[:, 2 * channels :, 0, 0] = torch.eye(channels)

    def forward(
        self, features: Float[Tensor, "batch_frames channels height width"]
    ) -> Float[Tensor, "batch_frames channels height width"]:
        if self.frames == 1:
            return features
        video = split_frames(features, self.frames, "TemporalConv")  # (B, T, C, H, W)
        following, previous = shift_frames(video, self.channels, 0), shift_frames(video, 0, self.channels)
        mixed: Tensor = self.taps(torch.cat([following, previous, video], dim=2).flatten(0, 1))
        return mixed

    def extra_repr(self) -> str:
        return f"channels={self.channels}, frames={self.frames}"


@dataclass(frozen=True, kw_only=True)
class TemporalKind:
    """One entry of the registry: a name, a constructor (channels, frames, ratio=...) and a place."""

    name: str
    """The name on the command line."""
    module: Callable[..., nn.Module]
    """Called with (channels, frames=T) and, where given, ratio= and interleave=."""
    place: Place
    """Its place in a residual block."""
    takes_ratio: bool = True
    """Whether `ratio` applies."""
    takes_interleave: bool = False
    """Whether `interleave` applies."""
    thins_deep_stages: bool = False
    """Whether only every second block of a stage with 23 or more blocks gets a module.

    The authors' code of TSM thins all stages as soon as the third has that many, and never for `tsm-inplace` [D].
    """
    ahead: bool = True
    """Whether a frame sees later frames."""
    depends_on: int = 1
    """Number of frames to a side that one module's output depends on; a gate reads further than the features travel."""
    folded: Callable[..., nn.Module] | None = None
    """The folded form, called with (channels, motion=...) and the same options; None where there is none."""
    not_folded: str = ""
    """The reason why there is none, as the end of a sentence."""

    def build(
        self,
        channels: int,
        *,
        frames: int,
        ratio: float | None = None,
        interleave: bool | None = None,
        motion: Motion | None = None,
    ) -> nn.Module:
        """Builds the module, in folded form if a motion is given.

        Raises UserError where `ratio` or `interleave` is given but does not apply, and where there is no folded form.
        """
        options: dict[str, float | bool] = {}
        if ratio is not None:
            if not self.takes_ratio:
                raise UserError(
                    f"The temporal module '{self.name}' has no ratio, but ratio = {ratio} was given; omit it."
                )
            options["ratio"] = ratio
        if interleave is not None:
            if not self.takes_interleave:
                raise UserError(f"The temporal module '{self.name}' does not interleave channels; omit interleave.")
            options["interleave"] = interleave
        if motion is None:
            return self.module(channels, frames=frames, **options)
        return self.folding()(channels, motion=motion, **options)

    def folding(self) -> Callable[..., nn.Module]:
        """The constructor of the folded form; raises UserError, with the reason, where there is none."""
        check_temporal_folds(self.name)
        assert self.folded is not None
        return self.folded


def _nothing(channels: int, frames: int) -> nn.Module:  # noqa: ARG001 - the registry's signature
    return nn.Identity()


TEMPORAL: dict[str, TemporalKind] = {
    kind.name: kind
    for kind in (
        TemporalKind(
            name="none",
            module=_nothing,
            place="nowhere",
            takes_ratio=False,
            ahead=False,
            depends_on=0,
            not_folded=NOT_FOLDED["none"],
        ),
        TemporalKind(name="tsm", module=TSM, folded=FoldedTSM, place="before-first-conv", thins_deep_stages=True),
        TemporalKind(name="tsm-inplace", module=TSM, folded=FoldedTSM, place="before-block", thins_deep_stages=True),
        TemporalKind(
            name="tsm-causal",
            module=partial(TSM, direction="past"),
            place="before-first-conv",
            thins_deep_stages=True,
            ahead=False,
            not_folded=NOT_FOLDED["tsm-causal"],
        ),
        TemporalKind(
            name="gsm", module=GSM, folded=FoldedGSM, place="after-last-conv", takes_interleave=True, depends_on=2
        ),
        TemporalKind(
            name="gsf", module=GSF, folded=FoldedGSF, place="after-last-conv", takes_interleave=True, depends_on=3
        ),
        TemporalKind(
            name="conv3d",
            module=TemporalConv,
            place="before-first-conv",
            takes_ratio=False,
            not_folded=NOT_FOLDED["conv3d"],
        ),
    )
}


def temporal_kind(name: str) -> TemporalKind:
    """Looks up a temporal module by name; raises UserError with the known names."""
    if name not in TEMPORAL:
        raise unknown_name("temporal module", name, TEMPORAL)
    return TEMPORAL[name]
