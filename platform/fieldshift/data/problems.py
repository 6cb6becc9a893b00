"""What can be wrong with a data set, said as: which file, what is wrong, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fieldshift.errors import UserError

ACCEPTABLE = {
    "empty-class": "a class without a pixel or a number between the classes that no mask holds",
    "unnamed-label": "mask values that no class has; accepted, their pixels are ignored",
    "ignored-pixels": "more than half of the pixels carry no class",
    "two-labels": "one picture lies in two classes",
}
"""Findings about a whole data set that make its numbers meaningless: they stop a run unless `loading.accept` has them."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `kind` is a short constant to count by, `remedy` an instruction."""

    kind: str
    path: str
    what: str
    remedy: str

    def line(self) -> str:
        return f"{self.path} {self.what}; {self.remedy}."


class BadFileError(UserError):
    """A file of a data set cannot be used; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.line() + " Or give --loading.skip_unreadable to go on without such files.")
        self.problem = problem

    def __reduce__(self) -> tuple[type[BadFileError], tuple[Problem]]:
        return type(self), (self.problem,)


class MeaninglessDataError(UserError):
    """A number measured on this data set would mean nothing; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.line()} Or give --loading.accept {problem.kind} to go on all the same.")
        self.problem = problem

    def __reduce__(self) -> tuple[type[MeaninglessDataError], tuple[Problem]]:
        return type(self), (self.problem,)


@dataclass
class Findings:
    """What is met while a data set is read: the first problem raises, or with `skip` all of them are kept.

    problems: what was left out. notes: what was done to a file that can be used (converted, turned, not looked at).
    accepted: kinds of ACCEPTABLE that are notes. looking: whether all else is only gathered for a report, so that what
    would stop a run is a problem among the others.
    """

    skip: bool
    accepted: frozenset[str] = frozenset()
    looking: bool = False
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def add(self, kind: str, path: object, what: str, remedy: str) -> None:
        """Keeps the problem, or raises BadFileError when this is not to go on."""
        self.keep(Problem(kind, str(path), what, remedy))

    def keep(self, problem: Problem) -> None:
        if not self.skip:
            raise BadFileError(problem)
        self.problems.append(problem)

    def note(self, kind: str, path: object, what: str, remedy: str) -> None:
        self.notes.append(Problem(kind, str(path), what, remedy))

    def stop(self, kind: str, path: object, what: str, remedy: str) -> None:
        """Raises MeaninglessDataError, unless this kind was accepted (then it is a note) or all is only looked at."""
        assert kind in ACCEPTABLE, kind
        problem = Problem(kind, str(path), what, remedy)
        if kind in self.accepted:
            self.notes.append(problem)
        elif self.looking:
            self.problems.append(problem)
        else:
            raise MeaninglessDataError(problem)


def summaries(problems: Iterable[Problem]) -> tuple[str, ...]:
    """One line for each kind: the first of them, and how many there are."""
    by_kind: dict[str, list[Problem]] = {}
    for problem in problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    return tuple(
        f"{kind}: {found[0].path} {found[0].what}"
        + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")
        + (f"; {found[0].remedy}" if not found[0].remedy.startswith("nothing") else "")
        for kind, found in by_kind.items()
    )
