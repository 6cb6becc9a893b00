"""The cell of the folded form: at every place of the network, moved channels are a mixture of the operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fieldshift.errors import UserError
from fieldshift.folding import AnyPolicy, SampledTaps, motions_of, move_by, sampled_taps
from fieldshift.motions.matrices import neighbour_distances
from fieldshift.motions.warp import padding_of
from fieldshift.networks import Placement, VideoNetwork
from fieldshift.networks.cells import Cells
from fieldshift.networks.folded import Motion
from fieldshift.networks.movement import Layout, Movement, Taps, map_of, row_sums, rows_of
from fieldshift.search.cell import Cell
from fieldshift.search.derivation import build_policy, placed_policy
from fieldshift.search.nodes import forward_matrices
from fieldshift.search.space import Space
from fieldshift.tensor_cache import TensorCache, constant, index

CACHE_BYTES = 2**30  # limit for one cell's taps
SIDES = 2  # the next frame and the previous one


def units_of(space: Space, places: Sequence[str], stages: Sequence[str]) -> list[tuple[str, ...]]:
    """Groups the places of a network that share a motion in this space: all, those of a stage, or each separately.

    A place outside all stages forms its own unit.
    """
    if space.per == "network":
        return [tuple(places)]
    units: dict[str, list[str]] = {}
    for place in places:
        inside = [stage for stage in stages if place == stage or place.startswith(f"{stage}.")]
        name = max(inside, key=len) if inside and space.per == "stage" else place
        units.setdefault(name, []).append(place)
    return [tuple(unit) for unit in units.values()]


class FoldedCell(Cell):
    """The cell of a space inside a network: its edges move channels like the frames next to the reference.

    In a space with one motion the edges are those of its graph, the same at every place; a node is the mean of its edges.
    Otherwise an edge is the motion of one unit of places (the network, a stage or a place) and one group of channels.
    A decided cell moves channels by its policy, as everywhere else. Raises UserError for a space with colour changes.
    """

    def __init__(
        self, space: Space, frames: int, seed: int, placements: Sequence[Placement], stages: Sequence[str]
    ) -> None:
        if space.colours:
            raise UserError(
                f"The space {space.name} has colour changes ({', '.join(space.colours)}), but the folded form moves "
                "features, which have no colours; choose another space or the form video."
            )
        self.placements, self.places = tuple(placements), tuple(placement.path for placement in placements)
        self.units = units_of(space, self.places, stages)
        self._unit_at = [
            next(number for number, unit in enumerate(self.units) if place in unit) for place in self.places
        ]
        count = len(self.units) * space.groups
        super().__init__(space, frames, seed, space.edges if not space.is_placed else space.edges * count)
        if space.is_placed:
            groups = [f" group {number + 1}" for number in range(space.groups)] if space.groups > 1 else [""]
            named = [unit[0] if len(unit) == 1 else f"{unit[0]} to {unit[-1]}" for unit in self.units]
            self.edge_names = tuple(f"place {places}{group}" for places in named for group in groups)
        self._distances = neighbour_distances(frames, space.reference, space.symmetric)
        self._shown: Tensor | None = None
        self._live: list[list[int]] = []
        self._learns = False
        self._sampled: TensorCache[SampledTaps] = TensorCache(CACHE_BYTES)
        self._motions: tuple[AnyPolicy | None, Sequence[Motion]] = (None, ())

    def attach(self, network: VideoNetwork) -> None:
        """Makes the places of a folded network move channels by this cell; raises UserError if its groups do not fit."""
        move_by(network, lambda placements: [PlaceMotion(self, place) for place in range(len(placements))])

    @contextmanager
    def shown(self, weights: Tensor | None, learns: bool) -> Iterator[None]:
        """Within the block, the places mix by these weights; None uses the policy of a decided cell."""
        before = self._shown, self._live, self._learns
        if weights is None and not self.is_decided:
            weights = self.weights() if learns else self.weights().detach()
        self._shown, self._learns = weights, learns and torch.is_grad_enabled()
        self._live = [] if weights is None else self.live_operations(weights)
        try:
            yield
        finally:
            self._shown, self._live, self._learns = before

    def policy_of(
        self, choices: Sequence[int], kept: Sequence[bool], magnitudes: Tensor, found: dict[str, Any]
    ) -> AnyPolicy:
        """The policy of one operation per edge, with magnitudes (E, O, S): one graph, or a motion per unit and group."""
        if not self.space.is_placed:
            return build_policy(self.space, self.frames, choices, kept, magnitudes=magnitudes, found=found)
        return placed_policy(self.space, self.frames, self.units, choices, magnitudes, found)

    def movement(self, place: int, size: tuple[int, int], like: Tensor, cells: Cells | None = None) -> Movement:
        """The current movement of channels at one place, for maps of that size, whose rounded number of cells is `cells`."""
        weights = self._shown
        if weights is None:
            return self._decided_motions()[place](size, like, cells)
        space, live = self.space, self._live
        if space.is_placed or len(self.edges) == 1:
            unit = self._unit_at[place]
            edges = tuple(range(unit * space.groups, (unit + 1) * space.groups))
            taps, numbers = self._taps(edges, tuple(tuple(live[e]) for e in edges), size, weights, like, cells)
            shares = weights[index(edges, weights.device)].sum(-1).repeat(SIDES) if space.fill == "mean" else None
            return Movement(
                size=size, blocks=SIDES * len(edges), taps=taps, weights=numbers, fill_mean=space.fill == "mean",
                shares=shares,
            )  # fmt: skip
        incoming = [
            [
                (e, self.edges[e][0])
                for e in range(len(self.edges))
                if self.edges[e][1] == node and self.kept[e] and live[e]
            ]
            for node in range(space.inputs, space.inputs + space.nodes)
        ]
        parts = {
            e: self._taps((e,), (tuple(live[e]),), size, weights, like, cells) for node in incoming for e, _ in node
        }
        first = next(iter(parts.values()))
        return GraphMovement(
            size=size, blocks=SIDES, taps=first[0], weights=first[1], fill_mean=space.fill == "mean", parts=parts,
            incoming=incoming, inputs=space.inputs,
            totals=[
                weights[index(tuple(e for e, _ in node), weights.device)].sum() / max(1, len(node))
                for node in incoming if space.fill == "mean"
            ],
        )  # fmt: skip

    def _taps(
        self,
        edges: tuple[int, ...],
        live: tuple[tuple[int, ...], ...],
        size: tuple[int, int],
        weights: Float[Tensor, "edges operations"],
        like: Tensor,
        cells: Cells | None,
    ) -> tuple[Taps, Tensor]:
        """The taps of some edges' mixtures, one group of channels each, and their weights (N,)."""
        pairs = [(side, e, o) for side in range(SIDES) for e, own in zip(edges, live, strict=True) for o in own]
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32

        def computed() -> SampledTaps:
            distances = constant(tuple(self._distances.tolist()), self._distances.dtype, like.device)
            forward = forward_matrices(self.operations, self.magnitudes(), distances, cells.image if cells else size)
            forward = cells.matrices(forward) if cells else forward
            side, e, o = (index(each, like.device) for each in zip(*pairs, strict=True))
            blocks = [side * len(edges) + edges.index(e) for side, e, _ in pairs]
            fill = padding_of(self.space.fill)
            return sampled_taps(
                forward[e, o, side],
                blocks,
                SIDES * len(edges),
                size,
                fill,
                "bilinear",
                fixed=not self.magnitudes.are_learned,
            )

        if self.magnitudes.are_learned:
            with torch.set_grad_enabled(self._learns):
                found = computed()
        else:
            found = self._sampled.get((edges, live, size, cells, like.device), computed)
        count = len(self.operations)
        mixed = weights.flatten()[index(tuple(e * count + o for _, e, o in pairs), weights.device)].to(dtype)
        return found.taps, found.shares.to(dtype) * mixed[found.warps]

    def _decided_motions(self) -> Sequence[Motion]:
        """The motions of the decided cell's policy, at all places."""
        policy = self.decided_policy()
        if self._motions[0] is not policy:
            self._motions = policy, motions_of(policy)(self.placements)
        return self._motions[1]


@dataclass(frozen=True)
class PlaceMotion:
    """The current motion of one place of a network in the cell. Copies of the network share the cell."""

    cell: FoldedCell
    place: int

    @property
    def groups(self) -> int:
        return self.cell.space.groups

    def __str__(self) -> str:
        return "searched"

    def __call__(self, size: tuple[int, int], like: Tensor, cells: Cells | None = None) -> Movement:
        return self.cell.movement(self.place, size, like, cells)

    def __deepcopy__(self, memo: object) -> PlaceMotion:
        return self


@dataclass(frozen=True, kw_only=True)
class GraphMovement(Movement):
    """The movement of a graph of several edges: each node is the mean of its edges' sums.

    `parts` are the taps and weights of each edge, `incoming` the (edge, source) pairs of each intermediate node, `totals`
    the sum of the weights of each node, for the fill "mean".
    """

    parts: Mapping[int, tuple[Taps, Tensor]]
    incoming: Sequence[Sequence[tuple[int, int]]]
    inputs: int
    totals: Sequence[Float[Tensor, ""]]

    def added(self, features: Float[Tensor, "batch channels H W"], width: int) -> Tensor:
        moved = self._through_nodes(features[:, :width].to(self.weights.dtype), None).to(features.dtype)
        return torch.cat([moved, features[:, width:]], dim=1)

    def _filled(self, moved: Tensor, sums: Callable[[Tensor], Tensor]) -> Tensor:
        if not self.fill_mean:
            return sums(moved)
        outside = moved.mean((2, 3), keepdim=True)
        return self._through_nodes(moved - outside, rows_of(outside.expand_as(moved), self.blocks)) + outside

    def _through_nodes(self, moved: Tensor, outside: Float[Tensor, "rows numbers"] | None) -> Tensor:
        """The output node's map; with `outside`, the background, all values are differences to it."""
        table = rows_of(moved, self.blocks)
        values = [table] * self.inputs
        for node, edges in enumerate(self.incoming):
            sums = [row_sums(values[source], self.parts[e][1] / len(edges), self.parts[e][0]) for e, source in edges]
            value = sum(sums[1:], start=sums[0]) if sums else torch.zeros_like(table)
            values.append(value if outside is None else value + (self.totals[node] - 1).to(outside) * outside)
        return map_of(values[-1], Layout.of(moved), self.blocks)

    def flops(self, width: int) -> int:
        """Floating-point operations per image for `width` moved channels, over all edges."""
        return sum(2 * len(taps.rows) * (width // self.blocks) for taps, _ in self.parts.values())

    def gathered(self, moved: Float[Tensor, "batch width H W"]) -> Tensor:  # noqa: ARG002 - as in Movement
        """Raises UserError: a mixture exists only in a search, which is never traced."""
        raise UserError("The mixture of a search cannot be traced; export or compile a network with a policy instead.")
