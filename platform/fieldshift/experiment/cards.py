"""The networks that an experiment's arms train: described as cards, and checked before any long work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldshift.console import say
from fieldshift.errors import UserError
from fieldshift.experiment.alignment import check_alignment
from fieldshift.experiment.options import Experiment, check_folded
from fieldshift.forms import Form
from fieldshift.networks import is_foreign
from fieldshift.training import arm_named
from fieldshift.wording import counted

if TYPE_CHECKING:
    from fieldshift.data import DataSet
    from fieldshift.folding import AnyPolicy
    from fieldshift.search import SearchConfig, Space
    from fieldshift.training import NetworkCard, NetworkCost, Recipe

STILL_ARMS: dict[Form, str] = {"video": "replicate", "folded": "identity-folded"}
"""In each form the arm whose motions move nothing: the network of a search, before the cell moves it."""


MOVED_ARMS: dict[Form, str] = {"video": "das", "folded": "das-folded"}
"""In each form the arm of a policy that was found."""


FEW_STEPS, ENOUGH_STEPS = 4, 100
"""Steps per epoch and in all below which a training is noted to have few."""


@dataclass(frozen=True)
class NormedBatch:
    """The images of one step that BatchNorm sees together: those of one worker or, `synchronised`, of all workers."""

    images: int
    synchronised: bool = False


def smallest_step(
    samples: int, batch: int, workers: int, synchronised: bool | None = False, accumulate: int = 1
) -> NormedBatch:
    """The smallest micro-batch of an epoch over `samples` images; `synchronised`: over all workers together."""
    whole, sharing = min(batch, samples), max(workers, 1)
    pieces = max(1, min(accumulate, whole // sharing))
    return NormedBatch(max(1, whole // pieces // (1 if synchronised else sharing)), bool(synchronised))


def training_step(dataset: DataSet, recipe: Recipe, workers: int) -> NormedBatch:
    """Returns the smallest step of a training, and prints a note where an epoch has few steps."""
    note_few_steps(len(dataset.train), recipe.batch, recipe.epochs, "recipe")
    return smallest_step(len(dataset.train), recipe.batch, workers, recipe.sync_batch_norm, recipe.accumulate)


def note_few_steps(images: int, batch: int, epochs: int, group: str) -> None:
    """Prints a note where `images` make few steps per epoch and few in all; group: recipe or search, of the options."""
    steps = max(1, images // batch)
    if steps < FEW_STEPS and steps * epochs < ENOUGH_STEPS:
        smaller = max(1, images // FEW_STEPS)
        of_half = " per half" if group == "search" else ""
        say(
            f"note: {images} training images{of_half} in batches of {batch} make {counted(steps, 'step')} per epoch and "
            f"{steps * epochs} in all, which is little to learn from; --{group}.batch {smaller} makes "
            f"{images // smaller} per epoch"
        )


def note_short_search(dataset: DataSet, search: SearchConfig) -> None:
    """Prints a note where a pass of the searches that will run has few steps."""
    note_few_steps(images_of_half(dataset, search), search.batch, search.epochs, "search")


def note_one_view(card: NetworkCard, copies: int) -> None:
    """Prints a note where test-time augmentation was requested, but a network has nothing to average over."""
    if not copies or (card.task != "segmentation" and card.plan().views_for(copies) > 1):
        return
    reason = (
        "a segmenter's maps are not averaged"
        if card.task == "segmentation"
        else f"the arm {card.arm} has no augmented views"
        if card.plan().views_for(2 * card.frames) == 1
        else f"{copies + 1} passes are less than two videos of {card.frames} frames"
    )
    say(f"note: --tta_copies {copies} has no effect: {reason}")


def note_no_maps(card: NetworkCard, align: bool | None) -> None:
    """Prints a note where an alignment of maps was requested (not None), but a network has no maps of several frames."""
    if align is None or (card.task == "segmentation" and card.frames > 1):
        return
    reason = "a classifier has no maps" if card.task != "segmentation" else f"the arm {card.arm} has a single frame"
    say(f"note: --align {str(align).lower()} has no effect: {reason}")


def search_step(dataset: DataSet, search: SearchConfig, workers: int) -> NormedBatch:
    """The smallest step of a search."""
    return smallest_step(images_of_half(dataset, search), search.batch, workers, search.sync_batch_norm)


def images_of_half(dataset: DataSet, search: SearchConfig) -> int:
    """The number of images in each half of the training images that a search learns from."""
    return min(len(dataset.train), search.subset or len(dataset.train)) // 2


def arm_card(
    experiment: Experiment, dataset: DataSet, arm_name: str, policy: AnyPolicy | None, space: Space | None
) -> NetworkCard:
    """The network that an arm trains, with the motions it reads, as a video of T frames or folded into one."""
    from fieldshift.motions.warp import check_channels
    from fieldshift.search import units_of
    from fieldshift.training import network_card

    arm = arm_named(arm_name)
    if arm.form == "folded":
        check_folded(experiment.temporal, experiment.frames)
    if arm.dilated and experiment.architecture.dilated:
        raise UserError(
            f"--architecture.dilated dilates the networks of all arms, so the arm '{arm_name}' would be "
            f"'{arm_name.removeprefix('dilated').removeprefix('+') or 'none'}'; leave one of them out."
        )
    units: list[tuple[str, ...]] = []
    if arm.frames == "random" and space is not None and space.is_placed:
        network = arm_card(experiment, dataset, "identity-folded", None, None).build_without_memory()
        units = units_of(space, [placement.path for placement in network.placements], network.stages)
    read = arm_policy(experiment, arm_name, policy, space, units)
    if read is not None:
        whose = f"space {space.name}" if space is not None and arm.frames == "random" else "policy"
        check_channels(read.parts[0].fill, dataset.channels, f"The fill of the {whose}", arm.form)
    return network_card(
        dataset,
        experiment.data,
        arm,
        network=experiment.network,
        temporal=experiment.temporal,
        policy=read,
        architecture=experiment.architecture,
    )


def checked_card(
    experiment: Experiment,
    dataset: DataSet,
    arm_name: str,
    policy: AnyPolicy | None,
    space: Space | None,
    *,
    step: NormedBatch,
    align: bool = True,
) -> NetworkCard:
    """The card, after checking that its network can be built and can learn from the images in a step.

    Raises UserError also where a segmenter's maps cannot follow the motions, unless they are not aligned (`align`).
    """
    check_alignment(dataset.task, arm_name, policy, space, experiment.frames, align=align)
    card = arm_card(experiment, dataset, arm_name, policy, space)
    check_builds(card, step)
    return card


def edges_to_decide(
    experiment: Experiment, dataset: DataSet, space: Space, *, step: NormedBatch, order: str = "first"
) -> int:
    """Number of edges that a search has to decide.

    Raises UserError where the network has no search in this space and form, or the images no such fill.
    """
    from fieldshift.motions.warp import check_channels
    from fieldshift.search import check_search

    check_channels(space.fill, dataset.channels, f"The fill of the space {space.name}", experiment.form)
    card = checked_card(experiment, dataset, STILL_ARMS[experiment.form], None, None, step=step)
    return check_search(card.build_without_memory(), space, experiment.frames, order)


def without_auxiliary(experiment: Experiment) -> Experiment:
    """The same experiment for a search, which learns from the reference frame's answer alone."""
    return replace(experiment, architecture=replace(experiment.architecture, auxiliary=False))


def check_builds(card: NetworkCard, step: NormedBatch) -> None:
    """Raises UserError where a network has no such option or place, or cannot read the images or learn from so few per step.

    Built without memory, so it takes no time.
    """
    from fieldshift.networks import check_answer, flops_per_image
    from fieldshift.networks.smallest import check_batch_and_size
    from fieldshift.training.batch_statistics import norms_to_synchronise

    network = card.build(pretrained=False) if is_foreign(card.network) else card.build_without_memory()
    if is_foreign(card.network):
        rows = (2 * card.frames, card.channels, *card.size)
        check_answer(network.network, card.network, rows, len(card.classes), maps=card.task == "segmentation")
    if step.synchronised:
        norms_to_synchronise(network)
    check_batch_and_size(
        network.network,
        card.network,
        images=step.images,
        per_worker=not step.synchronised,
        rows=card.frames,
        channels=card.channels,
        size=card.size,
        training=True,
    )
    if card.architecture.places is not None:
        flops_per_image(network, card.size)  # shapes alone pass every place, and an unsuitable one is named
    if card.architecture.weights is not None and Path(card.architecture.weights).is_file():
        card.build()  # a file's tensors have to fit


def arm_policy(
    experiment: Experiment,
    arm_name: str,
    policy: AnyPolicy | None,
    space: Space | None,
    units: Sequence[tuple[str, ...]] = (),
) -> AnyPolicy | None:
    """The policy whose motions an arm reads, None for plain images.

    `units` are the places that share a motion, for a random policy of a space with several. Raises UserError when the
    arm needs a policy, or a policy of another form.
    """
    from fieldshift import folding
    from fieldshift.experiment.policy_source import missing_policy, video_policy
    from fieldshift.motions import Policy
    from fieldshift.search import load_space, random_policy

    arm, frames = arm_named(arm_name), experiment.frames
    if arm.frames == "replicated":
        return Policy.replicate(frames)
    if arm.frames == "random":
        drawn_from = space or load_space("affine-one")
        check_random_arm(arm_name, drawn_from)
        return random_policy(drawn_from, frames=frames, seed=experiment.seed, units=units)
    if not arm.needs_policy:
        return None
    if policy is None:
        raise missing_policy(f"The arm '{arm_name}'")
    if arm.form == "folded":
        folding.check_folds(policy.with_frames(frames))
        return policy.with_frames(frames)
    return video_policy(policy, f"The arm '{arm_name}'").with_frames(frames)


def check_random_arm(arm_name: str, space: Space) -> None:
    """Raises UserError where an arm of random motions cannot draw them from the space."""
    arm = arm_named(arm_name)
    if arm.form == "folded" and space.colours:
        raise UserError(
            f"The arm '{arm_name}' moves features, which have no colours, but the space {space.name} has colour "
            f"operations ({', '.join(space.colours)}); choose another space."
        )
    if space.is_placed and arm.form != "folded":
        raise UserError(
            f"The arm '{arm_name}' draws a video's motion, but the space {space.name} has several motions; use "
            "the arm random-policy-folded, or another space."
        )


def card_cost(card: NetworkCard) -> NetworkCost:
    """The cost of an arm's network, its motions included."""
    from fieldshift.training import network_cost

    network = card.build(pretrained=False)
    return network_cost(network, card.frames, card.channels, card.size, card.plan().policy)


def video_cost(experiment: Experiment, dataset: DataSet) -> NetworkCost:
    """The cost of a video arm, its motions aside: they have no parameters and few operations."""
    return card_cost(arm_card(experiment, dataset, "replicate", None, None))
