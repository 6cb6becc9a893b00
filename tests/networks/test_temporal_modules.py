"""Every temporal module of the registry against its slow transcription, and what each promises about its start."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.networks import GSF, GSM, TEMPORAL, TSM, TemporalConv

Slow = Callable[[nn.Module, Tensor], Tensor]
MOVING = [name for name in TEMPORAL if name != "none"]


def build(name: str, channels: int, frames: int, seed: int = 0, **options: float | bool) -> nn.Module:
    """A module of the registry in float64 with random weights everywhere, so that nothing hides behind a zero."""
    module = TEMPORAL[name].build(channels, frames=frames, **options).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(0.2 + 0.5 * torch.rand(tensor.shape, generator=generator, dtype=torch.float64))
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def features(batch: int, frames: int, channels: int, size: tuple[int, int] = (4, 5), seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch * frames, channels, *size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 16), (1, 5, 24), (3, 2, 16), (2, 2, 19), (1, 8, 30)])
@pytest.mark.parametrize("name", TEMPORAL)
def test_equals_the_slow_transcription(slow: Slow, name: str, shape: tuple[int, int, int], training: bool) -> None:
    batch, frames, channels = shape
    module = build(name, channels, frames).train(training)
    x = features(batch, frames, channels)
    expected = slow(module, x)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(8, 40)),
    ratio=st.sampled_from([0.125, 0.2, 0.25, 0.5]),
    name=st.sampled_from(["tsm", "tsm-causal", "gsm", "gsf"]),
)
def test_any_width_and_ratio_fits(slow: Slow, shape: tuple[int, int, int], ratio: float, name: str) -> None:
    batch, frames, channels = shape
    if name in ("gsm", "gsf") and int(ratio * channels + 1e-9) < 4:
        with pytest.raises(UserError, match="moves no channel"):
            build(name, channels, frames, ratio=ratio)
        return
    module = build(name, channels, frames, ratio=ratio).eval()
    x = features(batch, frames, channels, (2, 3))
    torch.testing.assert_close(module(x), slow(module, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", TEMPORAL)
def test_gradient_equals_the_transcriptions_gradient(slow: Slow, name: str) -> None:
    module = build(name, 16, 3)
    x = features(2, 3, 16).requires_grad_()
    cotangent = features(2, 3, 16, seed=9)
    inputs = [x, *module.parameters()]
    fast = torch.autograd.grad(module(x), inputs, cotangent)
    expected = torch.autograd.grad(slow(module, x), inputs, cotangent)
    for mine, theirs in zip(fast, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", MOVING)
def test_derivatives_of_first_and_second_order_are_exact(name: str) -> None:
    module = build(name, 16, 3).eval()
    x = features(1, 3, 16, (2, 2)).requires_grad_()
    assert torch.autograd.gradcheck(module, (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(module, (x,), fast_mode=True)


@pytest.mark.parametrize("name", MOVING)
def test_a_wrong_permutation_of_time_and_channels_is_noticed(slow: Slow, name: str) -> None:
    """The known mistake, reading (B, C, T) memory as (B, T, C), must fail the comparison that the right one passes."""
    module = build(name, 16, 4).eval()
    x = features(2, 4, 16)

    def scrambled(rows: Tensor) -> Tensor:
        wrong = rows.unflatten(0, (-1, 4)).transpose(1, 2).reshape(rows.shape)
        mixed = module(wrong)
        back: Tensor = mixed.reshape(2, 16, 4, 4, 5).transpose(1, 2).flatten(0, 1)
        return back

    expected = slow(module, x)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-10)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(scrambled(x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", MOVING)
def test_memory_format_does_not_change_the_result(name: str) -> None:
    module = build(name, 16, 3).eval()
    x = features(2, 3, 16)
    expected = module(x)
    rearranged = module.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(rearranged, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MOVING)
def test_samples_never_mix(name: str) -> None:
    module = build(name, 16, 3).eval()
    x = features(2, 3, 16)
    changed = x.clone()
    changed[3:] += 1.0
    assert torch.equal(module(x)[:3], module(changed)[:3])


@pytest.mark.parametrize("name", MOVING)
def test_later_frames_are_seen_exactly_where_the_registry_says_so(name: str) -> None:
    module = build(name, 16, 3).eval()
    x = features(1, 3, 16)
    changed = x.clone()
    changed[2] += 1.0
    assert torch.equal(module(x)[:2], module(changed)[:2]) != TEMPORAL[name].ahead


@pytest.mark.parametrize("name", MOVING)
def test_a_frame_depends_on_as_many_frames_as_the_registry_says(name: str) -> None:
    module, kind = build(name, 16, 9).eval(), TEMPORAL[name]
    x = features(1, 9, 16, (3, 3))
    changed = x.clone()
    changed[4] += 1.0
    touched = (module(changed) - module(x)).abs().flatten(1).amax(1).nonzero().flatten() - 4
    first = -kind.depends_on if kind.ahead else 0
    assert touched.tolist() == list(range(first, kind.depends_on + 1))


@pytest.mark.parametrize("name", MOVING)
def test_one_frame_passes_as_it_is(name: str) -> None:
    x = features(2, 1, 16)
    assert torch.equal(build(name, 16, 1).eval()(x), x)
    assert torch.equal(build(name, 16, 1).train()(x), x)


def test_gsm_without_interleave_starts_as_the_identity_to_the_last_bit() -> None:
    x = features(2, 3, 32).float()
    assert torch.equal(GSM(32, frames=3, interleave=False)(x), x)


def test_gsm_with_interleave_starts_as_a_permutation_of_channels() -> None:
    x = features(2, 3, 32).float()
    mixed = GSM(32, frames=3)(x)
    half = [0, 2, 1, 3]
    assert torch.equal(mixed[:, :8], x[:, [*half, *(4 + c for c in half)]])
    assert torch.equal(mixed[:, 8:], x[:, 8:])


def test_conv3d_starts_as_the_identity() -> None:
    x = features(2, 3, 16).float()
    module = TemporalConv(16, frames=3)
    torch.testing.assert_close(module(x), x, rtol=0, atol=0)


@pytest.mark.parametrize("channels", [16, 24, 64, 100])
def test_parameter_counts_are_the_published_ones(channels: int) -> None:
    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    width = int(0.25 * channels) // 4 * 4
    assert count(TSM(channels, frames=3)) == 0
    assert count(GSM(channels, frames=3)) == 29 * width + 2
    assert count(GSF(channels, frames=3)) == 29 * width + 40
    assert count(TemporalConv(channels, frames=3)) == 3 * channels * channels


@pytest.mark.parametrize(
    ("make", "width", "words"),
    [
        (lambda: GSF(30, frames=2), 4, "4 gated (the ratio asks for 7.5, lowered to fit)"),
        (lambda: GSM(31, frames=2), 4, "4 gated (the ratio asks for 7.75, lowered to fit)"),
        (lambda: GSF(64, frames=2), 16, "16 gated"),
        (lambda: TSM(20, frames=2), 2, "2 shifted each way (the ratio asks for 2.5, lowered to fit)"),
        (lambda: TSM(16, frames=2, direction="past"), 2, "2 shifted in from the past"),
    ],
)
def test_a_width_that_does_not_divide_is_lowered_and_said(
    make: Callable[[], GSM | TSM], width: int, words: str
) -> None:
    assert make().moved.width == width
    assert str(make().moved) == words


def test_gsf_with_a_zero_gate_scales_by_one_minus_the_weight() -> None:
    module = GSF(16, frames=2, interleave=False, zero_gate=True)
    x = features(1, 2, 16).float()
    assert torch.equal(module(x)[:, 4:], x[:, 4:])
    ratio = module(x)[:, :4] / x[:, :4]  # one factor for each frame and channel
    torch.testing.assert_close(ratio, ratio[..., :1, :1].expand_as(ratio))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TSM(4, frames=3), "moves no channel"),
        (lambda: TSM(16, frames=3, ratio=0.6), "at most 0.5"),
        (lambda: TSM(16, frames=3, ratio=0.0), "above 0"),
        (lambda: GSM(8, frames=3), "moves no channel"),
        (lambda: GSF(16, frames=3, ratio=1.5), "at most 1"),
        (lambda: TSM(16, frames=0), "at least 1"),
        (lambda: TEMPORAL["tsm"].build(16, frames=3, interleave=True), "does not interleave"),
        (lambda: TEMPORAL["conv3d"].build(16, frames=3, ratio=0.5), "has no ratio"),
    ],
)
def test_a_users_mistake_is_one_line(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", MOVING)
def test_rows_that_are_no_whole_videos_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="T = 3"):
        build(name, 16, 3)(torch.zeros(4, 16, 2, 2, dtype=torch.float64))
