"""What the theory does not know it says: unknown or unbounded, with the operation's name; and networks of odd kinds."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from fieldshift.errors import UserError
from fieldshift.receptive_field import probe, theory
from fieldshift.receptive_field.theory import unknown_note
from fieldshift.receptive_field.torch_layers import UnpoolingPair


class _Call(nn.Module):
    def __init__(self, function) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.function(x)
        return result


def _image(function) -> nn.Module:  # type: ignore[no-untyped-def]
    """Two named layers around a call, on images of one channel."""
    return nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), _Call(function), nn.Conv2d(2, 2, 3))


def _written_in_part(x: Tensor) -> Tensor:
    x.unbind(1)[0].add_(x.flip(2)[:, 0])
    return x


UNKNOWN = {
    "grid_sampler_2d": lambda x: F.grid_sample(x, torch.zeros(1, 9, 9, 2, dtype=x.dtype), align_corners=False),
    "fractional_max_pool2d": lambda x: F.fractional_max_pool2d(x, 2, output_size=(9, 9)),
    "numpy": lambda x: x + torch.from_numpy(x.numpy() * 2),
    "tolist": lambda x: x * x.mean().tolist(),
    "item": lambda x: x * x.mean().item(),
    "max_unpool2d with indices that no pooling of this size made": lambda x: F.max_unpool2d(
        x, torch.arange(x[0, 0].numel()).reshape(1, 1, *x.shape[2:]).expand(x.shape) * 2, 2
    ),
    "a write into the result of unbind": lambda x: _written_in_part(x.clone()),
    "convolution with a computed kernel": lambda x: F.conv2d(x, x[:, :, :3, :3].transpose(0, 1).repeat(1, 2, 1, 1)),
}


@pytest.mark.parametrize("operation", UNKNOWN)
def test_what_cannot_be_followed_is_unknown_from_there_on_and_named(operation: str) -> None:
    first, call, last, whole = theory(_image(UNKNOWN[operation]), torch.rand(1, 1, 32, 32))
    assert (first.size, first.stride, first.unknown_by, first.method) == ((3, 3), (2.0, 2.0), "", "trace")
    for field in (call, last, whole):
        assert (field.size, field.stride, field.unknown_by, field.method) == (None, None, operation, "unknown")
        assert (field.temporal_reach, field.frames_seen, field.start) == (None, (), None)
    assert operation in unknown_note([first, call, last, whole])
    with pytest.raises(UserError, match="has no rule; choose a layer before it"):
        last.box(0, 0)


MIXED = {
    "sort": lambda x: x.sort(3).values,
    "topk": lambda x: x.topk(4, 2).values,
    "fft_r2c": lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * torch.linspace(1, 2, 8), s=(15, 15)),
    "cumsum": lambda x: x.cumsum(2),
    "native_batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "native_group_norm": lambda x: F.group_norm(x, 2),
    "native_layer_norm": lambda x: F.layer_norm(x, x.shape[2:]),
    "_softmax": lambda x: x.flatten(2).softmax(2).view_as(x),
}


@pytest.mark.parametrize("operation", MIXED)
def test_what_mixes_the_map_is_unbounded_and_named(operation: str) -> None:
    *_, whole = theory(_image(MIXED[operation]), torch.rand(1, 1, 32, 32))
    assert (whole.unbounded_by, whole.unknown_by) == (operation, "")


def test_unpooling_sees_the_windows_of_its_places() -> None:
    """Three units lie in two pooling windows of 2, four pixels, and a convolution of 3 is before and after."""
    network = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), UnpoolingPair(2, 2), nn.Conv2d(4, 4, 3, padding=1))
    field = theory(network, torch.rand(1, 4, 24, 24))[-1]
    assert (field.size, field.stride, field.unknown_by) == ((6, 6), (1.0, 1.0), "")


def test_sorting_channels_keeps_the_windows() -> None:
    field = theory(_image(lambda x: x.sort(dim=1).values), 32)[-1]
    assert (field.name, field.size, field.stride) == ("", (7, 7), (2.0, 2.0))


def test_a_truth_value_that_decides_what_runs_is_said() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(1, 1, 5), nn.Conv2d(1, 1, 3)

        def forward(self, x: Tensor) -> Tensor:
            first = self.conv(x)
            result: Tensor = self.last(first) if bool((x == 0).all()) else first
            return result

    first, *later = theory(Deciding(), 32)
    assert (first.size, first.note) == ((5, 5), "")
    assert {field.size for field in later} == {(7, 7)}
    assert all("decided what ran" in field.note for field in later)


class _Locked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lock, self.conv = threading.Lock(), nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.fold(F.unfold(self.conv(x), 3, padding=1), x.shape[-2:], 3, padding=1)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_networks_that_cannot_be_copied_hooked_or_called_as_others() -> None:
    plain = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3, stride=2))
    lazy = nn.Sequential(nn.LazyConv2d(2, 3), nn.LazyBatchNorm2d(), nn.LazyConv2d(2, 3, stride=2))
    networks = {
        "lock": _Locked(),
        "parallel": nn.DataParallel(plain),
        "script": torch.jit.script(plain),
        "trace": torch.jit.trace(plain, torch.rand(1, 2, 16, 16)),
        "part of it a script": nn.Sequential(torch.jit.script(plain[0]), plain[1]),
        "compiled": torch.compile(plain, backend="eager"),
        "lazy": lazy,
    }
    for name, network in networks.items():
        *_, whole = theory(network, torch.rand(1, 2, 24, 24))
        assert (whole.size, whole.unknown_by) == ((3, 3) if name == "lock" else (5, 5), ""), name
    assert is_lazy(lazy[0].weight)
    with pytest.raises(UserError, match="cannot be copied"):
        probe(_Locked(), torch.rand(1, 2, 24, 24), "conv")
    with pytest.raises(UserError, match=r"lazy modules that get no shape from such an image"):
        theory(nn.Sequential(lazy, nn.Linear(3, 3)), torch.rand(1, 2, 24, 24))


@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_a_transposed_convolution_that_leaves_gaps(kernel: int, stride: int) -> None:
    """Between its kernels a unit sees nothing; the others see ceil(kernel / stride) positions of the 3 x 3 before."""
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ConvTranspose2d(1, 1, kernel, stride=stride))
    field = theory(network, 12)[-1]
    side = 3 + max(-(-kernel // stride), 1) - 1
    assert (field.size, field.stride) == ((side, side), (1 / stride, 1 / stride))
    assert [first <= last for first, last in field.rows] == [o % stride < kernel for o in range(len(field.rows))]


def test_any_error_of_the_network_is_one_line() -> None:
    def wrong(x: Tensor) -> Tensor:
        raise AssertionError("Wrong image height!\nno")

    with pytest.raises(UserError, match="Wrong image height!") as caught:
        theory(_image(wrong), 32)
    assert "\n" not in str(caught.value)
