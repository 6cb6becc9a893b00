"""Lists of scenes: the list files, the parts they define, and the scenes they name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fieldshift.data.files.folder_names import name_key, role_of, words_of
from fieldshift.data.files.listing import only, text_lines
from fieldshift.data.loading import LoadingConfig
from fieldshift.data.problems import Findings
from fieldshift.errors import UserError

LIST_FOLDERS = ("ImageSets/Segmentation", "ImageSets", "splits", ".")


@dataclass(frozen=True)
class Parts:
    """Names of scenes for training and test; `test` is None where a share of `train` is to be held out."""

    train: list[str]
    test: list[str] | None
    protocol: str


def list_role(stem: str) -> str | None:
    """train, val, test, or trainval, regardless of case; None for any other list (such as aeroplane_train)."""
    if "".join(words_of(stem)) == "trainval":
        return "trainval"
    role, rest = role_of(stem)
    return role if not rest else None


def listed_parts(root: Path, loading: LoadingConfig, findings: Findings) -> Parts | None:
    """The parts that the lists below `root` define, None without lists. Raises UserError for an incomplete split."""
    named_parts = {name_key(str(name)) for name in (*(loading.train_parts or ()), *(loading.test_parts or ()))}
    for place in LIST_FOLDERS:
        folder = root / place
        files = sorted(path for path in folder.glob("*.[tT][xX][tT]") if path.is_file()) if folder.is_dir() else []
        lists: dict[str, list[Path]] = {}
        for path in files:
            if list_role(path.stem) is not None or name_key(path.stem) in named_parts:
                lists.setdefault(name_key(path.stem), []).append(path)
        if lists:
            return chosen_parts(folder, {only(paths).stem: only(paths) for paths in lists.values()}, loading, findings)
    return None


def chosen_parts(folder: Path, lists: dict[str, Path], loading: LoadingConfig, findings: Findings) -> Parts:
    if loading.train_parts or loading.test_parts:
        return configured_lists(folder, lists, loading)
    by_role: dict[str, Path] = {}
    for path in lists.values():
        role = list_role(path.stem) or ""
        if role in by_role:
            raise UserError(f"{folder} has two lists of one part ({by_role[role].name}, {path.name}); delete one, or name the "
                            "lists with --loading.train_parts and --loading.test_parts.")  # fmt: skip
        by_role[role] = path
    names = {role: names_in(path) for role, path in by_role.items()}
    file = {role: path.name for role, path in by_role.items()}
    held_out = "test" if "test" in names else "val" if "val" in names else None
    base = "train" if "train" in names else "trainval" if "trainval" in names else None
    if base is None:
        there = ", ".join(path.name for path in by_role.values())
        raise UserError(f"{folder} has {there} but no train.txt; add the list of the training scenes.")
    train = names[base]
    if held_out is None and {"train", "trainval"} <= set(names):
        learned = set(map(name_key, train))
        rest = [name for name in names["trainval"] if name_key(name) not in learned]
        return Parts(train, rest, f"trained on {file['train']}, tested on the rest of {file['trainval']}")
    if held_out is None:
        return Parts(train, None, f"{file[base]} alone")
    if base == "trainval" and held_out == "val":
        tested = set(map(name_key, names["val"]))
        train = [name for name in train if name_key(name) not in tested]
        return Parts(
            train, names["val"], f"trained on {file['trainval']} without {file['val']}, tested on {file['val']}"
        )
    protocol = f"trained on {file[base]}, tested on {file[held_out]}"
    unused = [role for role in ("val", "trainval") if role in names and role not in (base, held_out)]
    for role in unused:
        findings.note("not used", by_role[role], "is a list that is not used", "no action needed if intended")
    if unused:
        protocol += f" ({', '.join(file[role] for role in unused)} is not used)"
    return Parts(train, names[held_out], protocol)


def configured_lists(folder: Path, lists: dict[str, Path], loading: LoadingConfig) -> Parts:
    by_key = {name_key(stem): path for stem, path in lists.items()}

    def named(option: str, given: Iterable[str]) -> list[Path]:
        for name in given:
            if name_key(str(name)) not in by_key:
                raise UserError(f"loading.{option} names '{name}', but {folder} has no such list; there: "
                                f"{', '.join(sorted(lists))}.")  # fmt: skip
        return [by_key[name_key(str(name))] for name in given]

    train, test = named("train_parts", loading.train_parts or []), named("test_parts", loading.test_parts or [])
    if not train:
        train = [path for path in lists.values() if list_role(path.stem) == "train" and path not in test][:1]
    if not train:
        raise UserError(f"{folder} has no list train.txt; name the training lists in loading.train_parts.")
    words = " and ".join(path.name for path in train)
    learned = [name for path in train for name in names_in(path)]
    if not test:
        return Parts(learned, None, f"{words} alone")
    tested = [name for path in test for name in names_in(path)]
    return Parts(learned, tested, f"trained on {words}, tested on {' and '.join(path.name for path in test)}")


def names_in(path: Path) -> list[str]:
    names = text_lines(path, "one name per line")
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise UserError(f"{path} names '{twice}' twice; remove one of the lines.")
    return names
