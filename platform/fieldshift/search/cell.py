"""The cell of a search: alpha and the decisions, and the video of a cell whose edges mix their operations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldshift.folding import AnyPolicy
from fieldshift.motions import COLOURS, Policy, distances
from fieldshift.motions.warp import padding_of
from fieldshift.search.derivation import build_policy, strongest
from fieldshift.search.magnitudes import Magnitudes
from fieldshift.search.mixture import from_slab, to_slab
from fieldshift.search.nodes import Geometry, Pairs, geometry_of, node_value
from fieldshift.search.space import Space
from fieldshift.tensor_cache import constant, index


class Cell(nn.Module):
    """The outer parameters and the decisions of a search in a space, for either form of the motions in the network.

    `edges` gives (source, target) of each of E edges, `edge_names` their names in logs. `alpha` (E, O) are the outer
    parameters, initialised at 1e-3 * randn; `magnitudes` are drawn, learned or given by the grid. All random draws depend
    on `seed` alone. `decided` is an edge's operation once it is chosen, `kept` whether the edge is still in the cell.
    """

    def __init__(self, space: Space, frames: int, seed: int, edges: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.space, self.frames = space, frames
        self.operations, self.edges = space.operations, tuple(edges)
        self.edge_names = tuple(f"edge {source}->{target}" for source, target in self.edges)
        generator = torch.Generator().manual_seed(seed)
        self.alpha = nn.Parameter(1e-3 * torch.randn(len(self.edges), len(self.operations), generator=generator))
        self.magnitudes = Magnitudes(space, generator, len(self.edges))
        self.decided: list[int | None] = [None] * len(self.edges)
        self.kept: list[bool] = [True] * len(self.edges)
        self._decided_policy: tuple[object, AnyPolicy | None] = (None, None)

    @property
    def outer_parameters(self) -> list[nn.Parameter]:
        """The parameters of the outer problem: alpha, and the magnitudes if they are learned."""
        return [self.alpha, *(each for each in self.magnitudes.parameters() if each.requires_grad)]

    @property
    def is_decided(self) -> bool:
        """Whether every kept edge has exactly one operation."""
        return all(choice is not None for choice, kept in zip(self.decided, self.kept, strict=True) if kept)

    def weights(self, noise: int | None = None, temperature: float = 1.0) -> Float[Tensor, "edges operations"]:
        """The mixture weights: softmax of alpha, or with `noise` (a seed) a Gumbel straight-through sample of it.

        Decided edges are one-hot; edges that are no longer kept are zero.
        """
        soft = self.alpha.softmax(-1)
        if noise is not None:
            uniform = torch.rand(self.alpha.shape, generator=torch.Generator().manual_seed(noise))
            gumbel = -(-uniform.clamp(1e-7, 1 - 1e-7).log()).log()
            gumbel = gumbel.to(device=soft.device, dtype=soft.dtype, non_blocking=True)
            soft = ((self.alpha + gumbel) / temperature).softmax(-1)
            hard = torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1.0)
            soft = hard + (soft - soft.detach())
        fixed = self.fixed_edges
        if not fixed:
            return soft
        count = soft.shape[1]
        one_hot = tuple(float(self.kept[e] and o == self.decided[e]) for e in fixed for o in range(count))
        rows = constant(one_hot, soft.dtype, soft.device).view(-1, count)
        return soft.index_copy(0, index(fixed, soft.device), rows)

    @property
    def fixed_edges(self) -> tuple[int, ...]:
        """The edges whose alpha has no effect on the weights: those with a decision, and those that are not kept."""
        return tuple(e for e, choice in enumerate(self.decided) if choice is not None or not self.kept[e])

    @contextmanager
    def fixed_alpha_kept(self) -> Iterator[None]:
        """Restores the alpha of fixed edges after a step of its optimizer, whose weight decay would reduce it to 0."""
        if not self.fixed_edges:
            yield
            return
        rows = index(self.fixed_edges, self.alpha.device)
        held = self.alpha.detach()[rows]
        yield
        with torch.no_grad():
            self.alpha.index_copy_(0, rows, held)

    def live_operations(self, weights: Float[Tensor, "edges operations"]) -> list[list[int]]:
        """The operations of each edge that need computing: those with weight, or all of an open edge if a gradient is needed.

        Values on a device are not read, which would make the CPU wait for it: all operations of open edges are then computed,
        and the decided one of the others, as `weights` has them.
        """
        every = list(range(len(self.operations)))
        edges = list(zip(self.decided, self.kept, strict=True))
        if not weights.is_cpu:
            return [[] if not kept else every if choice is None else [choice] for choice, kept in edges]
        wanted = torch.is_grad_enabled() and weights.requires_grad
        live = []
        for row, (choice, kept) in zip((weights.detach() != 0).tolist(), edges, strict=True):
            # An operation without weight (of a perturbed edge) is included: the cached taps then stay the same.
            whole = kept and choice is None and (wanted or sum(row) != 1)
            live.append([o for o in every if row[o] or whole])
        return live

    def derived(self, edges_per_node: int) -> tuple[list[int], list[bool]]:
        """The choices by the largest weights now: an operation for every edge, and which edges are kept."""
        return strongest(self.space, self.weights().detach().cpu(), self.kept, edges_per_node)

    def to_policy(
        self, found: dict[str, Any], choices: Sequence[int] | None = None, kept: Sequence[bool] | None = None
    ) -> AnyPolicy:
        """The policy of the decided operations and kept edges, or of the given ones; without nodes that miss the output."""
        if choices is None:
            choices = [0 if choice is None else choice for choice in self.decided]
            assert self.is_decided, "an edge without a decision has no policy; give choices"
        return self.policy_of(choices, kept or self.kept, self.magnitudes().detach().cpu(), found)

    def decided_policy(self) -> AnyPolicy:
        """The policy of a decided cell, computed once, as reading magnitudes makes the CPU wait for the device."""
        key = (tuple(self.decided), tuple(self.kept))
        known, policy = self._decided_policy
        if policy is None or known != key:
            policy = self.to_policy({})
            self._decided_policy = key, policy
        return policy

    @abstractmethod
    def policy_of(
        self, choices: Sequence[int], kept: Sequence[bool], magnitudes: Tensor, found: dict[str, Any]
    ) -> AnyPolicy:
        """The policy of one operation per edge, with magnitudes (E, O, S)."""


class RelaxedCell(Cell):
    """The cell of a space: an edge's value is the weighted sum of its operations, a node's value the mean of its edges.

    Departures [D]: a node is the mean of its edges, not their sum. While edges are undecided, a chain of motions is
    resampled at each node; a decided cell is rendered by its `Policy`, which samples once, as everywhere else.
    """

    def __init__(self, space: Space, frames: int, seed: int) -> None:
        super().__init__(space, frames, seed, space.edges)
        values = distances(frames, space.reference, space.symmetric)
        self._distinct, back = torch.unique(values, return_inverse=True)
        self._back = tuple(back.tolist())
        self._geometries: dict[tuple[int, int], Geometry] = {}

    def video(
        self,
        images: Float[Tensor, "batch channels H W"],
        weights: Float[Tensor, "edges operations"] | None = None,
        known: Sequence[Tensor] = (),
    ) -> Float[Tensor, "batch frames channels H W"]:
        """The output node's video of images in [0, 1], differentiable in the weights (and in learned magnitudes).

        `weights` default to `self.weights()`; a decided cell without other weights uses its policy's single sampling.
        `known` are the slabs of the first nodes from `node_slabs`, if they have not changed.
        """
        if weights is None and self.is_decided:
            policy = self.decided_policy()
            assert isinstance(policy, Policy)
            return policy.video(images)
        slabs = self.node_slabs(images, self.weights() if weights is None else weights, known)
        video = from_slab(slabs[-1], len(images)) + self._background(images)[:, None]
        return video[:, index(self._back, video.device)] if len(self._distinct) < self.frames else video

    def node_slabs(
        self,
        images: Float[Tensor, "batch channels H W"],
        weights: Float[Tensor, "edges operations"],
        known: Sequence[Tensor] = (),
    ) -> list[Tensor]:
        """The slabs (see `mixture`) of the image and of every intermediate node, minus the background."""
        background = self._background(images)
        slabs = list(known) or [to_slab(images - background)]
        geometry = self._geometry((int(images.shape[-2]), int(images.shape[-1])))
        fill = padding_of(self.space.fill)
        first = self.space.inputs
        live = self.live_operations(weights)
        for node in range(first + len(slabs) - 1, first + self.space.nodes):
            incoming = [e for e, (_, target) in enumerate(self.edges) if target == node and self.kept[e]]
            by_slab: dict[int, Pairs] = {}
            for e in incoming:
                by_slab.setdefault(max(0, self.edges[e][0] - first + 1), []).extend((e, o) for o in live[e])
            if not incoming:  # no path to the output starts from a node without edges
                slabs.append(torch.zeros_like(slabs[0]))
                continue
            share = weights / len(incoming)
            slabs.append(
                node_value(
                    by_slab,
                    slabs,
                    share,
                    geometry=geometry,
                    operations=self.operations,
                    fill=fill,
                    background=background,
                    dark=self.space.fill != "mean" and (isinstance(self.space.fill, str) or not any(self.space.fill)),
                )
            )
        return slabs

    def flops(self, size: tuple[int, int], channels: int) -> int:
        """Floating-point operations per image of all mixtures: four taps per sampled pixel and operation of an edge.

        Content that does not move is added once per edge and frame; a colour change counts as the sampling of its operation.
        """
        still = self._geometry(size).still_on_host  # (E, O, F)
        moving = sum(not each for operations in still for frames in operations for each in frames)
        moving += sum(step in COLOURS for operation in self.operations for step in operation.steps) * len(self.edges)
        return 2 * size[0] * size[1] * channels * (4 * moving + len(self.edges) * len(self._distinct))

    def slabs_before(self, edge: int) -> int:
        """Number of slabs, including the image's, that do not depend on this edge."""
        return self.edges[edge][1] - self.space.inputs + 1

    def policy_of(
        self, choices: Sequence[int], kept: Sequence[bool], magnitudes: Tensor, found: dict[str, Any]
    ) -> Policy:
        """The policy of one operation per edge, with magnitudes (E, O, S)."""
        return build_policy(self.space, self.frames, choices, kept, magnitudes=magnitudes, found=found)

    def _background(self, images: Tensor) -> Float[Tensor, "batch channels 1 1"]:
        """The background outside each image; slabs contain the difference to it."""
        fill, shape = self.space.fill, (*images.shape[:2], 1, 1)
        if fill == "mean":
            return images.mean((-2, -1), keepdim=True)
        values = (0.0,) if isinstance(fill, str) else fill
        return constant(values, images.dtype, images.device).view(1, -1, 1, 1).expand(shape)

    def _geometry(self, size: tuple[int, int]) -> Geometry:
        if size not in self._geometries or self.magnitudes.are_learned:
            self._geometries[size] = geometry_of(
                self.operations, self.magnitudes(), self._distinct, size, learned=self.magnitudes.are_learned
            )
        return self._geometries[size]
