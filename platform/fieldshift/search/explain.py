"""Explains a policy: what was chosen, over which alternatives, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fieldshift.errors import UserError
from fieldshift.folding import AnyPolicy
from fieldshift.motions.policy_file import decisions_of, is_unfinished, may_be_chance, search_settings
from fieldshift.search.rules import RULES
from fieldshift.wording import counted

MEASURES = {
    "loss": "the increase of the loss when the candidate is removed",
    "score": "the decrease of the score when the candidate is removed",
}


def explain(policy: AnyPolicy) -> list[str]:
    """Returns lines about a policy: its motions, its origin and, for a searched one, every decision that led to it.

    The decisions are read from `policy.found`; for a policy without them the lines say so. Raises UserError for decisions of
    another shape than a search writes.
    """
    found = policy.found
    lines = [
        f"Policy {policy.digest()}: {counted(policy.frames, 'frame')}, {policy.parts[0].reference} frame unchanged.",
        *policy.describe(),
    ]
    if not any(part.edges for part in policy.parts):
        lines.append("All frames are the image: there is no motion.")
    if not found:
        return [*lines, "There is no record of how it was found."]
    lines.append("Found " + ", ".join(_origin(found)) + ".")
    if is_unfinished(found):
        lines.append(
            "Its search is not finished: this is the policy so far. The same command with --resume continues it."
        )
    if found.get("digest", policy.digest()) != policy.digest():
        lines.append("The policy was changed after its search: the decisions below do not describe it.")
    decisions = decisions_of(found)
    if not decisions:
        return [
            *lines,
            "There is no record of decisions: it was drawn, written by hand, or its search has not decided yet.",
        ]
    quantity = _quantity(search_settings(found))
    lines.append(
        f"Decisions in order; in brackets: {quantity}. Node numbers are those of the space, not of the policy."
    )
    return lines + [_decision(each) for each in decisions]


def close_decisions(policy: AnyPolicy) -> list[str]:
    """One line per decision of its search whose margin is at most two standard errors, and so may be chance.

    None for decisions of another shape than a search writes, which `explain` names.
    """
    try:
        decisions = decisions_of(policy.found)
    except UserError:
        return []
    return [
        f"{each['at']}: the choice of {' and '.join(each['chosen'])} may be chance (margin {each.get('margin') or 0.0:.2g}, "
        f"standard error {each['margin_error']:.2g}); more images or passes (--search.epochs) make it more certain"
        for each in decisions
        if may_be_chance(each)
    ]


def _origin(found: Mapping[str, Any]) -> list[str]:
    words = [f"by {found.get('by', 'unknown')}"]
    if "space" in found:
        words.append(f"in the space {found['space']} (version {found.get('space_version', '?')})")
    words += [
        f"{key} {found[key]}" for key in ("data", "network", "temporal", "form", "seed", "passes") if key in found
    ]
    return words


def _quantity(settings: Mapping[str, Any]) -> str:
    """The quantity that the selection rule compared, in words."""
    selection = str(settings.get("selection", "perturbation"))
    if selection == "perturbation":
        return MEASURES.get(str(settings.get("criterion", "loss")), "the cost of removal")
    return RULES[selection].quantity if selection in RULES else "the cost of removal"


def _decision(decision: Mapping[str, Any]) -> str:
    harm: Mapping[str, float] = decision["harm"]
    chosen: list[str] = decision["chosen"]
    others = sorted((label for label in harm if label not in chosen), key=lambda label: -harm[label])
    text = f"{decision['at']}: " + " and ".join(_valued(label, harm) for label in chosen)
    if others:
        shown = ", ".join(_valued(label, harm) for label in others[:3])
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        margin, error = decision.get("margin") or 0.0, decision.get("margin_error")
        text += f" against {shown}{more}; margin {margin:.3g}"
        if error is not None:
            text += f" (standard error {error:.2g}{': this may be chance' if may_be_chance(decision) else ''})"
        if any(harm[label] >= harm.get(kept, 0.0) for label in others for kept in chosen):
            text += " (a tie)"
    return text + "."


def _valued(label: str, harm: Mapping[str, float]) -> str:
    return f"{label} ({harm[label]:.3g})" if label in harm else label
