"""Class files of a set of masks: class names, and the numbers or colours that stand for them.

Files and forms (docs/own-data.md has examples): one name per line, numbered from 0; `red green blue name` or `name red
green blue`; `name:red,green,blue:...` (CVAT); and tables with a header that has `name` and `r`, `g`, `b`, or `name` and
`value`.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from fieldshift.data.files.folder_names import name_key
from fieldshift.data.files.listing import only, text_lines
from fieldshift.errors import UserError
from fieldshift.wording import counted

CLASS_FILES = ("classes.txt", "labels.txt", "class_names.txt", "classes.csv", "labels.csv", "class_dict.csv",
               "labelmap.txt", "label_colors.txt", "label_colours.txt", "colormap.txt")  # fmt: skip
MOST_NAMES = 254
COLOUR_FORMS = (
    re.compile(r"(?P<name>[^:]+):\s*(?P<r>\d+)\s*,\s*(?P<g>\d+)\s*,\s*(?P<b>\d+)\s*(:.*)?"),
    re.compile(r"(?P<r>\d+)[\s,;]+(?P<g>\d+)[\s,;]+(?P<b>\d+)[\s,;]+(?P<name>\S.*)"),
    re.compile(r"(?P<name>.*?\S)[\s,;]+(?P<r>\d+)[\s,;]+(?P<g>\d+)[\s,;]+(?P<b>\d+)"),
)
COLUMNS = {
    "name": ("name", "class", "label", "classname"), "r": ("r", "red"), "g": ("g", "green"), "b": ("b", "blue"),
    "value": ("value", "id", "index", "number", "pixel", "grey", "gray", "class id", "label id"),
}  # fmt: skip


@dataclass(frozen=True)
class ClassTable:
    """Names of classes in the order of their labels; `colours` packed as 65536 r + 256 g + b, and `values`, by label."""

    path: Path
    names: tuple[str, ...]
    colours: dict[int, int] | None = None
    values: dict[int, int] | None = None


def class_table(root: Path) -> ClassTable | None:
    """The class table of the class files in `root`, or None without any. Raises UserError for inconsistent files."""
    by_name: dict[str, list[Path]] = {}
    for path in sorted(root.iterdir()):
        if path.is_file():
            by_name.setdefault(name_key(path.name), []).append(path)
    tables = [read_class_file(only(by_name[name])) for name in CLASS_FILES if name in by_name]
    if not tables:
        return None
    best = next((table for table in tables if table.colours or table.values), tables[0])
    for other in tables:
        if {name_key(name) for name in other.names} != {name_key(name) for name in best.names}:
            raise UserError(f"{best.path} and {other.path} name different classes; delete the wrong one.")
    return best


def read_class_file(path: Path) -> ClassTable:
    lines = text_lines(path, "one class per line")
    rows = coloured_rows([line for line in lines if not line.startswith("#")]) or table_rows(lines)
    if rows is None:
        table = ClassTable(path, tuple(lines))
        if len({name_key(name) for name in lines}) < len(lines):
            keys = [name_key(name) for name in lines]
            twice = next(name for place, name in enumerate(lines) if keys[place] in keys[:place])
            raise UserError(
                f"{path} names the class '{twice}' twice; the number of a class is its line, so rename one."
            )
    else:
        table = numbered(path, *rows)
    if not 2 <= len(table.names) <= MOST_NAMES:
        raise UserError(
            f"{path} names {counted(len(table.names), 'class', 'classes')}, but must name 2 to {MOST_NAMES}."
        )
    return table


Rows = list[tuple[str, int]]


def coloured_rows(lines: list[str]) -> tuple[Rows, bool] | None:
    for form in COLOUR_FORMS:
        found = [form.fullmatch(line) for line in lines]
        if lines and all(found):
            return [
                (match["name"].strip(), packed(match["r"], match["g"], match["b"])) for match in found if match
            ], True
    return None


def table_rows(lines: list[str]) -> tuple[Rows, bool] | None:
    """The rows of a table with a header: names and colours, or names and values."""
    if len(lines) < 2 or not re.search(r"[,;\t]", lines[0]):
        return None
    mark = next(mark for mark in ("\t", ";", ",") if mark in lines[0])
    header, *rows = csv.reader(lines, delimiter=mark)
    columns = {kind: place for kind, names in COLUMNS.items() for place, title in enumerate(header)
               if name_key(title).replace("_", " ") in names}  # fmt: skip
    coloured = {"name", "r", "g", "b"} <= set(columns)
    needed = ("r", "g", "b") if coloured else ("value",)
    if not {"name", *needed} <= set(columns):
        return None
    if any(
        len(row) <= max(columns.values()) or not all(row[columns[kind]].strip().isdigit() for kind in needed)
        for row in rows
    ):
        return None
    if coloured:
        return [(row[columns["name"]].strip(), packed(*(row[columns[kind]] for kind in "rgb"))) for row in rows], True
    return [(row[columns["name"]].strip(), int(row[columns["value"]])) for row in rows], False


def packed(red: str, green: str, blue: str) -> int:
    if max(values := [int(red), int(green), int(blue)]) > 255:
        raise UserError(f"A class has the colour {values}, but red, green and blue must be 0 to 255.")
    return values[0] << 16 | values[1] << 8 | values[2]


def numbered(path: Path, rows: Rows, coloured: bool) -> ClassTable:
    """Labels in the order of the rows; a repeated name has several colours or values."""
    names: dict[str, str] = {}
    codes: dict[int, int] = {}
    for name, code in rows:
        names.setdefault(name_key(name), name)
        label = list(names).index(name_key(name))
        if codes.setdefault(code, label) != label:
            raise UserError(
                f"{path} gives '{name}' the {'colour' if coloured else 'value'} of another class; give each its own."
            )
    return ClassTable(path, tuple(names.values()), codes if coloured else None, None if coloured else codes)
