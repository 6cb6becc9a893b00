"""What a user did wrong, said in one line that names the value, what is allowed and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that the person at the keyboard can mend: the command line prints its one line and exits with 2."""


class RunFailedError(RuntimeError):
    """A run that could not be finished for no mistake of the person: the command line prints its one line and exits with 1."""


class MissingFeatureError(UserError):
    """A feature needs a package that is not installed here; the line names the package."""


def nearest_name(value: str, known: Iterable[str]) -> str | None:
    """The known name that is most like the value, None where none is like it."""
    return next(iter(difflib.get_close_matches(value, list(known), n=1, cutoff=0.4)), None)


def unknown_name(kind: str, value: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a registry: lists the known names and the nearest one first."""
    names = sorted(known)
    nearest = nearest_name(value, names)
    hint = f" Did you mean '{nearest}'?" if nearest else ""
    return UserError(f"Unknown {kind} '{value}'.{hint} Known: {', '.join(names)}.")


def one_line(error: BaseException) -> str:
    """What an error says in one line; blanks in it, which may be part of a file's name, stay as they are."""
    return " ".join(part.strip() for part in str(error).splitlines() if part.strip())


def reason_of(error: BaseException, longest: int = 200) -> str:
    """What a library says is wrong, in one line: its first sentence, without its advice to programmers.

    Of files that torch refuses to unpickle it says what is in them, not how to run their code all the same.
    """
    text = " ".join(str(error).split())
    if "Weights only load failed" in text:
        held = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", text)
        return f"it holds an object of {held[1]}, which is no tensor" if held else "it is no file of tensors"
    return text.partition(". ")[0].rstrip(".")[:longest] or type(error).__name__
