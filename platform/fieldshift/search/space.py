"""Search spaces: the motions that an edge of the cell may choose from, their magnitudes, and the wiring of the cell."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from fieldshift.errors import UserError, unknown_name
from fieldshift.forms import check_length
from fieldshift.motions.colour import COLOURS
from fieldshift.motions.graph import operation
from fieldshift.motions.matrices import REFERENCES
from fieldshift.motions.registry import MOTIONS
from fieldshift.motions.warp import FILLS, is_colour
from fieldshift.wording import counted

MAGNITUDES = ("frozen", "learned", "grid")
PER = ("network", "stage", "place")
MOST_EDGES, MOST_OPERATIONS = 1000, 1000
"""Of a space: a search with more edges, or with more operations of an edge, would not end."""
LONGEST_NAME, LONGEST_SUMMARY = 100, 500
"""Characters of a space's name, which is a label in tables, files and MLflow, and of its summary."""
TYPES: tuple[tuple[str, type, str], ...] = (
    *((key, int, "a whole number") for key in ("version", "inputs", "nodes", "edges_per_node", "frames", "groups")),
    *((key, str, "a text") for key in ("name", "summary", "magnitudes", "reference", "per")),
    ("symmetric", bool, "true or false"),
)


@dataclass(frozen=True)
class Operation:
    """An operation that an edge may choose: motions and colour changes in order, one or several.

    `steps` are their names, `magnitudes` their magnitudes, given by a grid, or None where they are drawn.
    """

    steps: tuple[str, ...]
    magnitudes: tuple[float | None, ...]

    @property
    def label(self) -> str:
        """The name in logs and tables: "translate_x", "translate_x 0.45" or "zoom + rotate"."""
        named = zip(self.steps, self.magnitudes, strict=True)
        return " + ".join(step if magnitude is None else f"{step} {magnitude + 0.0:g}" for step, magnitude in named)

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return set(self.steps) == {"identity"}


@dataclass(frozen=True, kw_only=True)
class Space:
    """A directed acyclic graph over videos and the operations of each of its edges (METHOD.md 3).

    Attributes:
        name: name on the command line.
        version: a whole number that increases whenever the same name would give other results.
        inputs: input nodes; each is the replicated image.
        nodes: intermediate nodes, each with an edge from every earlier node; the last one is the output.
        candidates: the operations of every edge, as names; several names in one operation are applied in order.
        ranges: range of a motion's magnitude, in its unit (fractions of the side, degrees, factors).
        grid: the magnitudes offered as separate operations if `magnitudes` is "grid".
        edges_per_node: incoming edges kept at each node at the end of a search.
        magnitudes: frozen (drawn once), learned (a parameter of the outer problem) or grid.
        frames: default number of frames of the video; None leaves it to the caller.
        reference: centre or first, the frame that is the unchanged image.
        symmetric: whether the magnitude grows away from the reference on both sides alike.
        fill: pixels outside the image: a name, or numbers in [0, 1], one or one per channel.
        per: unit with a separate motion in the folded form: network (one for all places), stage or place.
        groups: number of groups of moved channels at each place, each with a separate motion, in the folded form.
        summary: one line for tables and help.
    """

    name: str
    version: int
    inputs: int
    nodes: int
    candidates: tuple[tuple[str, ...], ...]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    edges_per_node: int = 2
    magnitudes: str = "frozen"
    frames: int | None = None
    reference: str = "centre"
    symmetric: bool = False
    fill: str | tuple[float, ...] = "zeros"
    per: str = "network"
    groups: int = 1
    summary: str = ""

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(source, target) of every edge, by target, then by source. Node numbers continue after the inputs."""
        nodes = range(self.inputs, self.inputs + self.nodes)
        return tuple((source, target) for target in nodes for source in range(target))

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations of every edge, with the grid expanded, in a fixed order (O of them)."""
        return tuple(operation for steps in self.candidates for operation in self._expanded(steps))

    def _expanded(self, steps: tuple[str, ...]) -> Iterator[Operation]:
        values: list[tuple[float | None, ...]] = [
            tuple(self.grid[step]) if self.magnitudes == "grid" and step in self.grid else (None,) for step in steps
        ]
        for magnitudes in product(*values):
            yield Operation(steps, magnitudes)

    @property
    def colours(self) -> tuple[str, ...]:
        """The names of the colour changes among the operations."""
        return tuple(sorted({step for steps in self.candidates for step in steps if step in COLOURS}))

    def range_of(self, step: str) -> tuple[float, float]:
        """(low, high) of the magnitude of a motion or colour change: the space's own range, or else its preset."""
        return self.ranges[step] if step in self.ranges else operation(step).preset

    @property
    def is_placed(self) -> bool:
        """Whether its policies have more than one motion: they then have a folded form only."""
        return self.per != "network" or self.groups > 1

    @property
    def mixes(self) -> bool:
        """Whether its policies may be a mean of several motions: some node keeps more than one edge."""
        return min(self.edges_per_node, self.inputs + self.nodes - 1) > 1

    def size(self, motions: int = 1) -> int:
        """The number of different policies with that many motions: combinations of kept edges and operations.

        Drawn magnitudes are not counted.
        """
        operations, cells = len(self.operations), 1
        for node in range(self.nodes):
            incoming = self.inputs + node
            kept = min(self.edges_per_node, incoming)
            cells *= math.comb(incoming, kept) * operations**kept
        return int(cells**motions)

    def decisions(self, edges: int, kept: int) -> int:
        """Maximum number of decisions in a selection: the operation of each of `edges`, and the `kept` edges of each node."""
        return edges + sum(self.inputs + node > kept for node in range(self.nodes))

    def check_kept(self, edges_per_node: int | None) -> None:
        """Raises UserError where a search is to keep more edges than a node of the space has; None is the space's number."""
        incoming = self.inputs + self.nodes - 1
        if edges_per_node is not None and edges_per_node > incoming:
            raise UserError(
                f"search.edges_per_node is {edges_per_node}, but no node of {self.name} has more than "
                f"{counted(incoming, 'edge')}."
            )

    def with_changes(self, **changes: Any) -> Space:
        """The same space with some attributes replaced, validated again."""
        changed = replace(self, **changes)
        check_space(changed, f"space '{self.name}'")
        return changed


def load_space(name_or_path: str | Path) -> Space:
    """Loads the space of a name in the `search_spaces` package, or of a TOML file.

    Raises UserError for an unknown name, a missing file, an unknown key or a value out of range, naming file and key.
    """
    from search_spaces import motion_spaces

    return parse_space(*motion_spaces.found(name_or_path))


def parse_space(text: str, file: str) -> Space:
    """Parses a space from TOML; `file` is the name used in errors."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not TOML ({error}); correct that line.") from None
    known = set(Space.__dataclass_fields__)
    for key in table:
        if key not in known:
            raise UserError(f"{file}: {unknown_name('key', key, known)}")
    missing = [key for key in ("name", "version", "inputs", "nodes", "candidates") if key not in table]
    if missing:
        raise UserError(f"{file} has no '{missing[0]}'; add it (required: name, version, inputs, nodes, candidates).")
    values: dict[str, Any] = dict(table)
    values["candidates"] = _candidates(table["candidates"], file)
    for key in ("ranges", "grid"):
        rows = table.get(key, {})
        if not isinstance(rows, dict):
            raise UserError(f"{file}: '{key}' is {rows!r}, but must be a table of NAME = [numbers].")
        values[key] = {op: _numbers(row, file, f"{key}.{op}") for op, row in rows.items()}
    for op, pair in values["ranges"].items():
        if len(pair) != 2 or pair[0] > pair[1]:
            raise UserError(f"{file}: 'ranges.{op}' is {list(pair)}, but must be [low, high] with low <= high.")
    for key, kind, words in TYPES:
        if key in table and type(table[key]) is not kind:
            raise UserError(f"{file}: '{key}' is {table[key]!r}, but must be {words}.")
    if not isinstance(values.get("fill", ""), str):
        values["fill"] = _numbers(values["fill"], file, "fill")
    space = Space(**values)
    check_space(space, file)
    incoming = space.inputs + space.nodes - 1
    if "edges_per_node" in table and space.edges_per_node > incoming:
        raise UserError(
            f"{file}: 'edges_per_node' is {space.edges_per_node}, but no node has more than {counted(incoming, 'edge')}."
        )
    return space


def _candidates(value: object, file: str) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) and each.strip() for each in value):
        raise UserError(
            f"{file}: 'candidates' must be a list of operations such as 'zoom' or 'zoom + rotate', not {value!r}."
        )
    return tuple(tuple(op.strip() for op in each.split("+")) for each in value)


def _numbers(value: object, file: str, key: str) -> tuple[float, ...]:
    if not isinstance(value, list) or not all(type(each) in (int, float) and math.isfinite(each) for each in value):
        raise UserError(f"{file}: '{key}' is {value!r}, but must be a list of finite numbers.")
    return tuple(float(each) for each in value)


def check_space(space: Space, file: str) -> None:
    """Raises UserError for the first invalid value, naming `file`, the key and what is allowed."""
    for key, lowest in (
        ("version", 1),
        ("inputs", 1),
        ("nodes", 1),
        ("edges_per_node", 1),
        ("groups", 1),
    ):
        value = getattr(space, key)
        if value is not None and value < lowest:
            raise UserError(f"{file}: '{key}' is {value!r}, but must be a whole number of at least {lowest}.")
    if space.frames is not None:
        check_length(space.frames, f"{file}: 'frames'")
    _check_texts(space, file)
    _check_extent(space, file)
    for key, allowed in (("magnitudes", MAGNITUDES), ("reference", REFERENCES), ("per", PER)):
        if getattr(space, key) not in allowed:
            raise UserError(f"{file}: '{key}' is {getattr(space, key)!r}, but must be one of {', '.join(allowed)}.")
    if space.is_placed and (space.inputs, space.nodes) != (1, 1):
        raise UserError(
            f"{file}: 'per' is '{space.per}' and 'groups' is {space.groups}, so every motion is one edge, but 'inputs' is "
            f"{space.inputs} and 'nodes' is {space.nodes}; give 1 and 1, or per = 'network' and groups = 1."
        )
    if isinstance(space.fill, str) and space.fill not in FILLS:
        raise UserError(
            f"{file}: 'fill' is '{space.fill}', but must be one of {', '.join(FILLS)} or a list of numbers."
        )
    if not isinstance(space.fill, str) and not is_colour(space.fill):
        raise UserError(
            f"{file}: 'fill' is {list(space.fill)}, but must be numbers within [0, 1], one or one per channel of the images."
        )
    ops = {op for candidate in space.candidates for op in candidate}
    known = [*MOTIONS, *COLOURS]
    for op in sorted(ops):
        if op not in known:
            raise UserError(f"{file}: 'candidates': {unknown_name('operation', op, known)}")
    _check_magnitudes(space, ops, file)
    _check_operations(space, file)


def _check_texts(space: Space, file: str) -> None:
    for key, value, least, most in (
        ("name", space.name, 1, LONGEST_NAME),
        ("summary", space.summary, 0, LONGEST_SUMMARY),
    ):
        if not value.isprintable() or not least <= len(value.strip()) <= len(value) <= most:
            raise UserError(
                f"{file}: '{key}' is {value[:60]!r}{'...' if len(value) > 60 else ''}, but must be a text of {least} to "
                f"{most} printable characters."
            )


def _check_extent(space: Space, file: str) -> None:
    edges = space.nodes * space.inputs + space.nodes * (space.nodes - 1) // 2
    if edges > MOST_EDGES:
        raise UserError(
            f"{file}: 'inputs' is {space.inputs:,} and 'nodes' is {space.nodes:,}, which make {edges:,} edges, but a space "
            f"has at most {MOST_EDGES:,}; give fewer."
        )
    if space.groups > MOST_EDGES:
        raise UserError(
            f"{file}: 'groups' is {space.groups:,}, each with an edge at every place, but must be at most {MOST_EDGES:,}."
        )
    rows = [[len(space.grid.get(step, ())) or 1 for step in steps] for steps in space.candidates]
    operations = sum(map(math.prod, rows))
    if operations > MOST_OPERATIONS:
        raise UserError(
            f"{file}: 'candidates' and 'grid' make {operations:,} operations, but an edge has at most {MOST_OPERATIONS:,}; "
            "give fewer."
        )


def _check_operations(space: Space, file: str) -> None:
    """Raises UserError where two operations differ in nothing that moves: the choice between them would be chance."""
    first: dict[str, str] = {}
    for each in space.operations:
        still = [_is_still(step, magnitude) for step, magnitude in zip(each.steps, each.magnitudes, strict=True)]
        same = Operation(_moving(each.steps, still), _moving(each.magnitudes, still)).label
        if same in first:
            twice = first[same] == each.label
            what = f"'{each.label}' twice" if twice else f"'{first[same]}' and '{each.label}', which are the same"
            raise UserError(
                f"{file}: 'candidates' and 'grid' give the operations {what} (magnitudes count to six digits); remove one."
            )
        first[same] = each.label


def _is_still(step: str, magnitude: float | None) -> bool:
    return step == "identity" or (step in MOTIONS and magnitude == MOTIONS[step].neutral)


def _moving(values: Sequence[Any], still: Sequence[bool]) -> tuple[Any, ...]:
    return tuple(value for value, is_still in zip(values, still, strict=True) if not is_still)


def _check_magnitudes(space: Space, ops: set[str], file: str) -> None:
    for key, rows in (("ranges", space.ranges), ("grid", space.grid)):
        for op, values in rows.items():
            if op not in ops:
                raise UserError(f"{file}: '{key}.{op}' has no effect: no operation uses '{op}'. Remove it.")
            low, high = operation(op).limits
            if not values or min(values) < low or max(values) > high:
                raise UserError(f"{file}: '{key}.{op}' is {list(values)}, but must lie within [{low:g}, {high:g}].")
    if space.magnitudes != "grid" and space.grid:
        raise UserError(
            f"{file}: 'grid' has no effect with magnitudes = '{space.magnitudes}'; use magnitudes = 'grid'."
        )
    if space.magnitudes == "grid" and not space.grid:
        raise UserError(f"{file}: magnitudes = 'grid' needs a [grid] table such as translate_x = [-0.4, 0.4].")
    if space.magnitudes == "grid" and (lacking := sorted(ops - {"identity"} - set(space.grid))):
        raise UserError(
            f"{file}: [grid] has no magnitudes of '{lacking[0]}', which 'candidates' names; add {lacking[0]} = [...], or "
            "remove it from 'candidates'."
        )
