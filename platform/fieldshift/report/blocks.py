"""What a report is made of: sections of headings, paragraphs, points, tables, figures, key numbers and code."""

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
    """A heading below a section's own."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Plain words, a paragraph a line; `backticks` set code, nothing else is markup. lead=True sets it larger."""

    text: str
    lead: bool = False


@dataclass(frozen=True)
class Points:
    """A list of plain sentences, as in `Paragraph`."""

    items: Sequence[str]


@dataclass(frozen=True)
class TableBlock:
    """A numbered table: a sheet, or a data frame (numbers to the right, 4 significant digits), with a caption.

    The caption says under which conditions the numbers were taken; for a sheet without one its title stands in.
    `strong` names the rows (by their first cell) that are set bold.
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
    """A numbered figure: a matplotlib Figure or a PNG or SVG file; alt says what it shows, caption its conditions."""

    content: Figure | Path
    caption: str
    alt: str


@dataclass(frozen=True)
class KeyNumber:
    """One headline number: the value as printed, what it counts, and a line on how sure it is."""

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
    """Commands or code, set as typed."""

    text: str


Block = Heading | Paragraph | Points | TableBlock | FigureBlock | KeyNumbers | Definitions | Code


@dataclass(frozen=True)
class Section:
    """A numbered section with an entry in the table of contents."""

    title: str
    blocks: Sequence[Block]
