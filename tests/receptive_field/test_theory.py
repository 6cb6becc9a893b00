"""The theory against brute force, published numbers and slow arithmetic."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from fieldshift.errors import UserError
from fieldshift.networks import TEMPORAL, video_network
from fieldshift.receptive_field import feature_extractor, probe, theory
from fieldshift.receptive_field.theory import gates_note


def blank(name: str) -> nn.Module:
    """A torchvision network without weights that cost time: the theory runs on shapes alone."""
    with torch.device("meta"):
        network: nn.Module = getattr(torchvision.models, name)(weights=None)
    return network.eval()


def test_resnet_stride_and_offset_by_layer() -> None:
    fields = {field.name: field for field in theory(blank("resnet18"), 224)}
    assert fields["conv1"].size == (7, 7)
    assert fields["conv1"].start == (-3, -3)
    assert fields["maxpool"].size == (11, 11)
    assert [fields[f"layer{i}"].stride for i in (1, 2, 3, 4)] == [(s, s) for s in (4.0, 8.0, 16.0, 32.0)]
    assert fields["layer4"].map_size == (7, 7)
    assert fields["avgpool"].unbounded_by == "mean"
    assert fields["avgpool"].size is None
    assert json.loads(json.dumps(fields["layer4"].to_json()))["size"] == [435, 435]


def test_squeeze_and_excitation_is_unbounded_but_keeps_its_windows() -> None:
    field = feature_extractor(theory(blank("mobilenet_v3_small"), 224))
    assert field.unbounded_by == "mean"
    for_windows = blank("mobilenet_v3_small")
    for part in for_windows.modules():
        for child, module in list(part.named_children()):
            if type(module).__name__ == "SqueezeExcitation":
                setattr(part, child, nn.Identity())
    plain = feature_extractor(theory(for_windows, 224))
    assert not plain.unbounded
    assert field.size == plain.size


def test_attention_over_the_map_is_unbounded() -> None:
    fields = {field.name: field for field in theory(blank("vit_b_32"), 224)}
    assert fields["conv_proj"].size == (32, 32)
    assert not fields["conv_proj"].unbounded
    block = fields["encoder.layers.encoder_layer_0"]
    assert block.unbounded_by == "attention"
    assert fields["heads"].size is None


def test_a_map_of_one_row_keeps_its_windows() -> None:
    """Where nothing varies along a dimension, views may fold it away and back, as a linear layer on (1, 1, 15, C) does."""
    network = blank("convnext_tiny")
    for size in (32, (33, 500), 96):
        assert feature_extractor(theory(network, size)).size == (1688, 1688)


def test_attention_within_windows_is_followed_to_where_it_spans_the_map() -> None:
    sizes = {"patch_size": [4, 4], "embed_dim": 8, "depths": [2, 1], "num_heads": [1, 1], "window_size": [4, 4]}
    network = torchvision.models.SwinTransformer(**sizes)
    fields = {field.name: field for field in theory(network, 64)}
    assert fields["features.1.0"].size == (16, 16)
    assert not fields["features.1.0"].unbounded
    assert fields["head"].unbounded


class _Branches(nn.Module):
    def __init__(self, *branches: nn.Module, join: str = "sum") -> None:
        super().__init__()
        self.branches, self.join = nn.ModuleList(branches), join

    def forward(self, x: Tensor) -> Tensor:
        outputs = [branch(x) for branch in self.branches]
        return torch.cat(outputs, dim=1) if self.join == "cat" else torch.stack(outputs).sum(dim=0)


class _Call(nn.Module):
    def __init__(self, function) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.function(x)
        return result


def _written(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, :2, 1:] = x[:, :2, :-1]
    out[:, 2:, :, :-3] = x[:, 2:, :, 3:]
    return out


def _space_to_depth(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, 4 * c, h // 2, w // 2)


def _channels_last_linear(x: Tensor) -> Tensor:
    return F.linear(x.permute(0, 2, 3, 1), torch.ones(4, 4, dtype=x.dtype, device=x.device)).permute(0, 3, 1, 2)


def _conv(*kernel: int, **options: object) -> nn.Module:
    channels = options.pop("channels", (4, 4))
    return nn.Conv2d(*channels, kernel if len(kernel) > 1 else kernel[0], **options)  # type: ignore[misc,arg-type]


NETWORKS = {
    "asymmetric kernels": lambda: nn.Sequential(_conv(1, 7, padding=(0, 3)), _conv(5, 1, stride=(3, 1))),
    "dilation": lambda: nn.Sequential(_conv(3, dilation=4, padding=4), _conv(3, stride=2), _conv(3, dilation=(1, 3))),
    "grouped and depthwise": lambda: nn.Sequential(_conv(3, groups=4), _conv(5, groups=2, padding=1), _conv(1)),
    "pooling": lambda: nn.Sequential(nn.MaxPool2d(3, 2, 1), _conv(3), nn.AvgPool2d(2, ceil_mode=True)),
    "adaptive pooling": lambda: nn.Sequential(_conv(3, padding=1), nn.AdaptiveAvgPool2d((8, 6))),
    "branches": lambda: _Branches(_conv(1), _conv(3, padding=1), _conv(1, 9, padding=(0, 4))),
    "concatenation": lambda: nn.Sequential(
        _Branches(_conv(1), _conv(5, padding=2), join="cat"), _conv(3, channels=(8, 4))
    ),
    "transposed": lambda: nn.Sequential(
        _conv(3, stride=2, padding=1), nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1), _conv(3)
    ),
    "transposed, dilated": lambda: nn.ConvTranspose2d(4, 4, 3, stride=3, padding=2, dilation=2),
    "nearest": lambda: nn.Sequential(_conv(3, stride=4, padding=1), nn.Upsample(scale_factor=2), _conv(3, padding=1)),
    "nearest, uneven": lambda: nn.Sequential(_conv(3, stride=2), nn.Upsample(size=(27, 31)), _conv(3)),
    "bilinear": lambda: nn.Sequential(
        _conv(3, stride=4), nn.Upsample(scale_factor=4, mode="bilinear"), _conv(3, stride=2)
    ),
    "bilinear corners": lambda: nn.Sequential(
        _conv(3, stride=4), nn.Upsample(size=(21, 20), mode="bilinear", align_corners=True)
    ),
    "encoder and decoder": lambda: _Branches(
        _conv(3, padding=1),
        nn.Sequential(_conv(3, stride=4, padding=1), nn.Upsample(scale_factor=4, mode="nearest")),
    ),
    "pixel shuffle": lambda: nn.Sequential(_conv(3, stride=2, padding=1), nn.PixelShuffle(2), _conv(3, channels=(1, 4))),
    "pixel unshuffle": lambda: nn.Sequential(nn.PixelUnshuffle(2), _conv(3, channels=(16, 4))),
    "depthwise between shuffles": lambda: nn.Sequential(
        nn.PixelUnshuffle(2), _conv(3, channels=(16, 16), groups=16, padding=1), nn.PixelShuffle(2)
    ),
    "pairs of columns between shuffles": lambda: nn.Sequential(
        nn.PixelUnshuffle(2), _conv(3, channels=(16, 16), groups=8, padding=1), nn.PixelShuffle(2)
    ),
    "groups of a whole pixel each": lambda: nn.Sequential(
        nn.PixelUnshuffle(2), _conv(3, channels=(16, 16), groups=4, padding=1), nn.PixelShuffle(2), _conv(3)
    ),
    "more channels of each group": lambda: nn.Sequential(
        nn.PixelUnshuffle(2), _conv(3, channels=(16, 32), groups=8, padding=1), _conv(1, channels=(32, 4))
    ),
    "depthwise with a stride": lambda: nn.Sequential(
        nn.PixelUnshuffle(2), _conv(3, channels=(16, 16), groups=16, padding=1, stride=2), nn.PixelShuffle(2)
    ),
    "depthwise of thirds, odd sides": lambda: nn.Sequential(
        _Call(lambda x: x[..., :39, :33]), nn.PixelUnshuffle(3), _conv(3, channels=(36, 36), groups=36, padding=1),
        nn.PixelShuffle(3), _conv(3, padding=1),
    ),
    "groups of shuffled channels": lambda: nn.Sequential(
        nn.PixelUnshuffle(2), nn.ChannelShuffle(4), _conv(3, channels=(16, 16), groups=4, padding=1), nn.PixelShuffle(2)
    ),
    "shuffled between groups": lambda: nn.Sequential(
        nn.PixelUnshuffle(2), _conv(3, channels=(16, 16), groups=8, padding=1), nn.ChannelShuffle(8),
        _conv(1, 5, channels=(16, 16), groups=8, padding=(0, 2)), nn.PixelShuffle(2), _conv(3),
    ),
    "depthwise, transposed": lambda: nn.Sequential(
        nn.PixelUnshuffle(2), nn.ConvTranspose2d(16, 16, 4, stride=2, padding=1, groups=16), nn.PixelShuffle(2)
    ),
    "space to depth": lambda: nn.Sequential(_Call(_space_to_depth), _conv(3, channels=(16, 4))),
    "antialiased": lambda: nn.Sequential(
        _conv(3), _Call(lambda x: F.interpolate(x, (15, 11), mode="bilinear", antialias=True)), _conv(3)
    ),
    "antialiased, bicubic": lambda: _Call(lambda x: F.interpolate(x, (15, 50), mode="bicubic", antialias=True)),
    "patches": lambda: nn.Sequential(
        nn.Unfold((3, 2), stride=2), _Call(lambda x: F.linear(x.transpose(1, 2), torch.ones(4, 24).to(x))),
        _Call(lambda x: x.transpose(1, 2).unflatten(2, (19, 18))),
    ),
    "sums of patches": lambda: nn.Sequential(
        _Call(lambda x: F.fold(F.unfold(x, 3, dilation=2).flip(1), (40, 36), 3, dilation=2)), _conv(2)
    ),
    "windows by views": lambda: _Call(lambda x: x.unfold(2, 5, 2).unfold(3, 3, 1).mean((4, 5))),
    "gate": lambda: nn.Sequential(_Branches(_conv(1), _conv(3, padding=1), join="cat"), nn.GLU(1)),
    "repeated rows": lambda: nn.Sequential(_conv(3), _Call(lambda x: x.repeat_interleave(2, dim=2)), _conv(3)),
    "every second": lambda: nn.Sequential(_Call(lambda x: x[:, :, torch.arange(0, 40, 2)]), _conv(3)),
    "focus": lambda: nn.Sequential(
        _Call(lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, 1::2]], dim=1)), _conv(3, channels=(8, 4))
    ),
    "focus, grouped": lambda: nn.Sequential(
        _Call(lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, 1::2]], dim=1)),
        _conv(3, channels=(8, 8), groups=4, padding=1), _conv(1, channels=(8, 4)),
    ),
    "written slices": lambda: nn.Sequential(_conv(3), _Call(_written), _conv(1)),
    "padding": lambda: nn.Sequential(_Call(lambda x: F.pad(x, (3, 1, 0, 2))), _conv(5)),
    "channels last": lambda: nn.Sequential(_conv(3), _Call(_channels_last_linear), _conv(3)),
    "flipped": lambda: nn.Sequential(_conv(3), _Call(lambda x: x.flip(2)), _conv(3, stride=2)),
    "transposed map": lambda: nn.Sequential(
        _Call(lambda x: x.transpose(2, 3)), _conv(3, 5, padding=(1, 2), stride=(2, 1)), _conv(3, padding=1)
    ),
    "transposed there and back": lambda: nn.Sequential(
        _Call(lambda x: x.mT), _conv(1, 5, padding=(0, 2)), _Call(lambda x: x.mT), _conv(3)
    ),
    "turned by a quarter": lambda: nn.Sequential(_Call(lambda x: x.mT.flip(2)), _conv(3, 1)),
    "tokens": lambda: nn.Sequential(
        _conv(4, stride=4), _Call(lambda x: x.flatten(2).transpose(1, 2)), nn.Linear(4, 4),
        _Call(lambda x: x.transpose(1, 2).unflatten(2, (10, 9))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_every_unit_against_the_probe(name: str) -> None:
    """Each inner unit's box is exactly where its gradient is; at the border it is that box within the image."""
    torch.manual_seed(0)
    network = nn.Sequential(NETWORKS[name]())
    example = torch.zeros(1, 4, 40, 36)
    field = theory(network, example, ["0"])[0]
    assert field.method == "trace"
    assert field.map_size is not None
    height, width = field.map_size
    middle = [(r, c) for r in (height // 2, height // 2 + 1) for c in (width // 2 - 1, width // 2)]
    for unit in [*middle, (height // 3, width // 3)]:
        measured = probe(network, example, "0", unit)
        top, left, bottom, right = field.box(*unit)
        assert measured.box == (max(top, 0), max(left, 0), min(bottom, 39), min(right, 35)), unit


LAYERS = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2)), min_size=1, max_size=4
)


@settings(deadline=None, max_examples=30)
@given(LAYERS)
def test_chains_of_convolutions_against_the_formula(layers: list[tuple[int, int, int, int]]) -> None:
    """r = 1 + sum (k - 1) d * prod of earlier strides; offset = - sum p * prod of earlier strides."""
    network = nn.Sequential(*[nn.Conv2d(1, 1, k, stride=s, padding=p, dilation=d) for k, s, p, d in layers])
    size = 1 + sum((k - 1) * d * math.prod(s for _, s, _, _ in layers[:i]) for i, (k, _, _, d) in enumerate(layers))
    start = -sum(p * math.prod(s for _, s, _, _ in layers[:i]) for i, (_, _, p, _) in enumerate(layers))
    field = feature_extractor(theory(network, 400))
    assert field.size == (size, size)
    assert field.start == (start, start)
    assert field.stride == (float(math.prod(s for _, s, _, _ in layers)),) * 2


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("temporal", sorted(TEMPORAL))
def test_temporal_reach_of_every_module(temporal: str, frames: int) -> None:
    network = video_network("tiny-resnet", temporal=temporal, frames=frames, num_classes=10)
    field = feature_extractor(theory(network, 40), network.feature_layer)
    assert field.method == "trace"
    assert field.size == (15, 15)
    assert not field.unbounded
    assert field.temporal_reach == network.temporal_reach
    back, ahead = network.temporal_reach, network.temporal_reach * network.sees_later_frames
    assert field.frames_seen == tuple((max(t - back, 0), min(t + ahead, frames - 1)) for t in range(frames))


@pytest.mark.parametrize("temporal", ["tsm", "tsm-inplace", "tsm-causal", "gsm", "conv3d"])
def test_strict_reach_against_the_probe(temporal: str) -> None:
    network = video_network("tiny-resnet", temporal=temporal, frames=7, num_classes=10)
    field = theory(network, 40, [network.feature_layer], count_gates=True)[0]
    measured = probe(network, torch.zeros(1, 7, 3, 40, 40), network.feature_layer)
    assert measured.frames == field.frames_seen[3]
    top, left, bottom, right = field.box(*measured.unit)
    assert measured.box == (max(top, 0), max(left, 0), min(bottom, 39), min(right, 39))


@pytest.mark.parametrize("temporal", TEMPORAL)
def test_what_is_left_out_of_the_theory_is_said(temporal: str) -> None:
    """The gates of GSF look at the whole map: a gradient outside of the theoretical field shows it."""
    network = video_network("tiny-resnet", temporal=temporal, frames=3, num_classes=10)
    note = gates_note(network)
    field = theory(network, 40, [network.feature_layer])[0]
    measured = probe(network, torch.zeros(1, 3, 3, 40, 40), network.feature_layer)
    top, left, bottom, right = field.box(*measured.unit)
    within = measured.box == (max(top, 0), max(left, 0), min(bottom, 39), min(right, 39))
    assert within == (note == "") == (temporal not in ("gsm", "gsf"))
    assert ("whole map" in note) == (temporal == "gsf") == (measured.box == (0, 0, 39, 39))


def test_the_network_is_left_as_it_was() -> None:
    network = torchvision.models.resnet18(num_classes=2).train()
    network.layer1.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    theory(network, 64)
    assert network.training
    assert not network.layer1.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(part._forward_hooks for part in network.modules())


def test_unknown_layer_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"Unknown layer 'layer4.1.conv9'.*Nearest: layer4.1.conv"):
        theory(blank("resnet18"), 64, ["layer4.1.conv9"])


def test_unit_outside_the_map() -> None:
    field = feature_extractor(theory(blank("resnet18"), 64))
    with pytest.raises(UserError, match=r"Unit \(2, 0\) is outside .* rows 0 to 1 and columns 0 to 1"):
        field.box(2, 0)


@pytest.mark.parametrize("size", [0, (3, -1)])
def test_impossible_size(size: int | tuple[int, int]) -> None:
    with pytest.raises(UserError, match="must be one or two positive numbers"):
        theory(blank("resnet18"), size)


def test_input_that_does_not_fit_the_network() -> None:
    with pytest.raises(UserError, match="cannot run on an input of shape"):
        theory(nn.Conv2d(3, 4, 3), torch.zeros(1, 5, 8, 8))
    with pytest.raises(UserError, match=r"expected \(B, C, H, W\)"):
        theory(nn.Conv2d(3, 4, 3), torch.zeros(8, 8))


def test_a_network_of_tokens_only_has_no_feature_map() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with pytest.raises(UserError, match="No layer has a map"):
        feature_extractor(theory(network, torch.zeros(1, 3, 4, 4)))
