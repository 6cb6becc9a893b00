"""The parts of a report: sections of headings, paragraphs, lists, tables, figures, key numbers and code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from fieldshift.report.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Plain text, one paragraph per line; `backticks` mark code, and there is no other markup. lead=True sets it larger."""

    text: str
    lead: bool = False


@dataclass(frozen=True)
class Points:
    """A list of plain sentences, as in `Paragraph`."""

    items: Sequence[str]


@dataclass(frozen=True)
class TableBlock:
    """A numbered table: a sheet, or a data frame (numbers right-aligned, 4 significant digits), with a caption.

    The caption gives the conditions of the numbers; by default it is the title of the sheet. `strong` lists the rows, by
    their first cell, that are set in bold.
    """

    content: Sheet | pd.DataFrame
    caption: str = ""
    strong: Sequence[str] = ()

    @property
    def sheet(self) -> Sheet:
        """The content as a sheet."""
        return self.content if isinstance(self.content, Sheet) else Sheet.from_frame(self.content)


@dataclass(frozen=True)
class FigureBlock:
    """A numbered figure: a matplotlib Figure, or a PNG or SVG file, with its alternative text and a caption.

    `narrow` replaces it on a narrow screen, where its letters would become too small: the same with its panels stacked.
    """

    content: Figure | Path
    caption: str
    alt: str
    narrow: Figure | Path | None = None


@dataclass(frozen=True)
class KeyNumber:
    """A headline number: the value as printed, its meaning, and a note on its uncertainty."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class KeyNumbers:
    """A row of headline numbers."""

    items: Sequence[KeyNumber]


@dataclass(frozen=True)
class Definitions:
    """Names with their values, such as the conditions of a measurement."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    """Commands or code, printed verbatim."""

    text: str


Block = Heading | Paragraph | Points | TableBlock | FigureBlock | KeyNumbers | Definitions | Code


@dataclass(frozen=True)
class Section:
    """A numbered section with an entry in the table of contents."""

    title: str
    blocks: Sequence[Block]
