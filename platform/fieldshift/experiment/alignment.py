"""Checks that a segmenter can follow the motions: each frame's map, or mask, is moved back by the one matrix of its frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldshift.errors import UserError
from fieldshift.training import arm_named

if TYPE_CHECKING:
    from fieldshift.folding import AnyPolicy
    from fieldshift.search import Space
    from fieldshift.training import NetworkCard


class NoAlignmentError(UserError):
    """Maps have to be aligned with frames that no single matrix describes."""


def check_alignment(
    task: str, arm_name: str, policy: AnyPolicy | None, space: Space | None, frames: int, *, align: bool = True
) -> None:
    """Raises NoAlignmentError where an arm cannot follow a policy, or what a search in the space may find.

    `policy` is None where it is still to be found or drawn. The folded form answers in the image's own frame, so it
    follows any; so does a segmenter whose maps are not aligned (`align`), but not the masks of an arm that trains on single
    moved frames.
    """
    from fieldshift.motions import Policy

    arm = arm_named(arm_name)
    as_images = arm.frames == "searched-as-images"
    if task != "segmentation" or arm.form == "folded" or not (arm.needs_policy or arm.frames == "random"):
        return
    if frames == 1 or not (align or as_images):
        return
    if isinstance(policy, Policy) and arm.needs_policy:
        if policy.with_frames(frames).is_pure:
            return
        reason = "the policy mixes several motions, or changes colours"
    else:
        if space is None or not (space.mixes or space.colours):
            return
        reason = (
            f"the space {space.name} has colour operations ({', '.join(space.colours)})"
            if space.colours
            else f"the space {space.name} keeps up to {space.edges_per_node} edges per node"
        )
    what = "masks" if as_images else "maps"
    other = "" if as_images else "; `train` can leave maps unaligned (--align false)"
    raise NoAlignmentError(
        f"The arm '{arm_name}' moves a segmenter's {what} by one matrix per frame, but {reason}; use a policy or space "
        f"with one edge per node (of a search: --search.edges_per_node 1) and no colours, or the form folded{other}."
    )


def check_run_alignment(card: NetworkCard, *, align: bool) -> None:
    """Raises NoAlignmentError where the maps of a trained network cannot be aligned, but are asked to be."""
    if align:
        try:
            check_alignment(card.task, card.arm, card.motions, None, card.frames)
        except NoAlignmentError:
            raise NoAlignmentError(
                "The network's maps cannot be aligned: its policy mixes several motions, or changes colours; give --align "
                "false, as in its training."
            ) from None
