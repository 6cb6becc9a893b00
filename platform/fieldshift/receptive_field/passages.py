"""Passages through a folded network's places: the fields of units through channels that are moved there.

A moved channel's unit sees what another cell of the same map sees. The region of a unit is therefore computed backwards:
first the cells it sees of the map at the last place; there, the cells themselves (most channels stay) and those that
the moved channels read; then what these see of the map at the place before; and so on to the image: the union over every
choice of staying or moving at every place. Maps end at their borders, as in the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.folding import AnyPolicy, PolicyMotion
from fieldshift.forms import Form
from fieldshift.motions import Policy
from fieldshift.motions.placed import PlacedMotion, PlacedPolicy
from fieldshift.networks.cells import Cells
from fieldshift.networks.folded import FoldedModule, Motion
from fieldshift.networks.insertion import Inserted
from fieldshift.networks.movement import Movement, Taps
from fieldshift.receptive_field.calls import Field
from fieldshift.receptive_field.spans import Span

Interval: TypeAlias = tuple[int, int]
Mask: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

_NOTHING: Interval = (0, -1)
_TRANSPOSED = "a movement of channels in a transposed map"


@dataclass(frozen=True)
class Boxes:
    """The fields of the units of one map in an earlier one: first and last row per row of units, columns likewise.

    Not clipped to the earlier map; first > last if nothing is seen.
    """

    rows: tuple[Interval, ...]
    columns: tuple[Interval, ...]

    def seen(self, units: Mask, size: tuple[int, int]) -> Mask:
        """The cells (H, W) of the earlier map, of that size, seen by any of the units."""
        rows, columns = _members(self.rows, size[0]), _members(self.columns, size[1])
        found: Mask = rows.T @ units.astype(np.float32) @ columns > 0
        return found


def _members(intervals: Sequence[Interval], length: int) -> np.ndarray:
    """Row u is 1 at the positions of the interval u, (U, length)."""
    ends, positions = np.array(intervals), np.arange(length)
    inside = (positions >= ends[:, :1]) & (positions <= ends[:, 1:])
    return inside.astype(np.float32)


@dataclass(frozen=True)
class Passage:
    """One use of a place where channels are moved: its number in the order of the network, its motion and map size (H, W).

    `cells` are those of a map whose number of cells is rounded. `image` is the field of the map's cells in the image,
    `earlier` their field in the maps at earlier places, both through the channels that stay.
    """

    number: int
    place: str
    motion: Motion
    size: tuple[int, int]
    cells: Cells | None
    image: Boxes
    earlier: tuple[tuple[Passage, Boxes], ...]

    def read(self, cells: Mask) -> Mask:
        """The cells (H, W) before the motion on which the given cells after it depend: themselves and the cells moved there."""
        sources, receivers = self._links
        before = cells.copy()
        before.reshape(-1)[sources[cells.reshape(-1)[receivers]]] = True
        return before

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies of its motion, one per group of channels; empty if it does not come from a policy."""
        return self.motion.policies if isinstance(self.motion, PolicyMotion) else ()

    @cached_property
    def _movement(self) -> Movement:
        return self.motion(self.size, torch.zeros(()), self.cells)

    @cached_property
    def _links(self) -> tuple[np.ndarray, np.ndarray]:
        """The cell that is read and the cell that reads it, per tap."""
        area, taps = self.size[0] * self.size[1], self._movement.taps
        return taps.rows.numpy(force=True) % area, taps.receivers.numpy(force=True) % area


class PassageLog:
    """Records passages while a network is traced; behind each, tensors have two more axes: those of the map at that place."""

    def __init__(self, network: nn.Module) -> None:
        self.passages: list[Passage] = []
        self._places = {part: place for place, part in folded_places(network).items()}
        self._motions = {part: part.motion for part in self._places}

    def passed(self, module: nn.Module, output: Tensor, entered: Field, staying: Field) -> Field:
        """Records a passage and returns the field of its output; `staying` is the field of channels that stay.

        The field is unknown where the map's rows run along the image's columns.
        """
        assert isinstance(module, FoldedModule)
        rank, number = output.dim(), len(self.passages)
        if rank - 1 in entered["y"].dims - entered["x"].dims:
            return {axis: span.unknown(rank, _TRANSPOSED) for axis, span in staying.items()}
        dims, size = (rank - 2, rank - 1), (output.shape[-2], output.shape[-1])
        image = boxes_between(entered, ("y", "x"), size, dims)
        earlier = self.seen(entered, size, dims)
        place, motion = self._places[module], self._motions[module]
        self.passages.append(Passage(number, place, motion, size, module.cells_of(size), image, earlier))
        axes = zip(_axes(number), dims, size, strict=True)
        return {**staying, **{axis: Span.of_axis(rank, dim, n, clipped=False) for axis, dim, n in axes}}

    @property
    def form(self) -> Form:
        """The form of the network: folded if it has any places."""
        return "folded" if self._places else "video"

    def before(self, field: Field) -> list[Passage]:
        """The passages that a tensor with this field sees."""
        return [passage for passage in self.passages if _axes(passage.number)[0] in field]

    def seen(self, field: Field, size: tuple[int, int], dims: tuple[int, int]) -> tuple[tuple[Passage, Boxes], ...]:
        """The passages that a map of units with this field sees, each with the units' boxes in the map there."""
        return tuple(
            (passage, boxes_between(field, _axes(passage.number), size, dims)) for passage in self.before(field)
        )


def _axes(number: int) -> tuple[str, str]:
    return f"y{number}", f"x{number}"


def boxes_between(field: Field, axes: tuple[str, str], size: tuple[int, int], dims: tuple[int, int]) -> Boxes:
    """The boxes that the units of a map, whose rows and columns run along `dims`, see along two axes of an earlier map."""
    rows, columns = (_intervals(field[axis], dim, n) for axis, dim, n in zip(axes, dims, size, strict=True))
    return Boxes(rows, columns)


def _intervals(span: Span, dim: int, length: int) -> tuple[Interval, ...]:
    others = tuple(d for d in range(span.rank) if d != dim)
    low, high = (
        np.broadcast_to(ends, (length,)).tolist() for ends in (span.low.min(axis=others), span.high.max(axis=others))
    )
    return tuple((int(a), int(b)) if a <= b else _NOTHING for a, b in zip(low, high, strict=True))


def moved_region(
    unit: tuple[int, int], image: Boxes, moved: Sequence[tuple[Passage, Boxes]], size: tuple[int, int]
) -> Mask:
    """The pixels (H, W) of an image of that size that a unit sees, through moved and staying channels.

    image, moved: the boxes of the map's units in the image and in the maps at the places before it.
    """
    units = np.zeros((len(image.rows), len(image.columns)), dtype=bool)
    units[unit] = True
    pixels = image.seen(units, size)
    behind = {passage.number: boxes.seen(units, passage.size) for passage, boxes in moved}
    for passage, _ in reversed(moved):
        before = passage.read(behind[passage.number])
        pixels |= passage.image.seen(before, size)
        for other, boxes in passage.earlier:
            behind[other.number] |= boxes.seen(before, other.size)
    return pixels


def moved_note(passages: Sequence[Passage]) -> str:
    """Describes what the box of a unit behind these passages omits; empty if nothing moves."""
    moving = [passage for passage in passages if not passage.policies or any(each.edges for each in passage.policies)]
    if not moving:
        return ""
    places = f"{len(moving)} place{'s' * (len(moving) > 1)}"
    mean = " (without the mean of the map, which fills what comes from outside)" * any(
        each.fill == "mean" for passage in moving for each in passage.policies
    )
    return f"box: field of the channels that are not moved; reshaped region: with the channels moved at {places}{mean}"


def folded_places(network: nn.Module) -> dict[str, FoldedModule]:
    """The places of a network where channels are moved: dotted names in the 2D network, and the modules there."""
    names = {part.temporal: part.path for part in network.modules() if isinstance(part, Inserted)}
    return {names.get(part, name): part for name, part in network.named_modules() if isinstance(part, FoldedModule)}


def motions_at_places(network: nn.Module) -> dict[str, Motion]:
    """The motions of a folded network by the names of their places; empty for any other network."""
    return {place: part.motion for place, part in folded_places(network).items()}


class _Standing(Movement):
    """A movement that leaves every map unchanged without counting as no motion: gates still read their neighbourhood."""

    def move(self, features: Tensor, width: int) -> Tensor:  # noqa: ARG002 - the signature of movements
        return features


@dataclass(frozen=True)
class _StandingMotion:
    groups: int

    def __call__(self, size: tuple[int, int], like: Tensor, cells: Cells | None = None) -> Movement:  # noqa: ARG002
        none = torch.zeros(0, dtype=torch.int32, device=like.device)
        return _Standing(size, 2 * self.groups, Taps(none, none, none), torch.zeros(0, device=like.device))


@contextmanager
def standing(network: nn.Module) -> Iterator[None]:
    """Within the block, no channel of the network moves."""
    places = folded_places(network).values()
    before = [part.motion for part in places]
    try:
        for part in places:
            part.motion = _StandingMotion(part.motion.groups)
        yield
    finally:
        for part, motion in zip(places, before, strict=True):
            part.motion = motion


def policy_in(motions: Mapping[str, Motion]) -> AnyPolicy | None:
    """The policy formed by the motions at these places; None if they do not come from a policy."""
    policies = {place: motion.policies for place, motion in motions.items() if isinstance(motion, PolicyMotion)}
    if not policies or len(policies) < len(motions):
        return None
    first = next(iter(policies.values()))
    if len(first) == 1 and all(_alike(first, others) for others in policies.values()):
        return first[0]
    return PlacedPolicy(motions=tuple(PlacedMotion((place,), found) for place, found in policies.items()))


def check_motions(policy: AnyPolicy, motions: Mapping[str, Motion]) -> None:
    """Raises UserError unless the motions at these places of a folded network are those of the policy."""
    known: Mapping[str, Sequence[Policy]] = (
        {place: each.policies for each in policy.motions for place in each.places}
        if isinstance(policy, PlacedPolicy)
        else dict.fromkeys(motions, (policy,))
    )
    for place, motion in motions.items():
        if not isinstance(motion, PolicyMotion) or place not in known or not _alike(known[place], motion.policies):
            raise UserError(
                f"The channels at the place '{place}' of this folded network are not moved by the policy {policy.digest()}; "
                "give the policy that the network was built with, or none."
            )


def _alike(one: Sequence[Policy], other: Sequence[Policy]) -> bool:
    return [policy.transform for policy in one] == [policy.transform for policy in other]
