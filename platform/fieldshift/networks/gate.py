"""Gate-Shift (GSM) and Gate-Shift-Fuse (GSF): a learned gate selects the features sent to the neighbouring frames.

B batch, T frames, C channels, F gated channels, H, W. Rows are batch-major: row b * T + t is frame t of sample b.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldshift.networks.frames import check_frames, split_frames
from fieldshift.networks.shift import MovedChannels, fitting_width, shift_frames

Shift = Callable[[Tensor, int, int], Tensor]
"""(video, ahead, behind) -> the video with its first `ahead` channels from the next frame, `behind` from the previous."""


class TemporalGate(nn.Module):
    """One gate plane in (-1, 1) per half of F channels: tanh(Conv3d(F -> 2, 3x3x3, groups 2)(ReLU(BN3d(x)))).

    (B, T, F, H, W) -> (B, T, 2, H, W). The 3x3x3 convolution is computed as a 2D convolution with three outputs per
    half, one per temporal tap, summed over the neighbouring frames: the same 27 F + 2 parameters and the same
    values, 4-D weights (so channels_last works), and no 5-D convolution.
    """

    def __init__(self, width: int, *, zero: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.taps = nn.Conv2d(width, 6, 3, padding=1, groups=2, bias=False)  # outputs: (half, tap), taps t-1, t, t+1
        self.bias = nn.Parameter(torch.zeros(2))
        if zero:
            nn.init.zeros_(self.taps.weight)
        else:
            bound = (13.5 * width) ** -0.5  # the initial bound of a Conv3d with width / 2 inputs and 27 taps
            nn.init.uniform_(self.taps.weight, -bound, bound)
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(
        self, video: Float[Tensor, "batch frames width height columns"], shift: Shift
    ) -> Float[Tensor, "batch frames 2 height columns"]:
        """The gate planes of a video; `shift` takes planes from the neighbouring frames, as `shift_frames` does."""
        frames = video.shape[1]
        planes = self.taps(torch.relu(self.norm(video.flatten(0, 1))))
        planes = planes.reshape(-1, frames, 2, 3, *planes.shape[2:])  # (B, T, 2, 3, H, W)
        before, own, after = planes.unbind(3)
        following, previous = shift(torch.cat([after, before], dim=2), 2, 2).chunk(2, dim=2)
        return torch.tanh(own + (previous + following) + self.bias[:, None, None])


def interleave(features: Float[Tensor, "rows width height columns"]) -> Tensor:
    """Interleaves the channels within each half: every half is read as (2, F / 4) and transposed."""
    rows, width, height, columns = features.shape
    if is_channels_last(features):
        pixels = features.permute(0, 2, 3, 1).reshape(rows, height, columns, 2, 2, width // 4)
        return pixels.transpose(4, 5).flatten(3, 5).permute(0, 3, 1, 2)
    return features.reshape(rows, 2, 2, width // 4, height, columns).transpose(2, 3).flatten(1, 3)


def is_channels_last(features: Float[Tensor, "rows channels height columns"]) -> bool:
    """Whether the channels of a pixel lie next to each other in memory, also in a part of a map's channels."""
    return features.shape[1] > 1 and features.stride(1) == 1 and features.shape[2] * features.shape[3] > 1


class GSM(nn.Module):
    """Gates, shifts and adds back part of the channels (Sudhakaran et al., CVPR 2020).

    (B * T, C, H, W) -> the same shape. F = `ratio` * C channels, lowered to a multiple of 4: y = gate * x,
    r = x - y; the first half's y comes from t + 1, the second's from t - 1, zeros at the ends; out = shifted y + r,
    channels interleaved within each half where `interleave`; the other channels pass unchanged. `zero_gate` initialises the
    gate at 0: the module then starts as the identity up to the interleave, exactly so without it. 29 F + 2 parameters. A
    video of one frame passes unchanged, not interleaved either [D]; no parameter then has a gradient, and networks build none.
    """

    ELEMENTWISE = 5  # operations per gated number: 2 of the normalisation, product, difference, sum

    def __init__(
        self, channels: int, frames: int, ratio: float = 0.25, interleave: bool = True, zero_gate: bool = True
    ) -> None:
        super().__init__()
        check_frames(frames)
        self.channels, self.frames, self.interleave = channels, frames, interleave
        self.width = fitting_width(channels, ratio, 4, type(self).__name__)
        self.moved = MovedChannels(self.width, ratio * channels, "gated")
        self.gate = TemporalGate(self.width, zero=zero_gate)

    def forward(
        self, features: Float[Tensor, "batch_frames channels height width"]
    ) -> Float[Tensor, "batch_frames channels height width"]:
        return features if self.frames == 1 else self.mixed(features)

    def mixed(self, features: Float[Tensor, "batch_frames channels height width"]) -> Tensor:
        """The features after gate, shift and sum, whatever the number of frames."""
        gated, passing = features.split([self.width, self.channels - self.width], dim=1)
        if is_channels_last(features):  # a part of a map is in no order that batch normalisation knows
            gated = gated.contiguous(memory_format=torch.channels_last)
        video = split_frames(gated, self.frames, type(self).__name__)  # (B, T, F, H, W)
        halves = video.unflatten(2, (2, self.width // 2))
        leaving = (halves * self.gate(video, self.shift)[:, :, :, None]).flatten(2, 3)  # (B, T, F, H, W)
        mixed = self.mix(video, leaving).flatten(0, 1)
        if self.interleave:
            mixed = interleave(mixed)
        return torch.cat([mixed, passing], dim=1)  # of four dimensions: of five, it would lose a channels-last order

    def arrived(self, leaving: Tensor) -> Tensor:
        """The gated features at the neighbours: the first half from t + 1, the second from t - 1."""
        return self.shift(leaving, self.width // 2, self.width // 2)

    def shift(self, video: Tensor, ahead: int, behind: int) -> Tensor:
        """The video with its first `ahead` channels from the next frame and `behind` from the previous one."""
        return shift_frames(video, ahead, behind)

    def mix(self, gated: Tensor, leaving: Tensor) -> Tensor:
        """Adds the features from the neighbours to the remaining ones, (B, T, F, H, W)."""
        return self.arrived(leaving) + (gated - leaving)

    def motion_flops(self, features: Tensor) -> int:
        """Floating-point operations per image of gating, without the convolutions, on a map like this one."""
        return 0 if self.frames == 1 else self.frames * self.gating_flops(features)

    def gating_flops(self, features: Tensor) -> int:
        """Multiplications and additions of one frame: the gate's normalisation and sums, the product, the difference, `mix`."""
        return int(features.shape[-2] * features.shape[-1]) * (self.ELEMENTWISE * self.width + 6)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, frames={self.frames}, width={self.width}, interleave={self.interleave}"


class GSF(GSM):
    """Gates, shifts and fuses by learned weights (Sudhakaran et al., TPAMI 2023): GSM with a weighted sum.

    w = sigmoid(Conv2d(2 -> 1, 3x3) over the (channel x time) map of the spatial means of [shifted y, r]), separate for
    each half; out = w * shifted y + (1 - w) * r. Shapes as in GSM; 29 F + 40 parameters. The gate has torch's default
    initialisation; `zero_gate=True` initialises it at 0.
    """

    ELEMENTWISE = 9  # 3 of a weighted sum instead of 1, and 2 of the spatial means

    def __init__(
        self, channels: int, frames: int, ratio: float = 0.25, interleave: bool = True, zero_gate: bool = False
    ) -> None:
        super().__init__(channels, frames, ratio, interleave, zero_gate)
        self.weigh = nn.Conv2d(4, 2, 3, padding=1, groups=2)  # inputs: (half, [shifted y, r]), outputs: half

    def mix(self, gated: Tensor, leaving: Tensor) -> Tensor:
        """The weighted sum of the shifted and the remaining features, (B, T, F, H, W)."""
        left, all_of_it = leaving.mean((3, 4), keepdim=True), gated.mean((3, 4), keepdim=True)  # (B, T, F, 1, 1)
        means = self.means_in_time(left, all_of_it - left)
        batch, _, frames, width = means.shape[:4]
        maps = means.reshape(batch, 2, frames, 2, width // 2).permute(0, 3, 1, 4, 2)  # (B, half, kind, F / 2, T)
        weight = torch.sigmoid(self.weigh(maps.flatten(1, 2))).flatten(1, 2).transpose(1, 2)  # (B, T, F)
        weight = self.own_frames(weight)
        remained = gated - leaving
        # Under autocast the weights are the output of a convolution in half precision, and lerp needs one dtype.
        return torch.lerp(remained, self.arrived(leaving), weight[..., None, None].to(remained.dtype))

    def means_in_time(self, left: Tensor, remained: Tensor) -> Float[Tensor, "batch 2 frames width 1 1"]:
        """The spatial means of [shifted y, r] for every frame; the mean of a shift is the shifted mean."""
        return torch.stack([self.arrived(left), remained], dim=1)

    def own_frames(self, weight: Float[Tensor, "batch some_frames width"]) -> Float[Tensor, "batch frames width"]:
        """The weights of the existing frames."""
        return weight
