"""Detects a picture that has two classes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from fieldshift.data.problems import Findings

Pairs = list[tuple[int, int]]


def conflicting(contents: Sequence[Hashable], labels: Sequence[int]) -> Pairs:
    """Pairs (first, copy) of positions of samples with equal content but different classes; empty content never matches."""
    first: dict[Hashable, int] = {}
    pairs = []
    for place, content in enumerate(contents):
        if not content:
            continue
        earlier = first.setdefault(content, place)
        if labels[earlier] != labels[place]:
            pairs.append((earlier, place))
    return pairs


def report_conflicts(pairs: Pairs, names: Sequence[str], classes: Sequence[str], findings: Findings) -> None:
    """Reports pictures that have two classes: all of them in an inspection, else the first and their number.

    `names` and `classes` are those of every sample. Raises MeaninglessDataError, unless this kind is accepted.
    """
    for first, second in pairs if findings.looking else pairs[:1]:
        more = f" ({len(pairs)} pictures have two classes)" if len(pairs) > 1 and not findings.looking else ""
        findings.stop("two-labels", names[second], f"is of the class {classes[second]} and the same picture as {names[first]} "
                      f"of the class {classes[first]}{more}", "delete the one that is wrong")  # fmt: skip
