"""tiny-resnet: a small residual network with an exactly known receptive field, for studies of receptive fields.

The built-in study needs a network that cannot see both digits of a pair at once: fields of 15 px against a distance of
16 to 20 px. The second convolution of every block is 1x1, so only two 3x3 convolutions, on grids of 2 and of 4 px, extend
the 3 px of the stem: 3 + 2 * 2 + 2 * 4 = 15.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

WIDTHS, STRIDES = (24, 48), (2, 1)
STAGES = tuple(f"blocks.{index}" for index in range(len(WIDTHS)))
LAST_BLOCK = STAGES[-1]


class TinyBlock(nn.Module):
    """A residual block of a k x k convolution and a 1x1 convolution, each with BatchNorm; ReLU after the sum.

    (N, C, H, W) -> (N, C', H / stride, W / stride); the shortcut is the identity where shapes agree, otherwise a
    strided 1x1 convolution with BatchNorm.
    """

    def __init__(self, channels: int, width: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(
        self, features: Float[Tensor, "rows channels height width"]
    ) -> Float[Tensor, "rows more_channels smaller_height smaller_width"]:
        branch = functional.relu(self.bn1(self.conv1(features)), inplace=True)
        return functional.relu(self.bn2(self.conv2(branch)) + self.shortcut(features), inplace=True)


class TinyFeatures(nn.Module):
    """The body of tiny-resnet: a 3x3 stem and residual blocks of width 24 (stride 2) and 48 (stride 1).

    (N, C, H, W) -> {"out": (N, 48, H / 4, W / 4), "aux": (N, 24, H / 4, W / 4)}. Receptive field 15 px exactly; with
    `wide_field=True` (5x5 kernels in the blocks) 27 px; with `small_images=True` the stem has stride 1: 9 (15) px.
    """

    def __init__(self, *, in_channels: int = 3, wide_field: bool = False, small_images: bool = False) -> None:
        super().__init__()
        kernel = 5 if wide_field else 3
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], 3, 1 if small_images else 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        inputs = (WIDTHS[0], *WIDTHS[:-1])
        self.blocks = nn.Sequential(
            *(TinyBlock(i, o, stride, kernel) for i, o, stride in zip(inputs, WIDTHS, STRIDES, strict=True))
        )

    def forward(self, images: Float[Tensor, "rows channels height width"]) -> dict[str, Tensor]:
        features = functional.relu(self.bn1(self.conv1(images)), inplace=True)
        maps = []
        for block in self.blocks:
            features = block(features)
            maps.append(features)
        return {"out": maps[-1], "aux": maps[-2]}


class TinyResNet(TinyFeatures):
    """tiny-resnet as a classifier: the body, global average pooling and a linear layer, (N, C, H, W) -> (N, K)."""

    def __init__(
        self, num_classes: int, *, in_channels: int = 3, wide_field: bool = False, small_images: bool = False
    ) -> None:
        super().__init__(in_channels=in_channels, wide_field=wide_field, small_images=small_images)
        self.fc = nn.Linear(WIDTHS[-1], num_classes)

    def forward(  # type: ignore[override]
        self, images: Float[Tensor, "rows channels height width"]
    ) -> Float[Tensor, "rows classes"]:
        logits: Tensor = self.fc(super().forward(images)["out"].mean((2, 3)))
        return logits
