"""Errors for users: one line that names the value, what is allowed and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LONGEST_REASON = 200


class UserError(ValueError):
    """A mistake that the user can correct: the command line prints its one line and exits with 2."""


class RunFailedError(RuntimeError):
    """A run failed for a reason other than a user error: the command line prints its one line and exits with 1."""


class MissingFeatureError(UserError):
    """A feature needs a package that is not installed; the message names the package."""


def nearest_name(value: str, known: Iterable[str]) -> str | None:
    """The known name most similar to the value; None if no name is similar."""
    return next(iter(difflib.get_close_matches(value, list(known), n=1, cutoff=0.6)), None)


def unknown_name(kind: str, value: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a registry: lists the known names, the nearest one first."""
    names = sorted(known)
    nearest = nearest_name(value, names)
    hint = f" Did you mean '{nearest}'?" if nearest else ""
    return UserError(f"Unknown {kind} '{value}'.{hint} Known: {', '.join(names)}.")


def one_line(error: BaseException, longest: int | None = None) -> str:
    """An error as one line of at most `longest` characters; its type if it has no message.

    Spaces within a line are unchanged, because they may be part of a file name.
    """
    text = " ".join(part.strip() for part in str(error).splitlines() if part.strip())
    return text[:longest] or type(error).__name__


def reason_of(error: BaseException) -> str:
    """The cause that a library reports, in one line: its first sentence, without its advice to programmers.

    For files that torch refuses to unpickle it names what they contain, not how to run their code regardless.
    """
    text = " ".join(one_line(error).split())
    if "Weights only load failed" in text:
        held = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", text)
        return f"it contains a {held[1]} object, which is not a tensor" if held else "it is not a file of tensors"
    return text.partition(". ")[0].rstrip(".")[:LONGEST_REASON]
