"""A study's report as ONE self-contained HTML page: no network, no script, light and dark, printable."""

from __future__ import annotations

import datetime
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fieldshift.report.blocks import (
    Block,
    Code,
    Definitions,
    FigureBlock,
    Heading,
    KeyNumbers,
    Paragraph,
    Points,
    Section,
    TableBlock,
)
from fieldshift.report.embedding import embed
from fieldshift.report.page_style import STYLE
from fieldshift.report.sheet import Sheet
from fieldshift.whole_file import write_whole

NUMERIC = re.compile(r"^[-+<]?[\d,.]+")


def write_report(
    path: str | Path,
    *,
    title: str,
    sections: Sequence[Section],
    subtitle: str = "",
    date: datetime.date | None = None,
    language: str = "en",
) -> Path:
    """The report is one HTML file that needs nothing else: figures are inline SVG or base64 PNG, styles are inside.

    The page has a table of contents, numbered sections, tables and figures with captions, follows the reader's light or
    dark setting and prints in black on white. `date` is today unless given. The file is written whole or not at all
    (temporary name, then rename); its folder is made. Returns the path.
    """
    page = render_report(title=title, sections=sections, subtitle=subtitle, date=date, language=language)
    return write_whole(Path(path), page)


def render_report(
    *,
    title: str,
    sections: Sequence[Section],
    subtitle: str = "",
    date: datetime.date | None = None,
    language: str = "en",
) -> str:
    """The HTML text that `write_report` writes."""
    press = _Press()
    bodies = []
    entries = []
    for number, section in enumerate(sections, start=1):
        anchor = f"section-{number}"
        name = html.escape(section.title)
        entries.append(f'<li><a href="#{anchor}"><span class="number">{number}</span>{name}</a></li>')
        blocks = "\n".join(press.block(block) for block in section.blocks)
        heading = f'<h2 id="{anchor}-title"><span class="number">{number}</span>{name}</h2>'
        bodies.append(f'<section id="{anchor}" aria-labelledby="{anchor}-title">\n{heading}\n{blocks}\n</section>')
    day = (date or datetime.date.today()).isoformat()
    under = f'<p class="subtitle">{_inline(subtitle)}</p>' if subtitle else ""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="{html.escape(language, quote=True)}">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            '<a class="skip" href="#report">Skip to the report</a>',
            f"<header><h1>{html.escape(title)}</h1>{under}",
            f'<p class="date"><time datetime="{day}">{day}</time></p></header>',
            '<nav aria-labelledby="contents"><h2 id="contents">Contents</h2>',
            f"<ol>{''.join(entries)}</ol></nav>",
            '<main id="report">',
            *bodies,
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


@dataclass
class _Press:
    """Sets blocks one after the other and counts the tables and figures."""

    tables: int = field(default=0)
    figures: int = field(default=0)

    def block(self, block: Block) -> str:
        match block:
            case Heading(text):
                return f"<h3>{_inline(text)}</h3>"
            case Paragraph(text, lead):
                opening = '<p class="lead">' if lead else "<p>"
                return "".join(f"{opening}{_inline(line)}</p>" for line in text.splitlines() if line.strip())
            case Points(items):
                return f"<ul>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</ul>"
            case Code(text):
                return f"<pre><code>{html.escape(text.strip(chr(10)))}</code></pre>"
            case Definitions(items):
                pairs = "".join(f"<dt>{_inline(name)}</dt><dd>{_inline(value)}</dd>" for name, value in items)
                return f"<dl>{pairs}</dl>"
            case KeyNumbers(items):
                return f'<ul class="key-numbers">{"".join(map(_key_number, items))}</ul>'
            case TableBlock():
                self.tables += 1
                return _table(block, self.tables)
            case FigureBlock():
                self.figures += 1
                return _figure(block, self.figures)
        raise TypeError(f"a report has no block of the type {type(block).__name__}")


def _key_number(item: object) -> str:
    from fieldshift.report.blocks import KeyNumber

    assert isinstance(item, KeyNumber)
    note = f'<span class="note">{_inline(item.note)}</span>' if item.note else ""
    value, label = _minus(item.value), _inline(item.label)
    return f'<li><span class="value">{value}</span><span class="label">{label}</span>{note}</li>'


def _table(block: TableBlock, number: int) -> str:
    sheet = block.content if isinstance(block.content, Sheet) else Sheet.from_frame(block.content)
    caption = block.caption or sheet.title
    sides = [' class="r"' if side == "right" else "" for side in sheet.align]
    head = "".join(
        f'<th scope="col"{side}>{html.escape(name)}</th>' for name, side in zip(sheet.columns, sides, strict=True)
    )
    rows = []
    for row in sheet.rows:
        strong = ' class="strong"' if row[0] in block.strong else ""
        first = f'<th scope="row"{sides[0]}>{html.escape(row[0])}</th>'
        rest = "".join(f"<td{side}>{_minus(cell)}</td>" for cell, side in zip(row[1:], sides[1:], strict=True))
        rows.append(f"<tr{strong}>{first}{rest}</tr>")
    notes = "".join(f'<p class="table-note">{_inline(note)}</p>' for note in sheet.notes)
    anchor = f"table-{number}"
    return (
        f'<div class="table" id="{anchor}">'
        f'<div class="scroll" role="region" aria-labelledby="{anchor}-caption" tabindex="0">'
        f'<table><caption id="{anchor}-caption"><b>Table {number}.</b> {_inline(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{notes}</div>"
    )


def _figure(block: FigureBlock, number: int) -> str:
    picture = embed(block.content, alt=block.alt, prefix=f"figure-{number}-")
    caption = f"<figcaption><b>Figure {number}.</b> {_inline(block.caption)}</figcaption>"
    return f'<figure id="figure-{number}">{picture}{caption}</figure>'


def _minus(cell: str) -> str:
    text = html.escape(cell)
    if cell == "-":
        return '<span class="none">&ndash;</span>'
    return text.replace("-", "\N{MINUS SIGN}") if NUMERIC.match(cell) else text


def _inline(words: str) -> str:
    """Escaped text in which `backticks` set code, and no line ends between a number and its percent sign."""
    words = re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", words)
    parts = re.split(r"`([^`]+)`", words)
    return "".join(f"<code>{html.escape(part)}</code>" if i % 2 else html.escape(part) for i, part in enumerate(parts))
