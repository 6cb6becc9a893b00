"""The 2D classifiers that can become video networks: tiny-resnet and torchvision's residual families."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn
from torchvision.models import get_model

from fieldshift.errors import UserError, unknown_name
from fieldshift.networks.names import known_classifiers
from fieldshift.networks.tiny_resnet import LAST_BLOCK, STAGES, TinyResNet

DILATION, TINY_DILATION = 2, 4  # dilation factors of a dilated last stage


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A 2D network with the names of the modules that other code needs to find in it."""

    network: nn.Module
    """(N, C, H, W) -> (N, K) logits, or (N, K, H, W) for a segmenter."""
    feature_layer: str
    """Dotted name of the module whose output is the last feature map."""
    first_conv: str
    """Dotted name of the convolution that sees the image."""
    stages: tuple[str, ...]
    """Dotted names of the parts whose activations may be recomputed instead of stored."""


def classifier(
    name: str, *, num_classes: int, in_channels: int = 3, wide_field: bool = False, small_images: bool = False
) -> Backbone:
    """Builds a 2D classifier with random weights.

    `wide_field` gives tiny-resnet larger kernels, and so a larger field; torchvision's ResNets get dilation instead of
    the last two strides, which keeps the theoretical field and makes the last map finer; UserError for other networks.
    `small_images` (32 x 32) replaces the stem by a 3x3 convolution of stride 1 and omits the max-pooling. Raises
    UserError for an unknown name.
    """
    if name not in known_classifiers():
        raise unknown_name("network", name, known_classifiers())
    if name == "tiny-resnet":
        tiny = TinyResNet(num_classes, in_channels=in_channels, wide_field=wide_field, small_images=small_images)
        return Backbone(network=tiny, feature_layer=LAST_BLOCK, first_conv="conv1", stages=STAGES)
    options: dict[str, object] = {}
    if wide_field:
        if not has_wide_field(name):
            raise UserError(
                f"wide_field=True cannot enlarge the field of '{name}': only tiny-resnet (larger kernels) and "
                "torchvision's ResNets (dilation) support it."
            )
        if dilates(name):
            options["replace_stride_with_dilation"] = [False, True, True]
    network: nn.Module = get_model(name, weights=None, num_classes=num_classes, **options)
    if wide_field and not dilates(name):
        dilate_basic_blocks(network)
    backbone = described(network)
    if small_images:
        shrink_stem(backbone)
    if in_channels != 3:
        replace_input(backbone, in_channels)
    return backbone


def dilates(name: str) -> bool:
    """Whether torchvision can replace the strides of this network by dilation: ResNets of bottleneck blocks."""
    return re.fullmatch(r"(wide_)?resne[x]?t\d+.*", name) is not None and name not in {"resnet18", "resnet34"}


def has_wide_field(name: str) -> bool:
    """Whether the network has a variant with a larger receptive field."""
    return name == "tiny-resnet" or re.fullmatch(r"(wide_)?resne[x]?t\d+.*", name) is not None


def dilate_basic_blocks(network: nn.Module) -> None:
    """Replaces the strides of layer3 and layer4 by dilation, which torchvision supports for bottleneck blocks only."""
    for stage, dilation in (("layer3", 2), ("layer4", 4)):
        for place, block in enumerate(network.get_submodule(stage).children()):
            for name in ("conv1", "conv2"):
                convolution = block.get_submodule(name)
                assert isinstance(convolution, nn.Conv2d)
                reach = dilation // 2 if place == 0 and name == "conv1" else dilation
                convolution.stride, convolution.dilation, convolution.padding = (1, 1), (reach, reach), (reach, reach)
            if isinstance(block.downsample, nn.Sequential):
                block.downsample[0].stride = (1, 1)  # type: ignore[assignment]


def dilate_last_stage(backbone: Backbone, body: str) -> None:
    """Multiplies the dilation of the last stage's kernels; strides, and therefore operations, stay the same.

    The last stage is the last one with kernels larger than 1x1; its dilation grows by `DILATION`, by 4 in tiny-resnet,
    whose last stage is a single convolution.
    """
    rate = TINY_DILATION if body == "tiny-resnet" else DILATION
    for stage in reversed(backbone.stages):
        layers = [layer for layer in backbone.network.get_submodule(stage).modules() if isinstance(layer, nn.Conv2d)]
        larger = [layer for layer in layers if max(layer.kernel_size) > 1]
        for layer in larger:
            assert not isinstance(layer.padding, str)
            layer.dilation = tuple(rate * each for each in layer.dilation)
            reach = zip(layer.padding, layer.kernel_size, layer.dilation, strict=True)
            layer.padding = tuple(
                padding + (kernel - 1) * (dilation - dilation // rate) // 2 for padding, kernel, dilation in reach
            )
        if larger:
            return


def described(network: nn.Module) -> Backbone:
    """Finds the stem, the last feature map and the stages of a torchvision classifier by its layout."""
    if hasattr(network, "layer4"):
        stages: tuple[str, ...] = ("layer1", "layer2", "layer3", "layer4")
        return Backbone(network=network, feature_layer="layer4", first_conv="conv1", stages=stages)
    if hasattr(network, "trunk_output"):
        trunk = network.trunk_output
        assert isinstance(trunk, nn.Module)
        stages = tuple(f"trunk_output.{name}" for name, _ in trunk.named_children())
        return Backbone(network=network, feature_layer=stages[-1], first_conv="stem.0", stages=stages)
    features = network.features
    assert isinstance(features, nn.Sequential)
    stages = tuple(f"features.{name}" for name, _ in features.named_children())
    return Backbone(network=network, feature_layer=stages[-1], first_conv="features.0.0", stages=stages)


def shrink_stem(backbone: Backbone) -> None:
    """Adapts the stem to small images: a 3x3 convolution of stride 1 with new weights, no max-pooling."""
    network, path = backbone.network, backbone.first_conv
    first = network.get_submodule(path)
    assert isinstance(first, nn.Conv2d)
    smaller = nn.Conv2d(first.in_channels, first.out_channels, 3, 1, 1, bias=first.bias is not None)
    nn.init.kaiming_normal_(smaller.weight, mode="fan_out", nonlinearity="relu")
    replace_module(network, path, smaller)
    body = network.get_submodule(path.rpartition(".")[0])
    if isinstance(getattr(body, "maxpool", None), nn.MaxPool2d):
        replace_module(body, "maxpool", nn.Identity())


def replace_input(backbone: Backbone, in_channels: int) -> None:
    """Gives the first convolution another number of input channels, with new weights."""
    first = backbone.network.get_submodule(backbone.first_conv)
    assert isinstance(first, nn.Conv2d)
    other = nn.Conv2d(
        in_channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    nn.init.kaiming_normal_(other.weight, mode="fan_out", nonlinearity="relu")
    replace_module(backbone.network, backbone.first_conv, other)


def replace_module(network: nn.Module, path: str, module: nn.Module) -> None:
    """Replaces the module with this dotted name."""
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)
