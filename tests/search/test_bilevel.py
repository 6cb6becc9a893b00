"""The outer gradient against problems whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fieldshift.search.bilevel import outer_gradient


def quadratic() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    root = draw(4, 4)
    return {
        "A": root @ root.T + torch.eye(4, dtype=torch.float64),
        "B": draw(4, 3),
        "w": draw(4),
        "a": draw(3),
        "t": draw(4),
    }


@pytest.mark.parametrize("order", ["second", "second-exact"])
@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.7, 0.1)])
def test_a_quadratic_problem_has_its_known_hyper_gradient(order: str, momentum: float, decay: float) -> None:
    """Inner: w'Aw/2 - w'Ba. Outer: |w - t|^2/2 + |a|^2. One step w' = w - lr (Aw - Ba + decay w + m): dw'/da = lr B."""
    p, lr = quadratic(), 0.1
    alpha = p["a"].clone().requires_grad_()
    buffer = momentum * torch.ones(4, dtype=torch.float64)
    gradients, loss = outer_gradient(
        lambda w: ((w[0] - p["t"]) ** 2).sum() / 2 + (alpha**2).sum(),
        lambda w: w[0] @ p["A"] @ w[0] / 2 - w[0] @ p["B"] @ alpha,
        [p["w"]],
        [alpha],
        order=order,
        lr=lr,
        momentum=[buffer],
        decay=decay,
    )
    ahead = p["w"] - lr * (p["A"] @ p["w"] - p["B"] @ p["a"] + decay * p["w"] + buffer)
    known = 2 * p["a"] + lr * p["B"].T @ (ahead - p["t"])
    torch.testing.assert_close(gradients[0], known, atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(loss, ((ahead - p["t"]) ** 2).sum() / 2 + (p["a"] ** 2).sum())


def test_first_order_is_the_plain_gradient() -> None:
    p = quadratic()
    alpha = p["a"].clone().requires_grad_()
    gradients, _ = outer_gradient(lambda w: (w[0].sum() * alpha).sum(), lambda _w: alpha.sum(), [p["w"]], [alpha])
    torch.testing.assert_close(gradients[0], p["w"].sum().expand(3))


def test_finite_differences_agree_with_the_exact_second_derivative_of_a_network() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    names, values = zip(*network.named_parameters(), strict=True)
    alpha = torch.randn(6, dtype=torch.float64, requires_grad=True)
    data = torch.randn(2, 20, 6, dtype=torch.float64)
    labels = torch.randint(3, (2, 20))

    def loss_on(part: int):
        def loss(w) -> Tensor:
            mixed = data[part] * alpha.softmax(0)
            logits = torch.func.functional_call(network, dict(zip(names, w, strict=True)), (mixed,))
            return nn.functional.cross_entropy(logits, labels[part])

        return loss

    found = {
        order: outer_gradient(loss_on(0), loss_on(1), values, [alpha], order=order, lr=0.5)[0][0]
        for order in ("first", "second", "second-exact")
    }
    torch.testing.assert_close(found["second"], found["second-exact"], atol=1e-6, rtol=1e-4)
    assert (found["first"] - found["second-exact"]).abs().max() > 1e-4


def test_both_sides_of_the_differences_drop_the_same_units() -> None:
    """The derivative of one random network, not the difference of two: exact where the loss is of second degree."""
    alpha = torch.tensor([0.3, -0.2], requires_grad=True)
    w = torch.arange(1.0, 401.0).remainder(7).requires_grad_()
    masks = []

    def inner(v) -> Tensor:
        masks.append(nn.functional.dropout(torch.ones(400), 0.5))
        return (masks[-1] * v[0] * alpha.sum()).sum()

    outer_gradient(lambda v: (v[0] * v[0]).sum() * alpha.sum(), inner, [w], [alpha], order="second", lr=0.1)
    step, above, below = masks
    assert torch.equal(above, below)
    assert not torch.equal(step, above)


def test_a_loss_without_alpha_has_a_gradient_of_zero() -> None:
    alpha = torch.ones(2, requires_grad=True)
    w = torch.ones(2)
    for order in ("second", "second-exact"):
        gradients, _ = outer_gradient(
            lambda v: v[0].square().sum(), lambda v: v[0].pow(3).sum(), [w], [alpha], order=order, lr=0.1
        )
        assert torch.equal(gradients[0], torch.zeros(2))
