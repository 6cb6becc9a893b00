"""The theory of every torchvision family of convolutional networks against brute force, and of published layouts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import segmentation

from fieldshift.receptive_field import feature_extractor, probe, theory

# Name -> the other side of the strip that it is probed on, in pixels: what its layers without padding need.
CLASSIFIERS = {
    "alexnet": 80,
    "vgg11": 33,
    "resnet18": 33,
    "squeezenet1_1": 33,
    "mobilenet_v2": 33,
    "mobilenet_v3_small": 33,
    "shufflenet_v2_x0_5": 33,
    "efficientnet_b0": 33,
    "mnasnet0_5": 33,
    "regnet_y_400mf": 33,
    "googlenet": 33,
    "resnet50": 33,
    "resnext50_32x4d": 33,
    "wide_resnet50_2": 33,
    "densenet121": 33,
    "inception_v3": 96,
    "efficientnet_v2_s": 33,
    "regnet_x_400mf": 33,
    "convnext_tiny": 33,
}
SEGMENTERS = {
    "lraspp_mobilenet_v3_large": "classifier",
    "fcn_resnet50": "classifier",
    "deeplabv3_resnet50": "classifier",
    "deeplabv3_mobilenet_v3_large": "classifier",
}


def built(make: Callable[..., nn.Module], name: str, **options: object) -> nn.Module:
    """The network on the CPU with weights of any value: the probe draws its own."""
    if name in {"googlenet", "inception_v3"}:
        options["init_weights"] = False
    regnet = name.startswith("regnet")  # computes its widths with tensors, so not on the meta device
    with nullcontext() if regnet else torch.device("meta"):
        network = make(weights=None, **options).eval()
    return network if regnet else network.to_empty(device="cpu")


def without(network: nn.Module, *kinds: str) -> nn.Module:
    """The network with modules that see the whole map left out, where the probe would see nothing else."""
    for part in list(network.modules()):
        for name, child in list(part.named_children()):
            if type(child).__name__ in kinds:
                setattr(part, name, nn.Identity())
    return network


def agrees_with_probe(network: nn.Module, layer: str, other_side: int) -> None:
    """Size and place of the centre unit's field along x, on a strip two strides longer than the field."""
    field = theory(network, 96, [layer])[0]
    assert field.method == "trace"
    assert field.size is not None
    assert field.stride is not None
    assert not field.unbounded
    strip = (other_side, field.size[1] + 2 * int(field.stride[1]))
    measured = probe(network, torch.zeros(1, 3, *strip), layer)
    box = theory(network, strip, [layer])[0].box(*measured.unit)
    assert measured.size[1] == field.size[1]
    assert (measured.box[1], measured.box[3]) == (box[1], box[3])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name: str) -> None:
    network = built(getattr(torchvision.models, name), name)
    head = network.features if name in {"alexnet", "vgg11"} else without(network, "SqueezeExcitation")
    assert isinstance(head, nn.Module)
    agrees_with_probe(head, feature_extractor(theory(head, 96)).name, CLASSIFIERS[name])


@pytest.mark.parametrize("name", SEGMENTERS)
def test_segmenters(name: str) -> None:
    network = built(getattr(segmentation, name), name, weights_backbone=None)
    network = without(network, "SqueezeExcitation", "AdaptiveAvgPool2d")
    agrees_with_probe(network, SEGMENTERS[name], 33)


def test_no_family_of_torchvision_is_left_out() -> None:
    """Families are modules of torchvision; those that attend have no field that a probe could bound."""
    attending = {"vision_transformer", "swin_transformer", "maxvit"}
    families = {
        torchvision.models.get_model_builder(name).__module__.rpartition(".")[2]
        for module in (torchvision.models, segmentation)
        for name in torchvision.models.list_models(module)
    }
    probed = {
        torchvision.models.get_model_builder(name).__module__.rpartition(".")[2] for name in (*CLASSIFIERS, *SEGMENTERS)
    }
    assert probed == families - attending


# Araujo, Norris and Sim (Distill, 2019), their table: field, stride and padding of the last map. AlexNet pads otherwise.
PUBLISHED = {"alexnet": (195, 32, None), "vgg16": (212, 32, 90), "inception_v3": (1311, 32, None)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    network = built(getattr(torchvision.models, name), name)
    layer = "features" if name in {"alexnet", "vgg16"} else None  # their adaptive pooling depends on the image's size
    field = feature_extractor(theory(network, 299), layer)
    size, stride, padding = PUBLISHED[name]
    assert (field.size, field.stride) == ((size, size), (float(stride), float(stride)))
    assert padding is None or field.start == (-padding, -padding)


# The same table. Its ResNets stride at the end of a stage, torchvision's in the 3 x 3 convolution at its beginning, and
# what has a stride pads on the right only, except for the first convolution.
PUBLISHED_RESNETS = {"resnet50": (483, 239), "resnet101": (1027, 511), "resnet152": (1507, 751)}


@pytest.mark.parametrize("name", PUBLISHED_RESNETS)
def test_published_resnets(name: str) -> None:
    with torch.device("meta"):
        network = getattr(torchvision.models, name)(weights=None).eval()
    network.maxpool.padding = 0
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    for stage, following in itertools.pairwise(stages):
        following[0].conv2.stride = following[0].downsample[0].stride = (1, 1)
        stage[-1].conv2.stride = (2, 2)
        stage[-1].downsample = nn.MaxPool2d(1, 2)
    field = theory(network, 224, ["layer4"])[0]
    size, padding = PUBLISHED_RESNETS[name]
    assert (field.size, field.stride, field.start) == ((size, size), (32.0, 32.0), (-padding, -padding))


def test_published_mobilenet_v1() -> None:
    """The same table: 315 px, padding 126. A convolution of stride 2, then 13 depthwise ones, a pointwise one after each."""
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, stride=2)]
    for stride in (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1):
        layers += [nn.Conv2d(8, 8, 3, stride=stride, padding=int(stride == 1), groups=8), nn.Conv2d(8, 8, 1)]
    field = feature_extractor(theory(nn.Sequential(*layers), 224))
    assert (field.size, field.stride, field.start) == ((315, 315), (32.0, 32.0), (-126, -126))


@pytest.mark.parametrize(("name", "size"), [("resnet18", 435), ("resnet34", 899), ("resnet50", 427)])
def test_torchvision_resnets_by_the_formula(name: str, size: int) -> None:
    """r = 1 + sum (k - 1) * stride before, written out: stem 11, then every 3 x 3 convolution adds twice the stride."""
    with torch.device("meta"):
        network = getattr(torchvision.models, name)(weights=None).eval()
    by_hand, jump = 11, 4
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in stage:
            for layer in block.children():
                if isinstance(layer, nn.Conv2d):
                    by_hand += (layer.kernel_size[0] - 1) * jump
                    jump *= layer.stride[0]
    assert by_hand == size
    assert theory(network, 224, ["layer4"])[0].size == (size, size)
