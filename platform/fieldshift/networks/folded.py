"""Temporal shift inside ONE frame: channels that would come from a neighbouring frame are moved like that frame.

Every frame of a policy's video shows the same image moved, so the features of frame t + 1 are those of frame t moved by
the step M between the two, and y = [M x[:f], M^-1 x[f:2f], x[2f:]] is the shift without the other frames. Exact, away from
the border, for translations by whole cells, frames that move to either side, and T // 2 at least the number of modules (twice
that for GSM). In a symmetric video it is exact for one module only: the neighbours of frame t + 1 are moved by M^2 and by
nothing there, but by M and M here. For part cells, rotations and zooms a convolution does not commute with the motion, and
the folded network computes a different function [D].

Related work: Shift (Wu et al., CVPR 2018: one cell, fixed), Active Shift (Jeon and Kim, NeurIPS 2018: a learned displacement
per channel), Sparse Shift (Chen et al., CVPR 2019), 4-Connected Shift ResNets (Brown et al., ICCVW 2019), AS-MLP (Lian et
al., ICLR 2022), Dilated Convolution with Learnable Spacings (Khalfaoui-Hassani et al., ICLR 2023) and TSM (Lin et al.,
ICCV 2019). New here: affine motions over large distances, found by DAS.

Shape letters: B batch, C channels, F moved channels, G groups of channels with separate motions, H, W of the map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.networks.cells import Cells, InImage
from fieldshift.networks.compiled import is_compiling, move
from fieldshift.networks.gate import GSF, GSM
from fieldshift.networks.movement import Movement
from fieldshift.networks.shift import MovedChannels, check_ratio, fitting_width


@runtime_checkable
class Motion(Protocol):
    """The source of the moved channels of one place: a movement for maps of one size (H, W).

    `cells` are given where the image's side is no whole number of cells; without them it is the map's size.
    The movement's 2 G blocks are the G groups from the next frame, then the G groups from the previous one.
    """

    def __call__(self, size: tuple[int, int], like: Tensor, cells: Cells | None = None) -> Movement: ...

    @property
    def groups(self) -> int:
        """Number of groups of channels in each direction, each with a separate motion."""
        ...


class FoldedTSM(InImage):
    """TSM in one frame: `ratio` of the channels as the next frame would show them, and the same share for the previous one.

    (B, C, H, W) -> the same shape; floor(ratio * C) channels each way, in G equal groups. No parameters. Raises UserError
    where no channel would move or the groups do not divide the channels each way.
    """

    def __init__(self, channels: int, motion: Motion, ratio: float = 1 / 8) -> None:
        super().__init__()
        check_ratio(ratio, 0.5)
        self.channels = channels
        self.fold = fitting_width(channels, ratio, 1, "TSM")
        self.moved = MovedChannels(self.fold, ratio * channels, "moved each way")
        self.take(motion)

    def take(self, motion: Motion) -> None:
        """Replaces the motion; raises UserError where its groups do not divide the channels in each direction."""
        if self.fold % motion.groups:
            multiple = max(1, self.fold // motion.groups) * motion.groups
            ratio = math.ceil(1e4 * multiple / self.channels) / 1e4
            raise UserError(
                f"groups = {motion.groups} does not divide the {self.fold} of {self.channels} channels that move each way; "
                f"choose another number of groups, or a ratio of {ratio:g} (architecture.ratio)."
            )
        self.motion = motion

    def forward(self, features: Float[Tensor, "batch channels H W"]) -> Float[Tensor, "batch channels H W"]:
        return moved(self, features, 2 * self.fold)

    def motion_flops(self, features: Tensor) -> int:
        """Floating-point operations per image of moving the channels, on a map like this one."""
        return movement_for(self, features).flops(2 * self.fold)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, fold={self.fold}, groups={self.motion.groups}, motion='{self.motion}'"


class _OneMotion(InImage, GSM):
    """Common base of the folded gates: one motion instead of the shift between frames."""

    motion: Motion

    def take(self, motion: Motion) -> None:
        """Replaces the motion; raises UserError for one of several groups."""
        if motion.groups != 1:
            raise UserError(
                f"groups = {motion.groups} is for tsm: the gates of gsm and gsf use a neighbouring frame as a whole; "
                "use a policy or space with groups = 1."
            )
        self.motion = motion

    def forward(self, features: Float[Tensor, "batch channels H W"]) -> Float[Tensor, "batch channels H W"]:
        """Mixes the one frame with itself, moved."""
        return self.mixed(features)

    def shift(self, video: Float[Tensor, "batch 1 channels H W"], ahead: int, behind: int) -> Tensor:
        """The first `ahead` channels as the next frame would show them, and as many for the previous one."""
        assert ahead == behind, "the halves of a movement have equal width"
        features = video[:, 0]
        return moved(self, features, ahead + behind)[:, None]

    def motion_flops(self, features: Tensor) -> int:
        """Floating-point operations per image of gating and of moving gated channels and gate planes, on such a map."""
        return movement_for(self, features).flops(self.width + 4) + self.gating_flops(features)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, motion='{self.motion}'"


class FoldedGSM(_OneMotion):
    """GSM in one frame: gated features return as the neighbouring frames would show them.

    (B, C, H, W) -> the same shape; 29 F + 2 parameters, the same as GSM's. The gate's own temporal convolution reads the
    neighbouring frames too: its planes are moved in the same way, which is exact for whole cells (a convolution commutes
    with them). Where nothing moves, the gated and remaining parts add up to the input, which is returned, up to the
    interleave. Raises UserError for a motion of several groups: a gate uses a neighbouring frame as a whole.
    """

    def __init__(
        self, channels: int, motion: Motion, ratio: float = 0.25, interleave: bool = True, zero_gate: bool = True
    ) -> None:
        super().__init__(channels, 1, ratio, interleave, zero_gate)
        self.take(motion)

    def mix(self, gated: Tensor, leaving: Tensor) -> Tensor:
        """Adds the shifted and the remaining features, (B, 1, F, H, W)."""
        if not is_compiling() and movement_for(self, gated).is_identity:
            return gated + 0 * leaving.sum()  # keeps the gate in the graph, as gradients across workers require
        return super().mix(gated, leaving)


class FoldedGSF(_OneMotion, GSF):
    """GSF in one frame: FoldedGSM with a weighted sum; 29 F + 40 parameters, the same as GSF's.

    The weights read the spatial means of three frames. A motion preserves a mean except for content that leaves the map, so
    all frames use the mean of the single frame [D]: this part of the gate folds only approximately.
    """

    def __init__(
        self, channels: int, motion: Motion, ratio: float = 0.25, interleave: bool = True, zero_gate: bool = False
    ) -> None:
        super().__init__(channels, 1, ratio, interleave, zero_gate)
        self.take(motion)

    def means_in_time(self, left: Tensor, remained: Tensor) -> Float[Tensor, "batch 2 3 width 1 1"]:
        """The spatial means of the frames before, at and after the single frame, all equal."""
        return torch.stack([left, remained], dim=1).expand(-1, -1, 3, -1, -1, -1)

    def own_frames(self, weight: Float[Tensor, "batch 3 width"]) -> Float[Tensor, "batch 1 width"]:
        """The middle frame's weights."""
        return weight[:, 1:2]


FoldedModule = FoldedTSM | FoldedGSM | FoldedGSF


@contextmanager
def motions_counted(network: nn.Module) -> Iterator[Callable[[], int]]:
    """Counts the floating-point operations per image of motions and gates while a network runs, for FLOP counts.

    Convolutions and matrix products, which torch counts, are excluded; a shift between frames only moves numbers.
    """
    counts: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        counts.append(module.motion_flops(inputs[0]))  # type: ignore[operator]

    hooks = [
        module.register_forward_pre_hook(count) for module in network.modules() if isinstance(module, FoldedTSM | GSM)
    ]
    try:
        yield lambda: sum(counts)
    finally:
        for hook in hooks:
            hook.remove()


def moved(module: FoldedTSM | _OneMotion, features: Tensor, width: int) -> Tensor:
    """The map with its first `width` channels moved by the motion of a folded module."""
    name: str = getattr(module.motion, "name", "")  # one that changes, as in a search, has none
    if name and is_compiling():
        image = () if module.read is None or module.stride is None else module.read.size or ()
        compiled: Tensor = move(features, name, width, image, module.stride or 0)
        return compiled
    return movement_for(module, features).move(features, width)


def movement_for(module: FoldedTSM | _OneMotion, features: Tensor) -> Movement:
    """The movement of maps like this one by the motion of a folded module."""
    size = int(features.shape[-2]), int(features.shape[-1])
    return module.motion(size, features, module.cells_of(size))
