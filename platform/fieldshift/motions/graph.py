"""The graph of a policy: steps on edges between nodes, validated to be acyclic."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from fieldshift.errors import UserError, unknown_name
from fieldshift.motions.colour import COLOURS, Colour
from fieldshift.motions.finite import is_number
from fieldshift.motions.matrices import REFERENCES, distances
from fieldshift.motions.registry import MOTIONS, Motion


def operation(name: str) -> Motion | Colour:
    """Returns the motion or the colour change of that name; an unknown name raises UserError, which lists both kinds."""
    if name in MOTIONS:
        return MOTIONS[name]
    if name in COLOURS:
        return COLOURS[name]
    raise unknown_name("operation", name, [*MOTIONS, *COLOURS])


MOST_NODES = 1000
"""Inputs of a graph, and other nodes of it: more than any search leaves, and few enough to be drawn and passed through."""


def _whole(what: str, value: object, least: int, most: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"The {what} is {value!r}, but must be a whole number of at least {least}; change it.")
    if value > most:
        raise UserError(f"The {what} is {value:,}, but must be at most {most:,}; give fewer.")


@dataclass(frozen=True)
class Step:
    """One operation, a motion or a colour change, with the magnitude for the farthest frame, in its unit and limits."""

    op: str
    magnitude: float

    def __post_init__(self) -> None:
        if not isinstance(self.op, str):
            raise UserError(f"An operation is {self.op!r}, but must be a name such as 'translate_x'; change it.")
        if not is_number(self.magnitude):
            raise UserError(
                f"The magnitude of {self.op} is {self.magnitude!r}, but must be a finite number; change it."
            )
        object.__setattr__(self, "magnitude", float(self.magnitude))
        operation(self.op).check(self.magnitude)

    @property
    def is_colour(self) -> bool:
        """Whether the step changes colours instead of positions."""
        return self.op not in MOTIONS

    def phrase(self) -> str:
        """Describes the step at the outermost frame."""
        return operation(self.op).phrase(self.magnitude)


@dataclass(frozen=True)
class Edge:
    """An edge from node `source` to node `target` with its steps in order; several steps form a composite operation."""

    source: int
    target: int
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        _whole("source of an edge", self.source, 0)
        _whole("target of an edge", self.target, 1)
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps:
            raise UserError(f"Edge {self.source}->{self.target} has no steps, but needs at least one; use 'identity'.")

    def describe(self) -> str:
        """Describes the edge: "edge 0->2: translate_x by 0.43 of the width at the outer frames"."""
        words = ", then ".join(step.phrase() for step in self.steps)
        still = all(step.op == "identity" for step in self.steps)
        return f"edge {self.source}->{self.target}: {words}{'' if still else ' at the outer frames'}"


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The part of a policy that determines where content goes: nodes, edges and the frames' distances.

    Nodes 0 .. inputs - 1 show the image in every frame, the next `nodes` ones are intermediate, each the mean of its
    incoming edges, and the last one is the output. Raises UserError unless every edge leads from an earlier node to a
    later intermediate one, no two edges join the same nodes, and every intermediate node has an incoming edge.
    """

    inputs: int
    nodes: int
    edges: tuple[Edge, ...]
    frames: int
    reference: str
    symmetric: bool

    def __post_init__(self) -> None:
        _whole("number of frames", self.frames, 1)
        if not isinstance(self.symmetric, bool):
            raise UserError(f"symmetric is {self.symmetric!r}, but must be true or false; change it.")
        if not isinstance(self.reference, str):
            raise UserError(f"The reference is {self.reference!r}, but must be one of {', '.join(REFERENCES)}.")
        distances(self.frames, self.reference, self.symmetric)
        _check_edges(self.inputs, self.nodes, self.edges)

    @property
    def distances(self) -> Float[Tensor, " frames"]:
        """The frames' distances s from the reference frame, (T,), float64 on the CPU."""
        return distances(self.frames, self.reference, self.symmetric)


def _check_edges(inputs: int, nodes: int, edges: Sequence[Edge]) -> None:
    _whole("number of inputs", inputs, 1, MOST_NODES)
    _whole("number of nodes", nodes, 0, MOST_NODES)
    incoming: dict[int, set[int]] = defaultdict(set)
    for edge in edges:
        name = f"Edge {edge.source}->{edge.target}"
        if edge.source >= edge.target:
            raise UserError(f"{name} leads backwards, but must lead to a later node; swap its nodes or remove it.")
        if not inputs <= edge.target < inputs + nodes:
            allowed = f"from {inputs} to {inputs + nodes - 1}" if nodes else "none, as 'nodes' is 0"
            raise UserError(
                f"{name} ends at node {edge.target}, but an edge ends at a node that is no input ({allowed}); correct "
                "'target', or 'nodes'."
            )
        if edge.source in incoming[edge.target]:
            raise UserError(
                f"{name} appears twice, but two nodes share at most one edge; remove one or chain the steps."
            )
        incoming[edge.target].add(edge.source)
    for node in range(inputs, inputs + nodes):
        if not incoming[node]:
            raise UserError(f"Node {node} has no incoming edge, but each of the {nodes} nodes needs one; add an edge.")
