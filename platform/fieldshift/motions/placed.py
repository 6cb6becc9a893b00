"""A policy of several motions: one per insertion point of a network, or per group of channels.

It has a folded form only: a video moves whole frames, so it has one motion for the whole network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from fieldshift.errors import UserError, nearest_name
from fieldshift.motions import policy_file
from fieldshift.motions.policy import Policy
from fieldshift.whole_file import write_whole


@dataclass(frozen=True)
class PlacedMotion:
    """The motion of some places: the dotted names of modules in the 2D network, and one policy per group of channels."""

    places: tuple[str, ...]
    policies: tuple[Policy, ...]


@dataclass(frozen=True, kw_only=True)
class PlacedPolicy:
    """A policy with a separate motion for each of several places of a network, and for each of N groups of channels.

    All motions share the number of frames, reference, fill and interpolation. `found` describes how the policy was found, in
    plain JSON values; `digest` excludes it. In a file it is version 2 of the policy file (`fieldshift.motions.policy_file`).
    Raises UserError for motions that are inconsistent.
    """

    motions: tuple[PlacedMotion, ...]
    found: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.motions:
            raise UserError("The policy has no motions; give at least one.")
        if len({len(motion.policies) for motion in self.motions}) > 1 or not self.motions[0].policies:
            raise UserError(
                "The motions of a policy have different numbers of groups; give each the same number, 1 or more."
            )
        settings = {(p.frames, p.reference, p.symmetric, p.fill, p.interpolation) for p in self.parts}
        if len(settings) > 1:
            raise UserError(
                "The motions of a policy differ in frames, reference, fill or interpolation; give all of them the same."
            )
        places = [place for motion in self.motions for place in motion.places]
        twice = sorted({place for place in places if places.count(place) > 1})
        if twice:
            raise UserError(f"The place '{twice[0]}' has two motions; name it once.")

    @property
    def parts(self) -> tuple[Policy, ...]:
        """The policies of all motions and groups."""
        return tuple(policy for motion in self.motions for policy in motion.policies)

    @property
    def groups(self) -> int:
        """Number of groups of channels in each direction, each with a separate motion."""
        return len(self.motions[0].policies)

    @property
    def frames(self) -> int:
        """Number of frames of the video; the motions are those of its frames next to the reference."""
        return self.parts[0].frames

    def at(self, places: Sequence[str]) -> list[tuple[Policy, ...]]:
        """The policies at the places of a network, one per group, in the order of the places.

        Raises UserError, which names the nearest place, where network and policy do not have the same places.
        """
        known = {place: motion.policies for motion in self.motions for place in motion.places}
        for one, others, lacks in (
            (known, places, "the policy has a motion for the place '{}', which the network lacks"),
            (places, known, "the network has a place '{}', for which the policy has no motion"),
        ):
            missing = next((place for place in one if place not in others), None)
            if missing is not None:
                nearest = nearest_name(missing, others)
                hint = f"; the nearest is '{nearest}'" if nearest else ""
                raise UserError(
                    f"Policy and network do not match: {lacks.format(missing)}{hint}. Use the network and the temporal "
                    "module that the policy was found with, or a policy with one motion for all places."
                )
        return [known[place] for place in places]

    def with_frames(self, frames: int) -> PlacedPolicy:
        """The same policy with another number of frames: steps become smaller, magnitudes keep their meaning."""
        motions = tuple(
            replace(motion, policies=tuple(policy.with_frames(frames) for policy in motion.policies))
            for motion in self.motions
        )
        return replace(self, motions=motions)

    def describe(self) -> list[str]:
        """One line per motion and group: "blocks.0.conv1, group 1 of 2: translate_x by 0.45 of the width ..."."""
        lines = []
        for motion in self.motions:
            for group, policy in enumerate(motion.policies):
                of = f", group {group + 1} of {self.groups}" if self.groups > 1 else ""
                where = motion.places[0] if len(motion.places) == 1 else f"{motion.places[0]} to {motion.places[-1]}"
                words = "; ".join(line.partition(": ")[2] for line in policy.describe()) or "identity"
                lines.append(f"{where}{of}: {words}")
        return lines

    def digest(self) -> str:
        """16 hexadecimal digits that identify the motions: all fields but `found`."""
        return policy_file.digest(self._document)

    def to_json(self) -> str:
        """The policy as JSON text; `policy_from_json` gives the same policy back."""
        return policy_file.to_text(self._document)

    def save(self, path: str | Path) -> Path:
        """Writes the policy file atomically (temporary name, then rename) and returns its path."""
        return write_whole(Path(path), self.to_json())

    @property
    def _document(self) -> dict[str, Any]:
        first = self.parts[0]
        motions = [(motion.places, [policy.graph for policy in motion.policies]) for motion in self.motions]
        return policy_file.to_placed_document(motions, first.fill, first.interpolation, self.found)


class WithPolicy(Protocol):
    """An object with a policy, such as the result of a search."""

    @property
    def policy(self) -> Policy | PlacedPolicy:
        """The policy."""


def policy_of(given: Any) -> Policy | PlacedPolicy:
    """The policy that is given, or that the given result of a search has. Raises UserError for anything else."""
    for policy in (given, getattr(given, "policy", None)):
        if isinstance(policy, Policy | PlacedPolicy):
            return policy
    if isinstance(given, str | Path):
        raise UserError(f"The policy is '{given}', but must be a Policy; read a file by Policy.load('{given}').")
    raise UserError(f"The policy is a {type(given).__name__}, but must be a Policy, or what find_policy returns.")


def policy_from_json(text: str, source: str = "the text") -> Policy | PlacedPolicy:
    """Reads a policy of either version from JSON text; an invalid policy raises UserError, which names the source."""
    try:
        document = policy_file.document_of(text)
        if document["version"] == policy_file.VERSION:
            return Policy.from_json(text, source)
        values = policy_file.read_placed(document)
        motions = [
            PlacedMotion(places, tuple(Policy(**values["settings"], **graph) for graph in graphs))
            for places, graphs in values["motions"]
        ]
        return PlacedPolicy(motions=tuple(motions), found=values["found"])
    except UserError as error:
        if str(error).startswith(f"{source} is not"):
            raise
        raise policy_file.invalid(source, error) from None


def load_policy(path: str | Path) -> Policy | PlacedPolicy:
    """Reads a policy of either version from a file; a missing or invalid file raises UserError."""
    return policy_from_json(policy_file.text_of(Path(path)), str(path))
