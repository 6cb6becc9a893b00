"""The 2D segmenters that can become video networks: a body, a head and an auxiliary head."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import get_model
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from fieldshift.errors import UserError, unknown_name
from fieldshift.networks.classifiers import Backbone, classifier, dilates, replace_input, shrink_stem
from fieldshift.networks.names import MOBILE_SEGMENTERS, backbone_of, known_segmenters
from fieldshift.networks.tiny_resnet import LAST_BLOCK, STAGES, WIDTHS, TinyFeatures


class PyramidPoolingHead(nn.Sequential):
    """The head of PSPNet (Zhao et al., CVPR 2017): the map concatenated with its means over grids of side 1, 2, 3 and 6.

    (N, C, h, w) -> (N, K, h, w). Every mean goes through a 1x1 convolution to C / 4 channels and is upsampled.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        inner = channels // 4
        super().__init__(
            PyramidPooling(channels, inner, (1, 2, 3, 6)),
            nn.Conv2d(channels + 4 * inner, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(inner, num_classes, 1),
        )


class PyramidPooling(nn.Module):
    """A map concatenated with its means over grids of several sizes: (N, C, h, w) -> (N, C + len(cells) * inner, h, w)."""

    def __init__(self, channels: int, inner: int, cells: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(side), nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU()
            )
            for side in cells
        )

    def forward(self, features: Float[Tensor, "rows channels h w"]) -> Float[Tensor, "rows more_channels h w"]:
        size = features.shape[-2:]
        means = [functional.interpolate(level(features), size, mode="bilinear") for level in self.levels]
        return torch.cat([features, *means], dim=1)


class Segmenter(nn.Module):
    """A backbone with a dense head: (N, C, H, W) -> logits (N, K, H, W), upsampled bilinearly to the image.

    The backbone returns a dict of maps: "out" for the head, "aux" for the auxiliary head. A head with
    `reads_all_maps` (LRASPP) gets the whole dict. Parameter names are torchvision's.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classifier: nn.Module,
        aux_classifier: nn.Module | None = None,
        *,
        reads_all_maps: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.classifier, self.aux_classifier = backbone, classifier, aux_classifier
        self.reads_all_maps = reads_all_maps

    def forward(self, images: Float[Tensor, "rows channels h w"]) -> Float[Tensor, "rows classes h w"]:
        return self._upsampled(self.classifier, self.backbone(images), images)

    def forward_with_auxiliary(
        self, images: Float[Tensor, "rows channels h w"]
    ) -> tuple[Float[Tensor, "rows classes h w"], Float[Tensor, "rows classes h w"] | None]:
        """The logits and the logits of the auxiliary head, if any: both (N, K, H, W)."""
        maps = self.backbone(images)
        logits = self._upsampled(self.classifier, maps, images)
        if self.aux_classifier is None:
            return logits, None
        return logits, self._upsampled(self.aux_classifier, {"out": maps["aux"]}, images)

    def _upsampled(self, head: nn.Module, maps: dict[str, Tensor], images: Tensor) -> Tensor:
        logits = head(maps if self.reads_all_maps else maps["out"])
        return functional.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "fcn": FCNHead,
    "deeplabv3": DeepLabHead,
    "pspnet": PyramidPoolingHead,
}
_AUXILIARY_FREE = ("lraspp_mobilenet_v3_large",)


def segmenter(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    wide_field: bool = False,
    small_images: bool = False,
    auxiliary: bool = False,
) -> Backbone:
    """Builds a 2D segmenter with random weights.

    ResNets of bottleneck blocks are dilated to a stride of 8, ResNet-18 and -34 keep their stride of 32. `wide_field`
    is for tiny-resnet-fcn only (larger kernels), since the others are dilated already; `auxiliary` adds a head for the
    auxiliary loss on the map before the last. Raises UserError for an unknown name and for options that do not apply.
    """
    if name not in known_segmenters():
        raise unknown_name("segmentation network", name, known_segmenters())
    if name == "tiny-resnet-fcn":
        tiny = TinyFeatures(in_channels=in_channels, wide_field=wide_field, small_images=small_images)
        extra = nn.Conv2d(WIDTHS[-2], num_classes, 1) if auxiliary else None
        whole = Segmenter(tiny, nn.Conv2d(WIDTHS[-1], num_classes, 1), extra)
        return Backbone(
            network=whole,
            feature_layer=f"backbone.{LAST_BLOCK}",
            first_conv="backbone.conv1",
            stages=tuple(f"backbone.{stage}" for stage in STAGES),
        )
    if wide_field:
        raise UserError(f"wide_field=True does not apply to '{name}', whose body is dilated already; omit it.")
    if auxiliary and name in _AUXILIARY_FREE:
        raise UserError(f"'{name}' has no auxiliary head; leave auxiliary out or use deeplabv3_mobilenet_v3_large.")
    built = (_mobile if name in MOBILE_SEGMENTERS else _residual)(name, num_classes, auxiliary)
    if small_images:
        shrink_stem(built)
    if in_channels != 3:
        replace_input(built, in_channels)
    return built


def _mobile(name: str, num_classes: int, auxiliary: bool) -> Backbone:
    options = {"aux_loss": auxiliary} if name not in _AUXILIARY_FREE else {}
    model = get_model(name, weights=None, weights_backbone=None, num_classes=num_classes, **options)
    body, head = model.get_submodule("backbone"), model.get_submodule("classifier")
    extra = model.get_submodule("aux_classifier") if auxiliary else None
    whole = Segmenter(body, head, extra, reads_all_maps=name in _AUXILIARY_FREE)
    children = [child for child, _ in body.named_children()]
    return Backbone(
        network=whole,
        feature_layer=f"backbone.{children[-1]}",
        first_conv="backbone.0.0",
        stages=tuple(f"backbone.{child}" for child in children),
    )


def _residual(name: str, num_classes: int, auxiliary: bool) -> Backbone:
    head, body = name.partition("_")[0], backbone_of(name)
    plain = classifier(body, num_classes=1, wide_field=dilates(body)).network
    maps = {"layer4": "out", "layer3": "aux"} if auxiliary else {"layer4": "out"}
    outer = plain.fc
    assert isinstance(outer, nn.Linear)
    channels = outer.in_features
    whole = Segmenter(
        IntermediateLayerGetter(plain, maps),
        HEADS[head](channels, num_classes),
        FCNHead(channels // 2, num_classes) if auxiliary else None,
    )
    stages = tuple(f"backbone.layer{i}" for i in range(1, 5))
    return Backbone(network=whole, feature_layer="backbone.layer4", first_conv="backbone.conv1", stages=stages)
