"""The policy that a command is given: a file, a run folder that holds one, or the content of such a file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.console import say
from fieldshift.errors import UserError
from fieldshift.motions import policy_file as policy_document
from fieldshift.run_folder import CONFIG
from fieldshift.training import arm_named
from fieldshift.wording import counted

if TYPE_CHECKING:
    from fieldshift.folding import AnyPolicy
    from fieldshift.forms import Form
    from fieldshift.motions import Policy

PolicySource = str | dict[str, Any] | None
"""A policy as commands take it: a file, a run folder that holds one, or the content of such a file (as in config.yaml)."""


def policy_file(source: str | Path) -> Path:
    """The policy file, also where its run folder is named."""
    file = Path(source)
    return file / "policy.json" if file.is_dir() else file


def file_of_form(form: Form) -> str:
    """The name of the policy file of a form in a run folder whose policy.json is that of another form."""
    return f"policy-{form}.json"


def policy_of_form(source: PolicySource, form: Form) -> PolicySource:
    """The policy that a run folder holds for a form beside its first one, such as policy-folded.json, else `source`."""
    if not isinstance(source, str):
        return source
    own = os.path.join(source, file_of_form(form))  # noqa: PTH118 - a name that is no path is none of a file either
    if not os.path.isfile(own):  # noqa: PTH113
        return source
    say(f"policy: {own}")
    return own


def own_folded_policy(source: PolicySource) -> PolicySource:
    """The policy that a run folder holds for the folded form alone; None where it has one for both."""
    folded = policy_of_form(source, "folded")
    return None if folded == source else folded


def read_policy(source: PolicySource | Path | AnyPolicy) -> AnyPolicy | None:
    """The policy of a file, of a run folder that holds one, or of the content of such a file."""
    from fieldshift.motions.placed import load_policy, policy_from_json

    if source is None:
        return None
    if isinstance(source, dict):
        return policy_from_json(json.dumps(source), "--policy")
    return load_policy(policy_file(source)) if isinstance(source, str | Path) else source


def check_policy(source: PolicySource | Path) -> None:
    """Raises UserError where a policy is given and its document cannot be read; its motions are checked later."""
    if not isinstance(source, (str, Path, dict)):  # none, or a policy in Python
        return
    if isinstance(source, dict):
        text, file, named = json.dumps(source), "--policy", "this policy"
    else:
        check_searched(Path(source))
        text, file, named = policy_document.text_of(policy_file(source)), str(policy_file(source)), str(source)
    try:
        found = policy_document.document_of(text).get("found")
    except UserError as error:
        raise policy_document.invalid(file, error) from None
    if isinstance(found, dict) and policy_document.is_unfinished(found):
        passes = found.get("passes")
        after = f" after {counted(passes, 'pass', 'passes')}" if type(passes) is int else " so far"
        say(
            f"note: the search of {named} is not finished; this is its policy{after}. Its command with --resume continues it."
        )


def check_searched(folder: Path) -> None:
    """Raises UserError for the folder of a search that has not written a policy yet."""
    if (folder / CONFIG).is_file() and not policy_file(folder).exists():
        raise UserError(
            f"{folder} has no policy; give the folder of a search, and where that was stopped before its first pass ended, "
            "resume it with --resume."
        )


def check_arms_policy(arms: Sequence[str], policy: PolicySource) -> None:
    """Raises UserError where one of the arms needs a policy and none is given."""
    for name in arms:
        if policy is None and arm_named(name).needs_policy:
            raise missing_policy(f"The arm '{name}'")


def missing_policy(what: str) -> UserError:
    """The error of a command or arm, named by `what`, that has no policy but needs one."""
    return UserError(f"{what} needs a policy; give --policy FILE (fieldshift search makes one).")


def plain_policy(policy: AnyPolicy | None) -> dict[str, Any] | None:
    """The policy as JSON holds it, None for none."""
    return None if policy is None else dict(json.loads(policy.to_json()))


def video_policy(policy: AnyPolicy, what: str) -> Policy:
    """The policy, if it makes a video; else UserError, where `what` needs one."""
    from fieldshift.motions import Policy

    if not isinstance(policy, Policy):
        raise UserError(
            f"{what} needs a video, but the policy has a motion for each of several places (version 2); give a policy with "
            "one motion for all places, or use the form folded."
        )
    return policy


def is_searched(policy: AnyPolicy) -> bool:
    """Whether a search found the policy; others are written by hand, tuned, or were drawn at random."""
    return policy.found.get("by") == policy_document.BY_SEARCH


def say_other_use(policy: AnyPolicy | None, frames: int, forms: Collection[Form] = ()) -> None:
    """Prints a line where no search found a policy, and where it is used in another form or with another number of frames.

    forms: the forms in which it is used; none to say nothing about them.
    """
    if policy is None:
        return
    if forms and not is_searched(policy):
        say("note: no search found this policy: its motions are used as they are given")
    searched = str(policy.found.get("form", "video"))
    if policy.found and forms and searched not in forms:
        say(f"The policy was found in the {searched} form and is used in the {' and '.join(forms)} form.")
    if policy.frames != frames:
        unchanged = f"; --frames {policy.frames} uses the policy unchanged" if forms else ""
        say(
            f"The policy was made with {counted(policy.frames, 'frame')} and is used with {frames}: the farthest frame "
            f"moves equally far, but the frames in between differ{unchanged}."
        )


def operations_of(source: PolicySource | AnyPolicy) -> float | None:
    """Floating-point operations of the search that found a policy; None where the policy does not record them.

    Reads a policy file without checking the motions in it.
    """
    if isinstance(source, str):
        found = policy_document.document_of(policy_document.text_of(policy_file(source))).get("found")
    else:
        found = source.get("found") if isinstance(source, dict) else getattr(source, "found", None)
    cost = found.get("cost") if isinstance(found, dict) else None
    spent = cost.get("operations") if isinstance(cost, dict) else None
    return float(spent) if isinstance(spent, int | float) and 0 < spent < math.inf else None
