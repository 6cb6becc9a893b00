"""ResNets of a quarter of the usual width, with torchvision's blocks, for 32 x 32 images: 18, 34 and 50 layers deep.

A study names one as `narrow:resnet18`. They are small enough for the comparison of depths on two cores.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

WIDTH = 16
LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class NarrowResNet(nn.Module):
    """A ResNet for small images: (N, C, H, W) -> (N, num_classes); a 3x3 stem, no pooling before the stages."""

    def __init__(self, depth: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        block = Bottleneck if depth >= 50 else BasicBlock
        self.conv1 = nn.Conv2d(in_channels, WIDTH, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.relu = nn.ReLU(inplace=True)
        width = WIDTH
        for stage, count in enumerate(LAYERS[depth]):
            planes, blocks = WIDTH * 2**stage, []
            for index in range(count):
                stride = 2 if index == 0 and stage > 0 else 1
                out = planes * block.expansion
                joined = None
                if stride != 1 or width != out:
                    joined = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))
                blocks.append(block(width, planes, stride, joined))
                width = out
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu(self.bn1(self.conv1(images)))
        for stage in range(1, 5):
            features = getattr(self, f"layer{stage}")(features)
        logits: Tensor = self.fc(self.avgpool(features).flatten(1))
        return logits


def resnet18(num_classes: int, in_channels: int) -> NarrowResNet:
    return NarrowResNet(18, num_classes, in_channels)


def resnet34(num_classes: int, in_channels: int) -> NarrowResNet:
    return NarrowResNet(34, num_classes, in_channels)


def resnet50(num_classes: int, in_channels: int) -> NarrowResNet:
    return NarrowResNet(50, num_classes, in_channels)
