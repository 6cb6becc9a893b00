"""Problems of a data set: the file, what is wrong, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fieldshift.errors import UserError

ACCEPTABLE = {
    "empty-class": "a class without a pixel or a number between the classes that no mask holds",
    "unnamed-label": "mask values that no class has; accepted, their pixels are ignored",
    "ignored-pixels": "more than half of the pixels carry no class",
    "two-labels": "one picture has two classes",
    "class-only-in-test": "test images of a class that train lacks; accepted, they are left out",
}
"""Findings about a whole data set that make its scores meaningless: they stop a run unless `loading.accept` lists them."""

UNTESTED = "class not in test"
"""The kind of a note about a class without a sample to test on."""


@dataclass(frozen=True)
class Problem:
    """One problem. `kind` is a short constant to count by, `remedy` an instruction."""

    kind: str
    path: str
    what: str
    remedy: str

    def line(self) -> str:
        return f"{self.path} {self.what}; {self.remedy}."


class BadFileError(UserError):
    """A file of a data set cannot be used; `problem` gives the reason."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.line() + " Or give --loading.skip_unreadable to skip such files.")
        self.problem = problem

    def __reduce__(self) -> tuple[type[BadFileError], tuple[Problem]]:
        return type(self), (self.problem,)


class MeaninglessDataError(UserError):
    """A score measured on this data set would be meaningless; `problem` gives the reason."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.line()} Or give --loading.accept {problem.kind} to continue anyway.")
        self.problem = problem

    def __reduce__(self) -> tuple[type[MeaninglessDataError], tuple[Problem]]:
        return type(self), (self.problem,)


@dataclass
class Findings:
    """Collects what is found while a data set is read: the first problem raises, or with `skip` all are collected.

    problems: samples that were left out. notes: changes to usable files (converted, turned, not checked).
    accepted: kinds of ACCEPTABLE that become notes. looking: whether everything is only collected for a report, so that
    findings that would stop a run become problems.
    """

    skip: bool
    accepted: frozenset[str] = frozenset()
    looking: bool = False
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def add(self, kind: str, path: object, what: str, remedy: str) -> None:
        """Adds the problem, or raises BadFileError unless problems are skipped."""
        self.keep(Problem(kind, str(path), what, remedy))

    def keep(self, problem: Problem) -> None:
        if not self.skip:
            raise BadFileError(problem)
        self.problems.append(problem)

    def note(self, kind: str, path: object, what: str, remedy: str) -> None:
        self.notes.append(Problem(kind, str(path), what, remedy))

    def forget(self, kind: str) -> None:
        """Drops the notes of a kind, where they no longer hold."""
        self.notes[:] = [note for note in self.notes if note.kind != kind]

    def stop(self, kind: str, path: object, what: str, remedy: str) -> None:
        """Raises MeaninglessDataError, unless this kind is accepted (then it is a note) or this is an inspection."""
        assert kind in ACCEPTABLE, kind
        problem = Problem(kind, str(path), what, remedy)
        if kind in self.accepted:
            self.notes.append(problem)
        elif self.looking:
            self.problems.append(problem)
        else:
            raise MeaninglessDataError(problem)


def summaries(problems: Iterable[Problem]) -> tuple[str, ...]:
    """One line per kind: the first finding and the number of them."""
    by_kind: dict[str, list[Problem]] = {}
    for problem in problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    return tuple(
        f"{kind}: {found[0].path} {found[0].what}"
        + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")
        + (f"; {found[0].remedy}" if not found[0].remedy.startswith("no action") else "")
        for kind, found in by_kind.items()
    )
