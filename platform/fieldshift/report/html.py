"""The report of a study as one self-contained HTML page: no network, no script, light and dark, printable."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from fieldshift.report.blocks import Block, FigureBlock, Section, TableBlock
from fieldshift.report.embedding import embed
from fieldshift.whole_file import write_whole

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

NEGATIVE = r"(?<![\w.)/=-])-(?=\d)"
"""The hyphen before a negative number in a sentence."""
NUMERIC = re.compile(r"^[-+<]?[\d,.]+")


def write_report(path: str | Path, *, title: str, sections: Sequence[Section], subtitle: str = "") -> Path:
    """Writes the report as one HTML file that needs no other file, whole or not at all, and returns its path.

    Figures are inline SVG or base64 PNG, the style sheet is inside. The page has a table of contents, numbered sections,
    tables and figures with captions, follows the reader's light or dark setting and prints in black on white. The folder
    is created.
    """
    return write_whole(Path(path), render_report(title=title, sections=sections, subtitle=subtitle))


def render_report(*, title: str, sections: Sequence[Section], subtitle: str = "") -> str:
    """Renders the HTML text that `write_report` writes."""
    tables, figures = count(1), count(1)
    return _environment().get_template("page.html.jinja").render(
        title=title,
        subtitle=subtitle,
        day=datetime.date.today().isoformat(),
        sections=[(section.title, list(_numbered(section.blocks, tables, figures))) for section in sections],
    )  # fmt: skip


def _numbered(
    blocks: Sequence[Block], tables: Iterator[int], figures: Iterator[int]
) -> Iterator[tuple[str, Block, int]]:
    """The blocks with their kinds, and the numbers of tables and figures (0 for others)."""
    for block in blocks:
        number = (
            next(tables) if isinstance(block, TableBlock) else next(figures) if isinstance(block, FigureBlock) else 0
        )
        yield type(block).__name__, block, number


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(inline=_inline, minus=_minus, picture=_picture)
    return environment


def _picture(block: FigureBlock, number: int) -> Markup:
    from markupsafe import Markup

    wide = embed(block.content, alt=block.alt, prefix=f"figure-{number}-")
    if block.narrow is None:
        return Markup(wide)
    narrow = embed(block.narrow, alt=block.alt, prefix=f"figure-{number}-narrow-")
    return Markup(f'<div class="on-wide">{wide}</div><div class="on-narrow">{narrow}</div>')


def _minus(cell: str) -> Markup:
    """A cell with minus signs in its number, and a dash where there is no value."""
    from markupsafe import Markup, escape

    if cell == "-":
        return Markup('<span class="none">&ndash;</span>')
    return escape(cell.replace("-", "\N{MINUS SIGN}") if NUMERIC.match(cell) else cell)


def _inline(words: str) -> Markup:
    """Escaped text: `backticks` mark code, numbers outside it have minus signs and stay with their percent sign."""
    from markupsafe import Markup, escape

    words = re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", words)
    parts = re.split(r"`([^`]+)`", words)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(re.sub(NEGATIVE, "\N{MINUS SIGN}", part))
        for place, part in enumerate(parts)
    )
