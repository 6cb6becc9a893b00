"""The decisions of a finished search, in words and in a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fieldshift.console import say
from fieldshift.errors import UserError
from fieldshift.experiment.policy_source import check_policy, policy_file
from pipelines.options import only_one


@dataclass(frozen=True)
class Explanation:
    """The decisions of a search: one line per statement, and the file of the figure."""

    lines: list[str]
    picture: Path


def explain(*, policy: list[str] | None = None) -> Explanation:
    """Prints the choices of a search, with their alternatives and margins, and draws them into a file next to the policy.

    Args:
        policy: policy file, or run folder of a search, such as: explain runs/search.
    """
    source = only_one(policy, "policy", "policies", "give one policy file, or one run folder of a search")
    check_policy(source)

    from fieldshift.motions.placed import load_policy
    from fieldshift.report.figures.explained import explained
    from fieldshift.search.explain import explain as explain_policy

    file = policy_file(source)
    found = load_policy(file)
    try:
        lines = explain_policy(found)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    for line in lines:
        say(line)
    picture = file.with_suffix(".explained.png")
    try:
        explained(found).save(picture)
    except OSError as error:
        raise UserError(
            f"The figure cannot be written to {picture} ({error.strerror}); copy the policy elsewhere."
        ) from None
    say(f"as a figure: {picture}")
    return Explanation(lines, picture)


explain.positional = "policy"  # type: ignore[attr-defined]
