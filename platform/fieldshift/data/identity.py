"""The samples of a data set by content: to recognise them, to describe changes, and to keep a split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fieldshift.data.files.mask_table import MaskTable

Part = Literal["train", "test"]
PARTS: tuple[Part, Part] = ("train", "test")
UNNAMED = "\0"


@dataclass(frozen=True, kw_only=True)
class PartIdentity:
    """The samples of one part, in order.

    names: path below the data's folder, empty for samples without one (arrays). labels: class numbers. contents: hash of
    the image file's bytes, or of the array's pixels; empty if a file cannot be read. masks: likewise, None without masks.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    contents: tuple[str, ...]
    masks: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.contents)

    def to_plain(self) -> list[list[Any]]:
        """One row per sample: name, label, content and, with masks, the mask's content."""
        columns = [self.names, self.labels, self.contents, *([] if self.masks is None else [self.masks])]
        return [list(row) for row in zip(*columns, strict=True)]

    @staticmethod
    def from_plain(rows: list[list[Any]]) -> PartIdentity:
        columns = list(zip(*rows, strict=True)) or [(), (), ()]
        return PartIdentity(
            names=columns[0], labels=columns[1], contents=columns[2], masks=columns[3] if len(columns) > 3 else None
        )


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The samples that a data set trains and tests on, the names of its classes, and what the numbers in its masks mean."""

    classes: tuple[str, ...]
    train: PartIdentity
    test: PartIdentity
    masks: MaskTable | None = field(default=None, compare=False)

    @property
    def parts(self) -> Iterator[tuple[Part, PartIdentity]]:
        return zip(PARTS, (self.train, self.test), strict=True)

    def to_plain(self) -> dict[str, Any]:
        plain = {"classes": list(self.classes), "train": self.train.to_plain(), "test": self.test.to_plain()}
        return plain if self.masks is None else {**plain, "masks": self.masks.to_plain()}

    @staticmethod
    def from_plain(values: dict[str, Any]) -> Identity:
        train, test = (PartIdentity.from_plain(values[part]) for part in PARTS)
        masks = None if "masks" not in values else MaskTable.from_plain(values["masks"])
        return Identity(classes=tuple(values["classes"]), train=train, test=test, masks=masks)

    def part_of(self, names: Sequence[str], contents: Sequence[str], *, other: bool = False) -> list[Part | None]:
        """The part of each sample here: by name and content, else by content, else by name; None for a new one.

        Content that is in both parts counts as trained on; a copy of a test sample that is still present is new. `other`: the
        samples are of another folder. There names may be equal by chance: all samples are new unless most contents are known.
        """
        there = set(zip(names, contents, strict=True))
        exact: dict[tuple[str, str], Part] = {}
        by_content: dict[str, Part] = {}
        by_name: dict[str, Part] = {}
        for part, samples in reversed(list(self.parts)):  # so that train takes precedence
            for name, content in zip(samples.names, samples.contents, strict=True):
                if name:
                    exact[name, content] = by_name[name] = part
                if content and not (name and part == "test" and (name, content) in there):
                    by_content[content] = part
        known = {content for _, samples in self.parts for content in samples.contents}
        if other and 2 * sum(content in known for content in contents) <= len(contents):
            return [None] * len(names)
        return [
            exact.get((name, content)) or by_content.get(content) or by_name.get(name)
            for name, content in zip(names, contents, strict=True)
        ]

    def trained_on(self, contents: Iterable[str]) -> list[bool]:
        """Whether each content belongs to a training sample."""
        known = set(self.train.contents) - {""}
        return [content in known for content in contents]


def repeated(train: PartIdentity, test: PartIdentity) -> int:
    """The number of samples of `test` with the content of one in `train`."""
    known = set(train.contents) - {""}
    return sum(content in known for content in test.contents)


@dataclass(frozen=True)
class _Row:
    part: Part
    label: str
    content: str
    mask: str


def rows_of(identity: Identity) -> dict[str, _Row]:
    """Every sample by name, or, without one, by its content and the number of earlier occurrences."""
    found: dict[str, _Row] = {}
    seen: Counter[str] = Counter()
    for part, samples in identity.parts:
        masks = samples.masks or ("",) * len(samples)
        for name, label, content, mask in zip(samples.names, samples.labels, samples.contents, masks, strict=True):
            key = name or f"{UNNAMED}{content} {seen[content]}"
            seen[content] += 1
            found[key] = _Row(part, identity.classes[label], content, mask)
    return found


def changes(then: Identity, now: Identity, *, partly: bool = False) -> str:
    """Describes the differences of `now`, such as "12 relabelled (cat/000.png first), 3 new"; empty if there are none.

    partly: `now` was requested for only some of the samples, so missing or new ones are not changes.
    """
    before, after = rows_of(then), rows_of(now)
    found: dict[str, list[str]] = defaultdict(list)
    gone = [name for name in before if name not in after]
    new = [name for name in after if name not in before]
    places: dict[str, list[str]] = defaultdict(list)
    for name in gone:
        places[before[name].content].append(name)
    pairs = [(name, name) for name in before if name in after]
    pairs += [(places[content].pop(0), name) for name in new if places.get(content := after[name].content)]
    paired, matched = {old for old, _ in pairs}, {name for _, name in pairs}
    for old, name in pairs:
        was, row = before[old], after[name]
        if was.label != row.label:
            found["relabelled"].append(old)
        elif was.content != row.content:
            found["with another content"].append(old)
        elif was.mask != row.mask:
            found["with another mask"].append(old)
        elif was.part != row.part:
            found["in the other part"].append(old)
        elif old != name:
            found["renamed"].append(old)
    if not partly:
        found["gone"] = [name for name in gone if name not in paired]
        found["new"] = [name for name in new if name not in matched]
    words = [f"{len(names):,} {what}" + first_named(names) for what, names in found.items() if names]
    if then.classes != now.classes:
        words.append(f"classes {', '.join(now.classes[:9])} instead of {', '.join(then.classes[:9])}")
    return ", ".join(words)


def first_named(names: Sequence[str]) -> str:
    if names[0].startswith(UNNAMED):
        return ""
    return f" ({names[0]}{' first' if len(names) > 1 else ''})"
