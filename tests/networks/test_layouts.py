"""Maps of every layout and precision: the same moved channels, and a channels-last map stays one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fieldshift.folding import PolicyMotion
from fieldshift.motions import Policy
from fieldshift.networks.folded import FoldedGSF, FoldedGSM, FoldedTSM
from fieldshift.networks.gate import GSF, GSM

MOTION = PolicyMotion((Policy.chain([("rotate", 20.0), ("zoom", 1.3)], frames=3),))
LAST = torch.channels_last
MAPS = {
    "contiguous": torch.randn(2, 16, 7, 9),
    "channels last": torch.randn(2, 16, 7, 9).contiguous(memory_format=LAST),
    "transposed": torch.randn(2, 16, 9, 7).transpose(2, 3),
    "expanded": torch.randn(1, 16, 7, 9).expand(3, -1, -1, -1),
    "some channels": torch.randn(2, 40, 7, 9)[:, 3:19],
    "some channels, channels last": torch.randn(2, 40, 7, 9).contiguous(memory_format=LAST)[:, 3:19],
    "one pixel": torch.randn(2, 16, 1, 1),
}
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def dense(module: FoldedTSM, features: Tensor) -> Tensor:
    """The same sums in float64, gathered tap by tap."""
    movement, width = MOTION((int(features.shape[-2]), int(features.shape[-1])), features), 2 * module.fold
    moved = movement._filled(features[:, :width].double(), movement.gathered)
    return torch.cat([moved, features[:, width:].double()], dim=1)


@pytest.mark.parametrize("precision", TOLERANCES, ids=str)
@pytest.mark.parametrize("layout", MAPS)
def test_channels_and_gradients_of_every_layout(layout: str, precision: torch.dtype) -> None:
    module, tolerance = FoldedTSM(16, MOTION), TOLERANCES[precision]
    features = MAPS[layout].detach().to(precision).requires_grad_()
    exact = features.detach().double().requires_grad_()
    found, expected = module(features), dense(module, exact)
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).to(precision)
    found.backward(upstream)
    expected.backward(upstream.double())
    assert found.dtype == features.grad.dtype == precision
    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(features.grad.double(), exact.grad, atol=tolerance, rtol=tolerance)


def test_an_empty_batch_stays_empty() -> None:
    assert FoldedTSM(16, MOTION)(torch.zeros(0, 16, 7, 9)).shape == (0, 16, 7, 9)


GATES = {
    "gsm": lambda: GSM(16, frames=3, zero_gate=False),
    "gsf": lambda: GSF(16, frames=3),
    "folded gsm": lambda: FoldedGSM(16, MOTION, zero_gate=False),
    "folded gsf": lambda: FoldedGSF(16, MOTION),
    "folded tsm": lambda: FoldedTSM(16, MOTION),
}


def in_layout(module: nn.Module, features: Tensor, layout: torch.memory_format) -> list[Tensor]:
    """The output and the gradients of the input and of every parameter."""
    features = features.clone().contiguous(memory_format=layout).requires_grad_()
    found = module(features)
    if features[0, 0].numel() > 1:
        assert found.is_contiguous(memory_format=layout)
    return [found, *torch.autograd.grad(found.square().sum(), [features, *module.parameters()])]


@pytest.mark.parametrize("size", [(7, 9), (1, 5), (1, 1)])
@pytest.mark.parametrize("name", GATES)
def test_a_channels_last_map_stays_one_with_the_same_values(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    module, features = GATES[name]().double(), torch.randn(6, 16, *size, dtype=torch.float64)
    for expected, found in zip(
        *(in_layout(module, features, each) for each in (torch.contiguous_format, LAST)), strict=True
    ):
        torch.testing.assert_close(found, expected)
