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
    """The magnitudes (E, O, S) of every edge, option and motion of an option, in the motions' units, float64.

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
        options = space.options
        steps = max(len(option.ops) for option in options)
        bounds = torch.zeros(2, len(options), steps, dtype=torch.float64)
        factor = torch.zeros(len(options), steps, dtype=torch.bool)
        for o, option in enumerate(options):
            for k, (op, fixed) in enumerate(zip(option.ops, option.magnitudes, strict=True)):
                bounds[:, o, k] = torch.tensor(space.range_of(op) if fixed is None else (fixed, fixed)).double()
                factor[o, k] = op in MOTIONS and MOTIONS[op].neutral == 1 and fixed is None
        bounds = torch.where(factor, torch.where(factor, bounds, 1.0).log(), bounds)
        self.are_learned = space.magnitudes == "learned"
        drawn = torch.rand(edges, *factor.shape, generator=generator, dtype=torch.float64)
        place = torch.logit(drawn.clamp(EDGE_OF_RANGE, 1 - EDGE_OF_RANGE)) if self.are_learned else drawn
        for name, value in (("low", bounds[0]), ("high", bounds[1]), ("factor", factor)):
            self.register_buffer(name, value, persistent=False)
        self.place = nn.Parameter(place, requires_grad=self.are_learned)

    def forward(self) -> Float[Tensor, "edges options steps"]:
        share = self.place.sigmoid() if self.are_learned else self.place
        values = self.low + (self.high - self.low) * share
        values = torch.where(self.factor, torch.where(self.factor, values, 0.0).exp(), values)
        return values if self.are_learned else values.detach().round(decimals=DIGITS)
