"""What a search costs: image passes counted while it runs, and the operations that they come to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fieldshift.data import DataSet
from fieldshift.search.supernet import AnySupernet, FoldedSupernet
from fieldshift.training.cost import BACKWARD_FACTOR, network_cost

# A forward pass is 1, and as much each gradient, to what a layer reads and to its weights. Alpha's first-order step needs the
# former alone: 2. Second order takes one gradient of weights and alpha on each half and two of alpha alone: 3 + 3 + 2 * 2. The
# exact one goes back through the gradient on the weight half instead: 3 + 3 + 5.
ALPHA_FACTORS = {"first": 2, "second": 10, "second-exact": 11}


@dataclass(kw_only=True)
class SearchCost:
    """Image passes of a search through its supernet, over all workers.

    Attributes:
        flops: floating-point operations of one image forward, the mixture counted with every candidate.
        order: of alpha's gradient, which decides what a step of alpha costs.
        weights: images of the network's steps.
        alpha: images of alpha's steps, those of its own half.
        scored: images forward only, over all variants that decisions compared.
    """

    flops: int
    order: str
    weights: int = 0
    alpha: int = 0
    scored: int = 0

    @property
    def operations(self) -> int:
        """All floating-point operations: forward passes, each of a step with as many backwards as it needs."""
        return self.flops * (BACKWARD_FACTOR * self.weights + ALPHA_FACTORS[self.order] * self.alpha + self.scored)

    def record(self) -> dict[str, Any]:
        """Counts and operations as policies and results keep them."""
        return {**asdict(self), "operations": self.operations}


def forward_flops(supernet: AnySupernet, dataset: DataSet) -> int:
    """Floating-point operations of one image of the data set through the supernet of an undecided cell."""
    network, size = supernet.network, (dataset.size[0], dataset.size[1])
    if isinstance(supernet, FoldedSupernet):
        with supernet.cell.shown(None, False):
            return network_cost(network, 1, dataset.channels, size).flops
    plain = network_cost(network, network.frames, dataset.channels, size).flops
    return plain + supernet.cell.flops(size, dataset.channels)
