"""The relaxed cell: a directed acyclic graph over videos whose every edge is a mixture of its options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldshift.kept import constant, index
from fieldshift.motions import Policy, distances
from fieldshift.search.derivation import build_policy, strongest
from fieldshift.search.magnitudes import Magnitudes
from fieldshift.search.mixture import from_slab, to_slab
from fieldshift.search.nodes import Geometry, Pairs, geometry_of, node_value
from fieldshift.search.space import Space


class RelaxedCell(nn.Module):
    """The cell of a space: an edge's value is the weighted sum of its options, a node's value the mean of its edges.

    `alpha` (E, O) are the outer parameters, 1e-3 * randn at the start; `magnitudes` are drawn, learned or given by the
    grid. Everything drawn depends on `seed` alone. `decided` holds an edge's option once it is chosen, `kept` whether
    the edge is still in the cell.

    Departures [D]: a node is the mean of its edges, not their sum. While edges are undecided, a chain of motions is
    sampled anew at each node; a decided cell is rendered by its `Policy`, which samples once, as everywhere else.
    """

    def __init__(self, space: Space, frames: int, seed: int) -> None:
        super().__init__()
        self.space = space
        self.frames = frames
        self.options = space.options
        self.edges = space.edges
        generator = torch.Generator().manual_seed(seed)
        self.alpha = nn.Parameter(1e-3 * torch.randn(len(self.edges), len(self.options), generator=generator))
        self.magnitudes = Magnitudes(space, generator)
        self.decided: list[int | None] = [None] * len(self.edges)
        self.kept: list[bool] = [True] * len(self.edges)
        values = distances(frames, space.reference, space.symmetric)
        self._distinct, back = torch.unique(values, return_inverse=True)
        self._back = tuple(back.tolist())
        self._geometries: dict[tuple[int, int], Geometry] = {}

    @property
    def outer_parameters(self) -> list[nn.Parameter]:
        """What the outer problem learns: alpha, and the magnitudes where they are learned."""
        return [self.alpha, *(each for each in self.magnitudes.parameters() if each.requires_grad)]

    @property
    def is_decided(self) -> bool:
        """Whether every kept edge has one option."""
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

    def video(
        self,
        images: Float[Tensor, "batch channels H W"],
        weights: Float[Tensor, "edges options"] | None = None,
        known: Sequence[Tensor] = (),
    ) -> Float[Tensor, "batch frames channels H W"]:
        """The output node's video of images in [0, 1], differentiable in the weights (and in learned magnitudes).

        `weights` default to `self.weights()`; a decided cell without other weights takes its policy's single sampling.
        `known` are the slabs of the first nodes, as `node_slabs` gives them, where they have not changed.
        """
        if weights is None and self.is_decided:
            return self.to_policy({}).video(images)
        slabs = self.node_slabs(images, self.weights() if weights is None else weights, known)
        video = from_slab(slabs[-1], len(images)) + self._background(images)[:, None]
        return video[:, index(self._back, video.device)] if len(self._distinct) < self.frames else video

    def node_slabs(
        self,
        images: Float[Tensor, "batch channels H W"],
        weights: Float[Tensor, "edges options"],
        known: Sequence[Tensor] = (),
    ) -> list[Tensor]:
        """The slabs (see `mixture`) of the image and of every intermediate node, less what lies outside the image."""
        background = self._background(images)
        slabs = list(known) or [to_slab(images - background)]
        geometry = self._geometry((int(images.shape[-2]), int(images.shape[-1])))
        fill = self.space.fill if self.space.fill in ("border", "reflection") else "zeros"
        first = self.space.inputs
        live = self._live(weights)
        for node in range(first + len(slabs) - 1, first + self.space.nodes):
            incoming = [e for e, (_, target) in enumerate(self.edges) if target == node and self.kept[e]]
            by_slab: dict[int, Pairs] = {}
            for e in incoming:
                by_slab.setdefault(max(0, self.edges[e][0] - first + 1), []).extend((e, o) for o in live[e])
            if not incoming:  # nothing that reaches the output starts from a node without edges
                slabs.append(torch.zeros_like(slabs[0]))
                continue
            share = weights / len(incoming)
            slabs.append(
                node_value(
                    by_slab,
                    slabs,
                    share,
                    geometry=geometry,
                    options=self.options,
                    fill=str(fill),
                    background=background,
                    dark=self.space.fill != "mean" and (isinstance(self.space.fill, str) or not any(self.space.fill)),
                )
            )
        return slabs

    def slabs_before(self, edge: int) -> int:
        """How many slabs, the image's included, do not depend on this edge."""
        return self.edges[edge][1] - self.space.inputs + 1

    def derived(self, edges_per_node: int) -> tuple[list[int], list[bool]]:
        """What would be chosen by the largest weights now: an option for every edge and which edges are kept."""
        return strongest(self.space, self.weights().detach().cpu(), self.kept, edges_per_node)

    def to_policy(
        self, found: dict[str, Any], choices: Sequence[int] | None = None, kept: Sequence[bool] | None = None
    ) -> Policy:
        """The policy of the decided options and kept edges, or of the given ones; nodes that lead nowhere are out."""
        if choices is None:
            choices = [0 if choice is None else choice for choice in self.decided]
            assert self.is_decided, "an edge without a decision has no policy; give choices"
        values = self.magnitudes().detach().cpu()
        return build_policy(self.space, self.frames, choices, kept or self.kept, magnitudes=values, found=found)

    def _live(self, weights: Tensor) -> list[list[int]]:
        """The options of each edge that count: those with weight, all of an open edge where a gradient is wanted."""
        wanted = torch.is_grad_enabled() and weights.requires_grad
        live = []
        for e, row in enumerate((weights.detach() != 0).tolist()):
            is_open = self.kept[e] and self.decided[e] is None
            # One option without weight (a perturbed edge) is carried along: the taps that are kept stay the same.
            whole = is_open and (wanted or sum(row) > 1)
            live.append([o for o, counts in enumerate(row) if counts or whole])
        return live

    def _background(self, images: Tensor) -> Float[Tensor, "batch channels 1 1"]:
        """What lies outside of each image; slabs hold the difference to it."""
        fill, shape = self.space.fill, (*images.shape[:2], 1, 1)
        if fill == "mean":
            return images.mean((-2, -1), keepdim=True)
        values = (0.0,) if isinstance(fill, str) else fill
        return constant(values, images.dtype, images.device).view(1, -1, 1, 1).expand(shape)

    def _geometry(self, size: tuple[int, int]) -> Geometry:
        if size not in self._geometries or self.magnitudes.are_learned:
            self._geometries[size] = geometry_of(self.options, self.magnitudes(), self._distinct, size)
        return self._geometries[size]
