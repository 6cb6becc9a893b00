"""One picture in two classes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from fieldshift.data.problems import Findings

Pairs = list[tuple[int, int]]


def conflicting(contents: Sequence[Hashable], labels: Sequence[int]) -> Pairs:
    """Pairs (first, copy) of samples of equal content in different classes, by place; what is empty is equal to none."""
    first: dict[Hashable, int] = {}
    pairs = []
    for place, content in enumerate(contents):
        if not content:
            continue
        earlier = first.setdefault(content, place)
        if labels[earlier] != labels[place]:
            pairs.append((earlier, place))
    return pairs


def say_conflicts(pairs: Pairs, names: Sequence[str], classes: Sequence[str], findings: Findings) -> None:
    """Says which pictures lie in two classes: each where all is gathered, else the first, and how many there are.

    `names` and `classes` are those of every sample. Raises MeaninglessDataError, unless that was accepted.
    """
    for first, second in pairs if findings.looking else pairs[:1]:
        more = f" ({len(pairs)} pictures are in two classes)" if len(pairs) > 1 and not findings.looking else ""
        findings.stop("two-labels", names[second], f"is of the class {classes[second]} and the same picture as {names[first]} "
                      f"of the class {classes[first]}{more}", "delete the one that is wrong")  # fmt: skip
