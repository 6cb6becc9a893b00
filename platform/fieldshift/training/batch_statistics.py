"""BatchNorm over several workers: statistics of the whole batch instead of each worker's part.

torch.nn.SyncBatchNorm has no CPU implementation and no second derivative, which the search's exact second order needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fieldshift.errors import UserError
from fieldshift.training.distributed import is_distributed, sum_across_workers

SHARED_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _SumOverWorkers(torch.autograd.Function):
    """The sum over workers, whose gradient is the sum of their gradients: every loss depends on every worker's values."""

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        return sum_across_workers(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Stores nothing: the gradient does not depend on the values."""

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:  # noqa: ARG004 - torch's signature
        return _SumOverWorkers.apply(gradients[0].contiguous())


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """BatchNorm that normalises a training step by the mean and variance of all workers' parts together.

    Any shape (N, C, ...); the parts may differ in N. In evaluation, and in one process, it equals torch's BatchNorm. Output and
    running statistics equal those of one process with the whole batch, up to rounding. So do the gradients: of a loss that is
    a sum over images, added over workers; of one that is a mean, averaged over workers if all parts have the same N. Every
    worker must take part in every training step; one without images does so with any, `counted` off.
    """

    counted = True
    """Whether this worker's values are part of the statistics."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"BatchNorm expected (N, C, ...), received shape {tuple(input.shape)}.")

    def forward(self, input: Float[Tensor, "batch channels ..."]) -> Float[Tensor, "batch channels ..."]:
        if not (self.training and is_distributed()):
            return super().forward(input)
        self._check_input_dim(input)
        values = input if input.dtype == torch.float64 else input.float()
        over = (0, *range(2, input.dim()))
        shape = (1, -1, *(1 for _ in over[1:]))
        count = values.new_tensor([input.numel() / input.shape[1]])
        part = float(self.counted)
        total, count = _SumOverWorkers.apply(part * torch.cat([values.sum(over), count])).split([input.shape[1], 1])
        mean = total / count
        centred = values - mean.view(shape)
        squares = _SumOverWorkers.apply(part * centred.square().sum(over))
        self._keep(mean.detach(), squares.detach() / (count - 1).clamp(min=1))
        normalised = centred * (squares / count + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        whole: Tensor = normalised.to(input.dtype)
        return whole

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics towards those of this step."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean += share * (mean - self.running_mean)
        self.running_var += share * (variance - self.running_var)


def meets_others(network: nn.Module) -> bool:
    """Whether the network waits for the other workers in a training step, even if this one has no image."""
    return is_distributed() and any(isinstance(module, SynchronisedBatchNorm) for module in network.modules())


@contextmanager
def uncounted(network: nn.Module) -> Iterator[None]:
    """Within the block, the network's inputs are excluded from the shared statistics."""
    norms = [module for module in network.modules() if isinstance(module, SynchronisedBatchNorm)]
    for norm in norms:
        norm.counted = False
    try:
        yield
    finally:
        for norm in norms:
            norm.counted = True


def synchronise_batch_norm(network: nn.Module) -> None:
    """Makes every BatchNorm of the network share its statistics between workers, in place; names and tensors are unchanged.

    Raises UserError as `norms_to_synchronise`.
    """
    for module in norms_to_synchronise(network):
        # A new module in its place, as torch's convert_sync_batchnorm makes, would be missed by whoever refers to this one.
        module.__class__ = SynchronisedBatchNorm


def norms_to_synchronise(network: nn.Module) -> list[nn.Module]:
    """Every BatchNorm of the network. Raises UserError where there is none, and for a kind that is not torch's own."""
    norms = {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
    if not norms:
        raise UserError("sync_batch_norm is given, but the network has no BatchNorm; leave it out.")
    for name, module in norms.items():
        if type(module) not in (*SHARED_KINDS, SynchronisedBatchNorm):
            raise UserError(
                f"sync_batch_norm cannot share the statistics of {name} ({type(module).__name__}); leave it out, or use "
                "torch's own BatchNorm in that network."
            )
    return list(norms.values())
