"""The arms of a comparison: in the form asked for, supported by the network, with given or searched motions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fieldshift.console import say
from fieldshift.errors import UserError
from fieldshift.experiment.alignment import NoAlignmentError, check_alignment
from fieldshift.experiment.cards import NormedBatch, checked_card, edges_to_decide
from fieldshift.experiment.options import Experiment, check_folded
from fieldshift.experiment.policy_source import PolicySource, check_arms_policy, check_policy, operations_of
from fieldshift.forms import FORMS, Form, check_form
from fieldshift.training import ARMS, FOLDED_ARMS, arm_named

if TYPE_CHECKING:
    from fieldshift.data import DataSet
    from fieldshift.folding import AnyPolicy
    from fieldshift.search import Space


def check_arms(arms: Sequence[str] | None, form: Form, temporal: str) -> list[str]:
    """The arms to train, in the form asked for. Raises UserError for an unknown arm, or one without that form.

    By default all of them, but not the folded identity with tsm, which is the arm none.
    """
    if arms is None:
        skipped = {name for name in ARMS if form == "folded" and reads_video(name)}
        skipped |= {"identity-folded"} if temporal.startswith("tsm") else set()
        return [name for name in ARMS if name not in skipped]
    if not arms:
        raise UserError(f"--arms is empty; give one or more of {', '.join(ARMS)}.")
    return list(dict.fromkeys(arm_in_form(name, form, named=True) if arm_named(name).moves else name for name in arms))


def arm_in_form(name: str, form: Form, *, named: bool) -> str:
    """The arm of that name in the form; UserError for an arm that has no folded form.

    `named` tells whether the person chose the arm: with the form folded, das stands for das-folded.
    """
    check_form(form)
    arm = arm_named(name)
    if form == "video" or arm.form == "folded":
        return name
    base, joined, augmentation = name.partition("+")
    if base in FOLDED_ARMS:
        return f"{FOLDED_ARMS[base]}{joined}{augmentation}"
    reason = f"the arm '{name}' has none" if named else "training without a policy has none; give --policy FILE"
    raise UserError(f"--form is folded, but {reason}; arms with a folded form: {', '.join(FOLDED_ARMS)}.")


def arm_of(experiment: Experiment, arm: str | None, policy: PolicySource) -> tuple[str, Experiment]:
    """The arm to train, by default das with a policy and none without, and the experiment in that arm's form."""
    chosen = arm_in_form(arm or ("none" if policy is None else "das"), experiment.form, named=arm is not None)
    return chosen, replace(experiment, form=arm_named(chosen).form)


def check_policy_of(arm: str, policy: PolicySource) -> None:
    """Raises UserError for a policy that cannot be read, that the arm lacks, or that it does not read."""
    check_policy(policy)
    check_arms_policy([arm], policy)
    if policy is not None and not arm_named(arm).needs_policy:
        raise UserError(f"The arm '{arm}' reads no policy; leave out --policy, or --arm.")


def check_forms(arms: Sequence[str], experiment: Experiment) -> None:
    """Raises UserError where one of the arms is folded, and the temporal module or the number of frames has no such form."""
    if any(arm_named(name).form == "folded" for name in arms):
        check_folded(experiment.temporal, experiment.frames)


def reads_video(name: str) -> bool:
    """Returns whether an arm uses a video's motions, as a video or as augmented images."""
    arm = arm_named(name)
    return arm.form == "video" and arm.frames != "image"


def needs(name: str, form: Form) -> bool:
    """Returns whether an arm reads a policy in that form."""
    return arm_named(name).needs_policy and arm_named(name).form == form


def given_forms(policy: PolicySource, folded_policy: PolicySource) -> list[Form]:
    """The forms whose arms have a policy that was given; reads no file."""
    return list(FORMS) if policy is not None else ["folded"] if folded_policy is not None else []


def unknown_costs(arms: Sequence[str], policy: PolicySource, folded_policy: PolicySource) -> list[str]:
    """The given policies that do not record the cost of their search, as they were named."""
    sources: dict[Form, PolicySource] = {"video": policy, "folded": policy if folded_policy is None else folded_policy}
    read = [
        source for form, source in sources.items() if source is not None and any(needs(name, form) for name in arms)
    ]
    names = [
        source if isinstance(source, str) else "the given policy" for source in read if operations_of(source) is None
    ]
    return list(dict.fromkeys(names))


def searched_forms(arms: Sequence[str], given: Sequence[Form]) -> list[Form]:
    """The forms in which some arm needs a policy that is not given."""
    return [form for form in FORMS if form not in given and any(needs(name, form) for name in arms)]


def arms_that_build(
    experiment: Experiment,
    dataset: DataSet,
    arms: Sequence[str],
    given: dict[Form, AnyPolicy],
    space: Space,
    *,
    named: bool,
    step: NormedBatch,
    searched: NormedBatch,
) -> tuple[list[str], dict[Form, int]]:
    """The arms that can be built, and the number of edges that a search decides in each form whose policy is not given.

    Raises UserError for an arm that was named; unsupported arms are skipped with a message: enlarged fields that the network
    lacks, a form that the network, the given motions or the space lack, as long as another form is left, and videos whose
    maps a segmenter cannot align. `step` is the smallest of a training, `searched` of a search.
    """
    from fieldshift.motions import Policy

    kept = []
    for name in arms:
        arm = arm_named(name)
        try:
            # A policy is still to be found; what a network can be built of does not depend on which it is.
            policy = given.get(arm.form, Policy.replicate(experiment.frames))
            check_alignment(dataset.task, name, given.get(arm.form), space, experiment.frames)
            checked_card(experiment, dataset, name, policy, space, step=step)
        except UserError as error:
            optional = arm.wide_field or arm.dilated or arm.form == "folded" or (space.is_placed and reads_video(name))
            if named or not (optional or isinstance(error, NoAlignmentError)):
                raise
            say(f"skipping the arm {name}: {error}")
        else:
            kept.append(name)
    edges: dict[Form, int] = {}
    lacking: dict[Form, UserError] = {}
    for form in searched_forms(kept, list(given)):
        try:
            edges[form] = edges_to_decide(replace(experiment, form=form), dataset, space, step=searched)
        except UserError as error:
            lacking[form] = error
    for form, reason in lacking.items():
        if named or not edges:
            raise reason
        say(f"without the arms that need a search in the form {form}: {reason}")
        kept = [name for name in kept if not needs(name, form)]
    return kept, edges
