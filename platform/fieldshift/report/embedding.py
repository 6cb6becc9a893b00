"""Figures inside a page: inline SVG with colours that follow the light or dark setting, or PNG as base64."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fieldshift.errors import UserError
from fieldshift.report.figures.look import BLUE, BROWN, GREY, INK, MUTED, OWN, PAPER, RULE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_SVG = 1_500_000  # characters; a larger figure (thousands of markers) is smaller and faster as PNG
PNG_DPI = 200
INKS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    PAPER: "var(--paper)",
    BLUE: "var(--blue)",
    GREY: "var(--grey)",
    BROWN: "var(--brown)",
}
REFERENCE = re.compile(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", re.IGNORECASE)


def embed(content: Figure | Path, *, alt: str, prefix: str) -> str:
    """The HTML element of a matplotlib Figure or of a .png or .svg file, with its alternative text.

    `prefix` is put before every id inside an SVG, so that ids are unique on the page. Figures of `fieldshift.report`
    use the page's colours; others get a white background. Raises UserError for a missing file, another kind of file, an
    empty alternative text, and an SVG with scripts or external references.
    """
    if not alt.strip():
        raise UserError("A figure has an empty alternative text; describe the figure in one sentence.")
    if isinstance(content, (str, Path)):
        return _embed_file(Path(content), alt, prefix)
    svg = figure_svg(content)
    if len(svg) > LARGEST_SVG:
        return _image(figure_png(content), alt)
    own = content.get_gid() == OWN
    return _inline_svg(svg, alt, prefix, recolour=own)


def figure_svg(figure: Figure) -> str:
    """The figure as SVG text with letters as outlines; reproducible (no date, fixed ids)."""
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "fieldshift"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def figure_png(figure: Figure) -> bytes:
    """The figure as PNG bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=PNG_DPI)
    return stream.getvalue()


def _embed_file(path: Path, alt: str, prefix: str) -> str:
    if not path.is_file():
        raise UserError(f"There is no figure file {path}; give an existing .png or .svg file.")
    if path.suffix.lower() == ".png":
        return _image(path.read_bytes(), alt)
    if path.suffix.lower() == ".svg":
        text = path.read_text(encoding="utf-8")
        if re.search(r"<script|\son\w+\s*=", text, re.IGNORECASE) or REFERENCE.search(text):
            raise UserError(f"{path} has scripts or references to outside; give a self-contained SVG file.")
        return _inline_svg(text, alt, prefix, recolour=False)
    raise UserError(f"{path} cannot be included in a report; give a .png or .svg file.")


def _image(png: bytes, alt: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img class="plate" alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{data}">'


def _inline_svg(text: str, alt: str, prefix: str, *, recolour: bool) -> str:
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\sxmlns:(?!xlink)\w+="[^"]*"', "", body)
    body = re.sub(r'(?<=\sid=")', prefix, body)
    body = re.sub(r'(?<=href="#)', prefix, body)
    body = re.sub(r"(?<=url\(#)", prefix, body)
    if recolour:
        for ink, variable in INKS.items():
            body = body.replace(ink, variable)
    opening, rest = body.split(">", 1)
    opening = re.sub(r'\s(?:width|height|role|aria-label|class)="[^"]*"', "", opening)
    width = re.search(r'viewBox="\S+ \S+ (\S+) ', opening)
    limit = f' style="max-width:{float(width.group(1)) / 72:.2f}in"' if width else ""
    kind = "drawing" if recolour else "drawing plate"
    label = html.escape(alt, quote=True)
    return f'{opening} class="{kind}" role="img" aria-label="{label}"{limit}>{rest.strip()}'
