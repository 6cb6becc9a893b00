"""The layout of a folder of pictures: which folders are parts and which are classes; ambiguous layouts are refused."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fieldshift.data.files.folder_names import Role, is_fold, is_mask_word, is_picture_word, name_key, role_of
from fieldshift.data.files.formats import endings
from fieldshift.data.files.listing import is_clutter, subfolders
from fieldshift.data.loading import LoadingConfig
from fieldshift.data.problems import Findings
from fieldshift.errors import UserError
from fieldshift.wording import counted

EXAMPLE = "PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg, or PATH/CLASS/*.jpg"
TOP_ARE_CLASSES = "give --loading.classes_on_top true if the folders at the top are the classes"
NAME_PARTS = "name the parts with --loading.train_parts and --loading.test_parts"

Folders = dict[str, list[Path]]
"""Folders by their common name; several where names differ only in case or Unicode form."""


@dataclass(frozen=True)
class FolderLayout:
    """The locations of class folders: in `train` and `test`, or all in `train` with `test` empty.

    others: parts that exist but are not used, as described in the protocol.
    """

    train: tuple[Path, ...]
    test: tuple[Path, ...]
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Peek:
    """The direct contents of a folder: whether there are pictures, and the names of its folders."""

    pictures: int
    folders: tuple[str, ...]

    @property
    def holds_classes(self) -> bool:
        return bool(self.folders) and not self.pictures


def peek(folders: Iterable[Path]) -> Peek:
    pictures, inner = 0, set()
    for folder in folders:
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    if is_clutter(entry.name) or entry.is_symlink():
                        continue
                    if entry.is_dir():
                        inner.add(entry.name)
                    else:
                        pictures += entry.name.lower().endswith(endings())
        except OSError:
            continue  # listing it later reports the problem
    return Peek(pictures, tuple(sorted(inner)))


def folder_layout(root: Path, loading: LoadingConfig, findings: Findings) -> FolderLayout:
    """The parts of the folder at `root`. Raises UserError where names and contents allow several readings."""
    base = unwrapped(root, keep_parts=True)
    top = subfolders(base, root, findings)
    seen = {name: peek(paths) for name, paths in top.items()}
    note_loose(base, peek([base]), findings)
    if loading.classes_on_top:
        return FolderLayout((base,), ())
    if loading.train_parts or loading.test_parts:
        return configured_parts(base, top, seen, loading, findings)
    roles = roles_at(top, seen)
    if "train" in roles.values():
        return parts_by_name(base, top, seen, roles, findings)
    for name, role in roles.items():
        if role in ("test", "val"):
            others = ", ".join(f"'{other}'" for other in top if other != name)
            raise UserError(f"{base} has '{name}' but no 'train'{' beside it, only ' + others if others else ''}; lay it"
                            f" out as {EXAMPLE}, {NAME_PARTS}, or {TOP_ARE_CLASSES}.")  # fmt: skip
    return FolderLayout(classes_at(base, top, seen, findings), ())


def unwrapped(folder: Path, *, keep_parts: bool) -> Path:
    """The folder that contains several folders of folders: archives often unpack to PATH/NAME/NAME/..."""
    while True:
        here = peek([folder])
        if here.pictures or len(here.folders) != 1 or (keep_parts and role_of(here.folders[0])[0] is not None):
            return folder
        if not peek([folder / here.folders[0]]).holds_classes:
            return folder
        folder = folder / here.folders[0]


def note_loose(folder: Path, here: Peek, findings: Findings) -> None:
    if here.pictures and here.folders:
        findings.note("not used", folder, f"holds {counted(here.pictures, 'picture')} beside its folders, in no class",
                      "move them into the folder of their class")  # fmt: skip


def roles_at(top: Folders, seen: dict[str, Peek]) -> dict[str, Role]:
    """The folders that are parts by name, as far as their contents allow it."""
    named = {name: role_of(name) for name in top}
    strong = {name: role for name, (role, rest) in named.items() if role is not None and not rest}
    # A folder called train may be a class; next to one called test it is a part, even if it contains stray pictures.
    are_parts = {"train"} < set(strong.values())
    if any(
        role == "train" and (seen[name].holds_classes or (are_parts and seen[name].folders))
        for name, role in strong.items()
    ):
        return strong
    # seg_train next to seg_test: the other words must be the same in all of them.
    weak = {name: role for name, (role, rest) in named.items() if role is not None and rest}
    alike = len({named[name][1] for name in weak}) == 1 and {"train"} < set(weak.values())
    if alike and not strong and all(seen[name].holds_classes for name in weak if weak[name] == "train"):
        return weak
    if strong and len(strong) == len(top) and any(seen[name].pictures for name in strong):
        first = next(name for name in strong if seen[name].pictures)
        raise UserError(f"{top[first][0]} holds pictures and no folder for each class; lay it out as {EXAMPLE}, or "
                        f"{TOP_ARE_CLASSES}.")  # fmt: skip
    return {name: role for name, role in strong.items() if seen[name].holds_classes}


def parts_by_name(
    base: Path, top: Folders, seen: dict[str, Peek], roles: dict[str, Role], findings: Findings
) -> FolderLayout:
    by_role = {role: [name for name in roles if roles[name] == role] for role in ("train", "test", "val", "unlabelled")}
    for role in ("train", "test", "val"):
        if len(by_role[role]) > 1:
            raise UserError(f"{base} has more than one folder named after its {role} part ({', '.join(by_role[role])}); "
                            f"{NAME_PARTS}.")  # fmt: skip
    (train,) = by_role["train"]
    held_out = next((by_role[role][0] for role in ("test", "val") if by_role[role]), None)
    if held_out is not None and not seen[held_out].folders:
        labelled = [name for role in ("val", "test") for name in by_role[role] if seen[name].folders]
        way = f"give --loading.test_parts {shlex.quote(labelled[0])} to test on {labelled[0]}/" if labelled else (
            "move it away to hold out a share of the training images")  # fmt: skip
        raise UserError(f"{top[held_out][0]} has no test image in a folder of its class ({seen[held_out].pictures} are in"
                        f" no class), so nothing can be scored on it; sort them into folders, or {way}.")  # fmt: skip
    others = tuple(name for role in ("test", "val") for name in by_role[role] if name != held_out)
    classes = {name_key(name) for name in seen[train].folders}
    for name in sorted(set(top) - {train, held_out}):
        alike = classes & {name_key(inner) for inner in seen[name].folders}
        if held_out is None and alike and roles.get(name) != "unlabelled":
            raise UserError(f"{top[name][0]} holds the classes of {train}/ and may be the test part; give "
                            f"--loading.test_parts {shlex.quote(name)}, or move it elsewhere.")  # fmt: skip
        what = "is not used, as there is a test folder" if name in others else "is neither train, test nor val"
        remedy = "no action needed if intended" if name in others else "move it elsewhere, or rename it"
        findings.note("not used", top[name][0], what, remedy)
    return FolderLayout(tuple(top[train]), tuple(top[held_out]) if held_out else (), others)


def configured_parts(
    base: Path, top: Folders, seen: dict[str, Peek], loading: LoadingConfig, findings: Findings
) -> FolderLayout:
    """The parts named by the settings; a part that they do not name is found by its own name."""
    by_key = {name_key(name): name for name in top}

    def named(option: str, given: Iterable[str] | None) -> list[str]:
        chosen = [by_key.get(name_key(str(name)), "") for name in given or ()]
        for name, found in zip(given or (), chosen, strict=True):
            if not found or not seen[found].folders:
                there = ", ".join(name for name in top if seen[name].folders) or "none"
                raise UserError(f"loading.{option} names '{name}', but {base} has no such folder with a folder for each "
                                f"class; there: {there}.")  # fmt: skip
        return chosen

    train, test = named("train_parts", loading.train_parts), named("test_parts", loading.test_parts)
    if both := sorted(set(train) & set(test)):
        raise UserError(f"loading.train_parts and loading.test_parts both name '{both[0]}'; leave it out of one.")
    left = [name for name in top if name not in {*train, *test} and seen[name].folders]
    roles = {name: role_of(name) for name in left}
    if not train:
        train = [name for name in left if roles[name] == ("train", "")] or [name for name in left if is_fold(name)]
        if not train:
            named_too = f" than {', '.join(test)}, which loading.test_parts names" if test else " named train"
            raise UserError(f"{base} has no other folder to train on{named_too}; name one in loading.train_parts.")
    if not test:
        wanted: tuple[Role, ...] = ("test", "val")
        test = next(([name for name in left if roles[name] == (role, "")][:1] for role in wanted
                     if any(roles[name] == (role, "") for name in left)), [])  # fmt: skip
    for name in sorted(set(top) - {*train, *test}):
        findings.note("not used", top[name][0], "is in no part that was named", "no action needed if intended")
    return FolderLayout(
        tuple(path for name in train for path in top[name]), tuple(path for name in test for path in top[name])
    )


def classes_at(base: Path, top: Folders, seen: dict[str, Peek], findings: Findings) -> tuple[Path, ...]:
    """The folders that contain the class folders, where no name indicates parts."""
    pictures = [name for name in top if is_picture_word(name)]
    masks = [name for name in top if is_mask_word(name)]
    if pictures and masks and len(pictures) + len(masks) == len(top):
        if len(pictures) == 1 and seen[pictures[0]].holds_classes:
            for name in masks:
                findings.note(
                    "not used",
                    top[name][0],
                    "seems to hold masks or annotations (by its name)",
                    "no action needed if intended",
                )
            return tuple(top[pictures[0]])
        raise UserError(f"{base} holds pictures and masks ({', '.join(sorted(top))}), not a folder for each class; give "
                        f"voc:{base} for segmentation, or {TOP_ARE_CLASSES}.")  # fmt: skip
    deep = {name: seen[name].folders for name in top if seen[name].holds_classes}
    owners: dict[str, str] = {}
    for name, inner in deep.items():
        for folder in inner:
            if is_picture_word(folder) or is_mask_word(folder):
                continue
            if name_key(folder) in owners:
                raise UserError(
                    f"{base} is a folder of folders that can be read in two ways: {owners[name_key(folder)]}/ and {name}/ "
                    f"both hold '{folder}'; {NAME_PARTS} if they are parts, or {TOP_ARE_CLASSES}."
                )
            owners[name_key(folder)] = name
    return (base,)
