"""A table of formatted cells, printed in a terminal, as text, and in the report."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

GAP = "  "
NARROWEST_WRAP = 16


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A title, columns and rows of strings; `align` has 'left' or 'right' for every column, the first one names the row.

    On a page narrower than the table, columns are split into blocks below each other, each with the first column, and with
    the second one too where rows have the same first cell and there is room; no column is dropped. Blocks start at the
    columns `breaks`. `notes` are printed below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: tuple[str, ...]
    notes: tuple[str, ...] = ()
    breaks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.align) == len(self.columns), "one alignment for every column"
        assert all(len(row) == len(self.columns) for row in self.rows), "one cell for every column"

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, title: str = "", notes: Sequence[str] = ()) -> Sheet:
        """The sheet of a data frame without its index: numbers right-aligned with 4 significant digits, NaN as '-'."""
        numeric = [
            pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind) for kind in frame.dtypes
        ]
        rows = tuple(tuple(_cell(value) for value in row) for row in frame.itertuples(index=False, name=None))
        return cls(
            title=title,
            columns=tuple(str(name) for name in frame.columns),
            rows=rows,
            align=tuple("right" if number else "left" for number in numeric),
            notes=tuple(notes),
        )

    def text(self, width: int = 80) -> str:
        """Plain fixed-width text of at most `width` characters per line; left-aligned cells wrap, numbers never do."""
        lines = _wrap(self.title, width, "") if self.title else []
        for block in self._blocks(width):
            if lines:
                lines.append("")
            lines += self._block_lines(block, width)
        lines += [line for note in self.notes for line in _wrap(note, width, "  ")]
        return "\n".join(line.rstrip() for line in lines) + "\n"

    def rich(self, width: int = 80) -> list[Table]:
        """Rich tables without title and notes for a terminal of `width` columns: one per block of columns."""
        from rich import box
        from rich.table import Table

        key, keys = self._key_width(width), self._keys(width)
        tables = []
        for block in self._blocks(width):
            # Text, not markup, so that "[...]" in cells is printed.
            table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
            for column in block:
                table.add_column(
                    _plain(self.columns[column]),
                    justify="right" if self.align[column] == "right" else "left",
                    no_wrap=self.align[column] == "right",
                    min_width=key if column == 0 and len(block) > keys else None,
                    overflow="fold",
                )
            for row in self.rows:
                table.add_row(*(_plain(row[column]) for column in block))
            tables.append(table)
        return tables

    def _widths(self) -> list[int]:
        return [max([len(name), *(len(row[i]) for row in self.rows)]) for i, name in enumerate(self.columns)]

    def _key_width(self, width: int) -> int:
        return min(self._widths()[0], max(NARROWEST_WRAP, width // 3))

    def _keys(self, width: int) -> int:
        """The number of columns, 1 or 2, that every block begins with."""
        names = [row[0] for row in self.rows]
        if len(self.columns) < 3 or len(set(names)) == len(names):
            return 1
        widths = self._widths()
        return 2 if self._key_width(width) + widths[1] + max(widths[2:]) + 2 * len(GAP) <= width else 1

    def _blocks(self, width: int) -> list[list[int]]:
        widths, keys = self._widths(), self._keys(width)
        key = self._key_width(width) + sum(len(GAP) + each for each in widths[1:keys])
        whole = key + sum(len(GAP) + each for each in widths[keys:])
        breaks = self.breaks if whole > width else ()
        blocks = [[*range(keys)]]
        taken = key
        for column in range(keys, len(self.columns)):
            if len(blocks[-1]) > keys and (column in breaks or taken + len(GAP) + widths[column] > width):
                blocks.append([*range(keys)])
                taken = key
            blocks[-1].append(column)
            taken += len(GAP) + widths[column]
        return blocks

    def _block_lines(self, block: Sequence[int], width: int) -> list[str]:
        widths = self._widths()
        if len(block) > 1:
            widths[0] = self._key_width(width)
        for column in block:
            if self.align[column] == "left":
                others = sum(widths[other] + len(GAP) for other in block if other != column)
                widths[column] = min(widths[column], max(NARROWEST_WRAP, width - others))
        header = [self.columns[column] for column in block]
        lines = self._row_lines(header, block, widths)
        lines.append(GAP.join("-" * widths[column] for column in block))
        for row in self.rows:
            lines += self._row_lines([row[column] for column in block], block, widths)
        return lines

    def _row_lines(self, cells: Sequence[str], block: Sequence[int], widths: Sequence[int]) -> list[str]:
        wrapped = [textwrap.wrap(cell, widths[column]) or [""] for cell, column in zip(cells, block, strict=True)]
        lines = []
        for depth in range(max(len(parts) for parts in wrapped)):
            parts = []
            for column, cell in zip(block, wrapped, strict=True):
                part = cell[depth] if depth < len(cell) else ""
                parts.append(
                    part.rjust(widths[column]) if self.align[column] == "right" else part.ljust(widths[column])
                )
            lines.append(GAP.join(parts))
        return lines


def show(sheet: Sheet, console: Console | None = None) -> None:
    """Prints a sheet as a rich table in a terminal, else as plain text."""
    if console is None:
        from fieldshift.console import console as standard_output

        console = standard_output()
    if not console.is_terminal:
        console.file.write(sheet.text(console.width))
        console.file.flush()
        return
    if sheet.title:
        console.print(_plain("\n".join(_wrap(sheet.title, console.width, "")), "italic"))
    for index, table in enumerate(sheet.rich(console.width)):
        if index > 0:
            console.print()
        console.print(table)
    for note in sheet.notes:
        console.print(_plain("\n".join(_wrap(note, console.width, "  ")), "dim"))


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _plain(words: str, style: str = "") -> Any:
    from rich.text import Text

    return Text(words, style)


def _wrap(words: str, width: int, hang: str) -> list[str]:
    return textwrap.wrap(words, width, subsequent_indent=hang) or [""]
