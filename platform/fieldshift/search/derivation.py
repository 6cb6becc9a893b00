"""Derives policies from choices: the discrete cell at the end of a search, and random policies."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fieldshift.motions import Edge, Policy, Step
from fieldshift.motions.placed import PlacedMotion, PlacedPolicy
from fieldshift.search.magnitudes import Magnitudes
from fieldshift.search.space import Space


def incoming_edges(space: Space, node: int, kept: Sequence[bool]) -> list[int]:
    """The indices of the kept edges that lead into `node`."""
    return [e for e, (_, target) in enumerate(space.edges) if target == node and kept[e]]


def live_nodes(space: Space, kept: Sequence[bool]) -> list[int]:
    """The intermediate nodes that lead to the output over kept edges, the output first."""
    live: list[int] = []
    waiting = [space.inputs + space.nodes - 1]
    while waiting:
        node = max(waiting)
        waiting = [each for each in waiting if each != node]
        live.append(node)
        waiting += [space.edges[e][0] for e in incoming_edges(space, node, kept) if space.edges[e][0] >= space.inputs]
    return live


def strongest(
    space: Space, weights: Float[Tensor, "edges operations"], kept: Sequence[bool], edges_per_node: int
) -> tuple[list[int], list[bool]]:
    """The operation with the largest weight for every edge, and at each node the edges with the largest weights."""
    choices = [int(choice) for choice in weights.argmax(-1)]
    strength = weights.amax(-1).tolist()
    remaining = list(kept)
    for node in range(space.inputs, space.inputs + space.nodes):
        ranked = sorted(incoming_edges(space, node, kept), key=lambda e: -strength[e])
        for e in ranked[edges_per_node:]:
            remaining[e] = False
    return choices, remaining


def build_policy(
    space: Space,
    frames: int,
    choices: Sequence[int],
    kept: Sequence[bool],
    *,
    magnitudes: Float[Tensor, "edges operations steps"],
    found: dict[str, Any],
) -> Policy:
    """The policy of one operation per edge. Nodes that do not lead to the output are removed, the others renumbered."""
    live = sorted(live_nodes(space, kept))
    number = {node: node for node in range(space.inputs)} | {node: space.inputs + i for i, node in enumerate(live)}
    edges = []
    for node in live:
        for e in incoming_edges(space, node, kept):
            operation = space.operations[choices[e]]
            values = magnitudes[e, choices[e]].tolist()
            steps = tuple(
                Step(name, 0.0 if name == "identity" else round(value, 6))
                for name, value in zip(operation.steps, values, strict=False)
            )
            edges.append(Edge(number[space.edges[e][0]], number[node], steps))
    return Policy(
        inputs=space.inputs,
        nodes=len(live),
        edges=tuple(edges),
        frames=frames,
        reference=space.reference,
        symmetric=space.symmetric,
        fill=space.fill,
        found=found,
    )


def placed_policy(
    space: Space,
    frames: int,
    units: Sequence[tuple[str, ...]],
    choices: Sequence[int],
    magnitudes: Float[Tensor, "edges operations steps"],
    found: dict[str, Any],
) -> PlacedPolicy:
    """The policy of one operation per unit of places and group of channels, unit by unit."""
    each = iter(range(len(choices)))
    motions = []
    for unit in units:
        of_groups = [next(each) for _ in range(space.groups)]
        policies = tuple(
            build_policy(space, frames, [choices[e]], [True], magnitudes=magnitudes[e : e + 1], found={})
            for e in of_groups
        )
        motions.append(PlacedMotion(unit, policies))
    return PlacedPolicy(motions=tuple(motions), found=found)


def random_policy(
    space: Space,
    frames: int,
    seed: int,
    edges_per_node: int | None = None,
    units: Sequence[tuple[str, ...]] = (),
) -> Policy | PlacedPolicy:
    """Draws a policy uniformly from the space, with magnitudes as a search draws them: the control of every search.

    A space with several motions needs `units`, the places that share one.
    """
    draw = random.Random(seed)
    found = {"by": "random", "space": space.name, "space_version": space.version, "seed": seed}
    if space.is_placed:
        count = len(units) * space.groups
        choices = [draw.randrange(len(space.operations)) for _ in range(count)]
        values = Magnitudes(space, torch.Generator().manual_seed(seed), count)().detach()
        return placed_policy(space, frames, units, choices, values, found)
    choices = [draw.randrange(len(space.operations)) for _ in space.edges]
    kept = [False] * len(space.edges)
    for node in range(space.inputs, space.inputs + space.nodes):
        incoming = [e for e, (_, target) in enumerate(space.edges) if target == node]
        for e in draw.sample(incoming, min(edges_per_node or space.edges_per_node, len(incoming))):
            kept[e] = True
    magnitudes = Magnitudes(space, torch.Generator().manual_seed(seed), len(space.edges))()
    return build_policy(space, frames, choices, kept, magnitudes=magnitudes.detach(), found=found)
