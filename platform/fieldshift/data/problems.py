"""What can be wrong with a file of a data set, said as: which file, what is wrong, what to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from fieldshift.errors import UserError


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


@dataclass
class Findings:
    """Problems met while a data set is looked through: the first one raises, or with `skip` all of them are kept.

    problems: what was left out. notes: what was done to a file that can be used (converted, turned, not looked at).
    """

    skip: bool
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
