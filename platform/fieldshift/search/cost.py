"""The cost of a search: image passes counted while it runs, and the corresponding operations."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fieldshift.data import DataSet
from fieldshift.search.supernet import AnySupernet, FoldedSupernet
from fieldshift.training.cost import BACKWARD_FACTOR, network_cost

# A forward pass counts 1, and so does each gradient, with respect to a layer's input and to its weights. Alpha's first-order
# step needs only the former: 2. Second order computes one gradient of weights and alpha on each half and two of alpha alone:
# 3 + 3 + 2 * 2. The exact one differentiates through the gradient on the weight half instead: 3 + 3 + 5.
ALPHA_FACTORS = {"first": 2, "second": 10, "second-exact": 11}


@dataclass(kw_only=True)
class SearchCost:
    """Image passes of a search through its supernet, over all workers.

    Attributes:
        flops: floating-point operations of one forward pass for an image, with the mixture of all operations.
        order: of alpha's gradient, which determines the cost of a step of alpha.
        weights: images in the network's steps.
        alpha: images in alpha's steps, those of its own half.
        scored: images in forward passes only, over all variants compared by decisions.
    """

    flops: int
    order: str
    weights: int = 0
    alpha: int = 0
    scored: int = 0

    @property
    def operations(self) -> int:
        """All floating-point operations: forward passes, and for each step the backward passes that it needs."""
        return self.flops * (BACKWARD_FACTOR * self.weights + ALPHA_FACTORS[self.order] * self.alpha + self.scored)

    def record(self) -> dict[str, Any]:
        """Counts and operations as stored in policies and results."""
        return {**asdict(self), "operations": self.operations}


def forward_flops(supernet: AnySupernet, dataset: DataSet) -> int:
    """Floating-point operations of one image of the data set through the supernet of an undecided cell."""
    network, size = supernet.network, (dataset.size[0], dataset.size[1])
    if isinstance(supernet, FoldedSupernet):
        with supernet.cell.shown(None, False):
            return network_cost(network, 1, dataset.channels, size).flops
    plain = network_cost(network, network.frames, dataset.channels, size).flops
    return plain + supernet.cell.flops(size, dataset.channels)
