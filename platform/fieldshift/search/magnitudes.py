"""The magnitudes of each edge's motions: drawn once, learned, or given by a grid."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldshift.motions import MOTIONS
from fieldshift.search.space import Space

DIGITS = 4  # of a frozen magnitude, so that a policy file is short and matches the search exactly
EDGE_OF_RANGE = 0.02


class Magnitudes(nn.Module):
    """The magnitudes (E, O, S) of every edge, operation and step of an operation, in the steps' units, float64.

    Drawn uniformly from their ranges and frozen; if learned, the draw is the initial value and a sigmoid over the range
    keeps them inside. If the space gives a grid, its values are used.

    Departure [D]: motions whose neutral magnitude is 1 (factors) are drawn log-uniformly, so that shrinking
    is as likely as growing.
    """

    low: Tensor
    high: Tensor
    factor: Tensor

    def __init__(self, space: Space, generator: torch.Generator, edges: int) -> None:
        super().__init__()
        operations = space.operations
        steps = max(len(operation.steps) for operation in operations)
        bounds = torch.zeros(2, len(operations), steps, dtype=torch.float64)
        factor = torch.zeros(len(operations), steps, dtype=torch.bool)
        for o, operation in enumerate(operations):
            for k, (name, fixed) in enumerate(zip(operation.steps, operation.magnitudes, strict=True)):
                bounds[:, o, k] = torch.tensor(space.range_of(name) if fixed is None else (fixed, fixed)).double()
                factor[o, k] = name in MOTIONS and MOTIONS[name].neutral == 1 and fixed is None
        bounds = torch.where(factor, torch.where(factor, bounds, 1.0).log(), bounds)
        self.are_learned = space.magnitudes == "learned"
        drawn = torch.rand(edges, *factor.shape, generator=generator, dtype=torch.float64)
        position = torch.logit(drawn.clamp(EDGE_OF_RANGE, 1 - EDGE_OF_RANGE)) if self.are_learned else drawn
        for buffer, value in (("low", bounds[0]), ("high", bounds[1]), ("factor", factor)):
            self.register_buffer(buffer, value, persistent=False)
        self.position = nn.Parameter(position, requires_grad=self.are_learned)

    def forward(self) -> Float[Tensor, "edges operations steps"]:
        share = self.position.sigmoid() if self.are_learned else self.position
        values = self.low + (self.high - self.low) * share
        values = torch.where(self.factor, torch.where(self.factor, values, 0.0).exp(), values)
        return values if self.are_learned else values.detach().round(decimals=DIGITS)
