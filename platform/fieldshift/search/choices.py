"""The choices of a search: the mixture weights of every edge's options, and the decisions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldshift.folding import AnyPolicy
from fieldshift.kept import index
from fieldshift.search.derivation import strongest
from fieldshift.search.magnitudes import Magnitudes
from fieldshift.search.space import Space


class Choices(nn.Module):
    """The outer parameters of a search in a space, for either form of the motions in the network.

    `edges` gives (source, target) of each of E edges, `edge_names` their names in logs. `alpha` (E, O) are the outer
    parameters, initialised at 1e-3 * randn; `magnitudes` are drawn, learned or given by the grid. All random draws depend
    on `seed` alone. `decided` is an edge's option once it is chosen, `kept` whether the edge is still in the cell.
    """

    def __init__(self, space: Space, frames: int, seed: int, edges: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.space, self.frames = space, frames
        self.options, self.edges = space.options, tuple(edges)
        self.edge_names = tuple(f"edge {source}->{target}" for source, target in self.edges)
        generator = torch.Generator().manual_seed(seed)
        self.alpha = nn.Parameter(1e-3 * torch.randn(len(self.edges), len(self.options), generator=generator))
        self.magnitudes = Magnitudes(space, generator, len(self.edges))
        self.decided: list[int | None] = [None] * len(self.edges)
        self.kept: list[bool] = [True] * len(self.edges)

    @property
    def outer_parameters(self) -> list[nn.Parameter]:
        """The parameters of the outer problem: alpha, and the magnitudes if they are learned."""
        return [self.alpha, *(each for each in self.magnitudes.parameters() if each.requires_grad)]

    @property
    def is_decided(self) -> bool:
        """Whether every kept edge has exactly one option."""
        return all(choice is not None for choice, kept in zip(self.decided, self.kept, strict=True) if kept)

    def weights(self, noise: int | None = None, temperature: float = 1.0) -> Float[Tensor, "edges options"]:
        """The mixture weights: softmax of alpha, or with `noise` (a seed) a Gumbel straight-through sample of it.

        Decided edges are one-hot; edges that are no longer kept are zero.
        """
        soft = self.alpha.softmax(-1)
        if noise is not None:
            uniform = torch.rand(self.alpha.shape, generator=torch.Generator().manual_seed(noise))
            gumbel = -(-uniform.clamp(1e-7, 1 - 1e-7).log()).log()
            soft = ((self.alpha + gumbel.to(self.alpha)) / temperature).softmax(-1)
            hard = torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1.0)
            soft = hard + (soft - soft.detach())
        fixed = [e for e, choice in enumerate(self.decided) if choice is not None or not self.kept[e]]
        if not fixed:
            return soft
        rows = torch.zeros(len(fixed), soft.shape[1])
        for row, e in enumerate(fixed):
            choice = self.decided[e]
            if self.kept[e] and choice is not None:
                rows[row, choice] = 1.0
        return soft.index_copy(0, index(tuple(fixed), soft.device), rows.to(soft))

    def derived(self, edges_per_node: int) -> tuple[list[int], list[bool]]:
        """The choices by the largest weights now: an option for every edge, and which edges are kept."""
        return strongest(self.space, self.weights().detach().cpu(), self.kept, edges_per_node)

    def to_policy(
        self, found: dict[str, Any], choices: Sequence[int] | None = None, kept: Sequence[bool] | None = None
    ) -> AnyPolicy:
        """The policy of the decided options and kept edges, or of the given ones; without nodes that miss the output."""
        if choices is None:
            choices = [0 if choice is None else choice for choice in self.decided]
            assert self.is_decided, "an edge without a decision has no policy; give choices"
        return self.policy_of(choices, kept or self.kept, self.magnitudes().detach().cpu(), found)

    @abstractmethod
    def policy_of(
        self, choices: Sequence[int], kept: Sequence[bool], magnitudes: Tensor, found: dict[str, Any]
    ) -> AnyPolicy:
        """The policy of one option per edge, with magnitudes (E, O, S)."""

    def live_options(self, weights: Float[Tensor, "edges options"]) -> list[list[int]]:
        """The options of each edge that count: those with weight, or all of an open edge if a gradient is needed."""
        wanted = torch.is_grad_enabled() and weights.requires_grad
        live = []
        for e, row in enumerate((weights.detach() != 0).tolist()):
            is_open = self.kept[e] and self.decided[e] is None
            # One option without weight (a perturbed edge) is included: the cached taps then stay the same.
            whole = is_open and (wanted or sum(row) != 1)
            live.append([o for o, counts in enumerate(row) if counts or whole])
        return live
