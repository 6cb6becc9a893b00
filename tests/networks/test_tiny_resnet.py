"""The receptive field of tiny-resnet, by the formula and by a probe with gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fieldshift.networks import describe, video_network


def by_formula(convolutions: list[nn.Conv2d]) -> int:
    """r = 1 + sum over layers of (k - 1) * product of the strides before it (Araujo et al., 2019)."""
    field, step = 1, 1
    for convolution in convolutions:
        field += (convolution.kernel_size[0] - 1) * convolution.dilation[0] * step
        step *= convolution.stride[0]
    return field


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, 15),
        ({"wide_field": True}, 27),
        ({"small_images": True}, 9),
        ({"small_images": True, "wide_field": True}, 15),
    ],
)
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_the_receptive_field_is_exact(task: str, options: dict[str, bool], field: int) -> None:
    torch.manual_seed(0)
    name = "tiny-resnet" if task == "classification" else "tiny-resnet-fcn"
    network = video_network(name, temporal="none", frames=1, num_classes=5, task=task, **options).double().eval()
    path = [
        module
        for path, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and "shortcut" not in path and "classifier" not in path
    ]
    assert by_formula(path) == field

    kept: list[torch.Tensor] = []
    hook = network.get_submodule(network.feature_layer).register_forward_hook(lambda *a: kept.append(a[2]))
    images = torch.rand(8, 1, 3, 80, 80, dtype=torch.float64, requires_grad=True)
    network(images)
    hook.remove()
    (features,) = kept
    row, column = features.shape[2] // 2, features.shape[3] // 2
    (gradient,) = torch.autograd.grad(features[:, :, row, column].sum(), images)
    touched = gradient.abs().sum((0, 1, 2)) > 0
    rows, columns = touched.any(1).nonzero().flatten(), touched.any(0).nonzero().flatten()
    assert int(rows.max() - rows.min()) + 1 == field
    assert int(columns.max() - columns.min()) + 1 == field


@pytest.mark.parametrize("name", ["resnet50", "resnet18"])
def test_wide_field_of_a_torchvision_resnet_enlarges_the_map_and_not_the_parameters(name: str) -> None:
    with torch.device("meta"):
        plain, wide = (
            video_network(name, temporal="none", frames=1, num_classes=5, wide_field=wide) for wide in (False, True)
        )
    assert describe(plain, (64, 64))["parameters"] == describe(wide, (64, 64))["parameters"]
    assert describe(plain, (64, 64))["flops_per_image"] < describe(wide, (64, 64))["flops_per_image"]
    with torch.device("meta"):
        images = torch.zeros(1, 3, 64, 64)
    plain_map, wide_map = (
        torch.nn.Sequential(*list(network.network.children())[:-2])(images) for network in (plain, wide)
    )
    assert (plain_map.shape[-2:], wide_map.shape[-2:]) == ((2, 2), (8, 8))
