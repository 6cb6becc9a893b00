"""The result of inspecting a data set, for people and as plain values."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from fieldshift.data.problems import Problem
from fieldshift.wording import counted

SHOWN = 5
FEW_CLASSES = 20


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """The contents and the problems of a data set.

    protocol: description of the training and test parts. counts: usable samples of "train" and "test". classes:
    samples per class in (train, test); for segmentation, pixels. ignored: for segmentation, the share of pixels without a
    class, in [0, 1]. sizes: number of images with each (H, W), the most frequent first. mean, std: per channel of train
    in units of [0, 1], as a network sees it. problems: what cannot be used. notes: what is converted before use or was
    not checked. duplicates: pairs (train, test) of samples with the same pixels. near: pairs that look
    almost the same. repeated: samples that occur again within train.
    looked_at: number of samples decoded, and the total.
    """

    name: str
    protocol: str
    task: str
    counts: dict[str, int]
    classes: dict[str, tuple[int, int]]
    ignored: float
    sizes: dict[tuple[int, int], int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    duplicates: tuple[tuple[str, str], ...]
    near: tuple[tuple[str, str], ...]
    repeated: int
    looked_at: tuple[int, int]

    @property
    def is_clean(self) -> bool:
        """Whether nothing has to be corrected: no problem, and no test sample that is also in train."""
        return not self.problems and not self.duplicates

    @property
    def exit_status(self) -> int:
        """Exit status of `fieldshift check`: 0, or 1 if something has to be corrected."""
        return 0 if self.is_clean else 1

    def balance(self) -> float:
        """Ratio of the largest to the smallest class of train, in samples (segmentation: pixels); infinite if one is empty."""
        amounts = [train for train, _ in self.classes.values()]
        return max(amounts) / min(amounts) if min(amounts) else float("inf")

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values, with the counts of problems and notes by kind."""
        plain = asdict(self)
        plain["sizes"] = [[*size, count] for size, count in self.sizes.items()]
        for name in ("problems", "notes"):
            plain[f"{name}_by_kind"] = dict(Counter(entry.kind for entry in getattr(self, name)))
        plain["balance"] = self.balance() if min(train for train, _ in self.classes.values()) else None
        return plain

    def lines(self) -> list[str]:
        """The report as lines to print: first the totals, then the problems with their remedies."""
        from fieldshift.data.dataset import class_words

        unit = "pixels" if self.task == "segmentation" else "samples"
        sizes = ", ".join(
            f"{height} x {width} ({count})" for (height, width), count in list(self.sizes.items())[:SHOWN]
        )
        lines = [
            f"data: {self.name}: {class_words(tuple(self.classes))}; {self.protocol}; {self.counts['train']} train and"
            f" {self.counts['test']} test samples, {self.task}, {counted(self.channels, 'channel')}",
            f"height x width (images): {sizes}"
            + (f" and {len(self.sizes) - SHOWN} more" if len(self.sizes) > SHOWN else ""),
            f"mean {rounded(self.mean)}, std {rounded(self.std)}",
            f"largest class over smallest: {self.balance():.1f} ({unit})"
            if math.isfinite(self.balance())
            else f"a class has no {unit} among these",
        ]
        if len(self.classes) <= FEW_CLASSES:
            parts = ", ".join(f"{name} {train} + {test}" for name, (train, test) in self.classes.items())
            lines.append(f"{unit} per class, train + test: {parts}")
        if self.task == "segmentation":
            lines.append(f"pixels without a class: {100 * self.ignored:.1f} %")
        if self.looked_at[0] < self.looked_at[1]:
            lines.append(f"inspected {self.looked_at[0]} of {self.looked_at[1]} samples")
        if self.repeated:
            lines.append(f"{counted(self.repeated, 'train sample')} equal to another one")
        if self.duplicates:
            first = " = ".join(self.duplicates[0])
            lines.append(
                f"{counted(len(self.duplicates), 'test sample')} also in train ({first}): remove them from train or from test"
            )
        if self.near:
            first = ", ".join(" ~ ".join(pair) for pair in self.near[:SHOWN])
            lines.append(
                f"{counted(len(self.near), 'test sample')} almost equal to one in train; copies inflate scores ({first})"
            )
        for title, entries in (("problem", self.problems), ("note", self.notes)):
            for kind, count in Counter(entry.kind for entry in entries).most_common():
                lines.append(f"{title}: {count} x {kind}")
                lines += [f"  {entry.line()}" for entry in [entry for entry in entries if entry.kind == kind][:SHOWN]]
        return lines


def rounded(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"
