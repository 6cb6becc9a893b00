"""The notebooks as pages of the site, with the outputs that they are committed with."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
PICTURES = {"image/png": "png", "image/gif": "gif"}


def on_files(files: Files, config: Any) -> Files:
    """Adds a page for every notebook, and a file for every picture in it."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        first, *cells = nbformat.read(path, as_version=4).cells
        lines = [first.source, "", f"*This page is the notebook `notebooks/{path.name}` with its outputs.*", ""]
        for place, cell in enumerate(cells, start=1):
            if cell.cell_type == "markdown":
                lines += [cell.source, ""]
                continue
            lines += ["```python", cell.source, "```", ""]
            for number, output in enumerate(cell.outputs):
                lines += shown(output, cell, f"notebooks/{path.stem}-{place}-{number}", files, config)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content="\n".join(lines)))
    return files


def shown(output: Any, cell: Any, stem: str, files: Files, config: Any) -> list[str]:
    """One output as lines of the page: a picture with the cell's words, a table, or text."""
    data = output.get("data", {})
    for kind, ending in PICTURES.items():
        if kind in data:
            files.append(File.generated(config, f"{stem}.{ending}", content=base64.b64decode(data[kind])))
            return [f"![{cell.metadata['alt']}]({Path(stem).name}.{ending})", ""]
    if "text/html" in data:
        table = re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.DOTALL)
        table = re.sub(r'\s(border|class|style)="[^"]*"', "", table)
        return [re.sub(r"\n\s*", "", table), ""]
    text = output.get("text", data.get("text/plain", ""))
    return ["```text", text.rstrip(), "```", ""]
