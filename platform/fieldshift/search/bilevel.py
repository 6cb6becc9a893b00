"""The gradient of the outer problem: min over alpha of L_val(w*(alpha), alpha), w*(alpha) = argmin over w of L_train.

w* is replaced by w (first order) or by w after one more step on L_train (second order, DARTS eq. 7):
  w' = w - lr * (d/dw L_train(w, alpha) + decay * w + momentum)
  gradient = d/dalpha L_val(w', alpha) - lr * (d2/dalpha dw L_train(w, alpha)) . d/dw' L_val(w', alpha)
The product with the mixed second derivative is computed by finite differences (DARTS eq. 8) or exactly.

With several workers each has its part of the same batches: gradients are averaged where those of the whole batch are
needed (inner ones before the unrolled step, outer ones after it, alpha's at the end), so the result equals that of one
process. Unrolling locally and averaging once does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fieldshift.training.distributed import average_across_workers

LossOf = Callable[[Sequence[Tensor]], Tensor]  # the network's parameters -> a loss that also depends on alpha
STEP_OF_DIFFERENCES = 1e-2  # divided by the norm of the direction, as in DARTS


def outer_gradient(
    outer: LossOf,
    inner: LossOf,
    parameters: Sequence[Tensor],
    alphas: Sequence[Tensor],
    *,
    order: str = "first",
    lr: float = 0.0,
    momentum: Sequence[Tensor] = (),
    decay: float = 0.0,
) -> tuple[list[Tensor], Tensor]:
    """Returns (gradient of the outer loss with respect to each of `alphas`, that loss), averaged over workers.

    `outer` and `inner` give the losses on the alpha half and on the weight half for given network parameters, with a
    graph to alpha and, where they require gradients, to these; first order needs none to these. `lr`, `momentum` (the inner
    optimizer's buffers times its factor) and `decay` describe the inner step that second order unrolls; its gradient
    clipping is omitted. No argument is changed.
    """
    if order == "first":
        loss = outer(parameters)
        return _averaged(_gradients(loss, alphas), loss)
    start = [parameter.detach().requires_grad_() for parameter in parameters]
    exact = order == "second-exact"
    slope = _gradients(inner(start), start, graph=exact)
    whole = average_across_workers([each.detach() for each in slope])
    pushed = list(momentum) or [torch.zeros_like(each) for each in start]
    with torch.no_grad():
        ahead = [w - lr * (g + decay * w + m) for w, g, m in zip(start, whole, pushed, strict=True)]
    ahead = [each.requires_grad_() for each in ahead]
    loss = outer(ahead)
    outermost = _gradients(loss, [*ahead, *alphas])
    direction, direct = average_across_workers(outermost[: len(ahead)]), outermost[len(ahead) :]
    if exact:
        products = [(g * v).sum() for g, v in zip(slope, direction, strict=True)]
        mixed = _gradients(torch.stack(products).sum(), alphas)
    else:
        mixed = _by_differences(inner, start, alphas, direction)
    return _averaged([d - lr * m for d, m in zip(direct, mixed, strict=True)], loss)


def _averaged(gradients: Sequence[Tensor], loss: Tensor) -> tuple[list[Tensor], Tensor]:
    *whole, mean = average_across_workers([*gradients, loss.detach()])
    return whole, mean


def _by_differences(
    inner: LossOf, start: Sequence[Tensor], alphas: Sequence[Tensor], direction: Sequence[Tensor]
) -> list[Tensor]:
    length = torch.sqrt(sum((each.double() ** 2).sum() for each in direction))  # type: ignore[arg-type]
    step = STEP_OF_DIFFERENCES / length.clamp(min=1e-12)  # stays on the device: reading it would make the CPU wait
    high, low = ([(w + sign * step * v).detach() for w, v in zip(start, direction, strict=True)] for sign in (1, -1))
    with torch.random.fork_rng([step.device] if step.is_cuda else []):  # both sides with the same dropout
        above = _gradients(inner(high), alphas)
    below = _gradients(inner(low), alphas)
    return [(a - b) / (2 * step) for a, b in zip(above, below, strict=True)]


def _gradients(value: Tensor, inputs: Sequence[Tensor], graph: bool = False) -> list[Tensor]:
    """The gradient of `value` with respect to each input, zeros for inputs it does not depend on."""
    if not value.requires_grad:
        return [torch.zeros_like(each) for each in inputs]
    return list(torch.autograd.grad(value, list(inputs), create_graph=graph, materialize_grads=True))
