"""Pages of the site that are files of the repository elsewhere, and links between all of them."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "METHOD.md": "method.md",
    "CHANGELOG.md": "changelog.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
}
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(
    r"(?P<mark>!?)\[(?P<words>[^\]]*)\]\((?!https?:|mailto:|#)(?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?\)"
)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, files: Files, **_: Any) -> str:
    """Points links at pages of the site; what is no page is named by its path in the repository instead."""
    here = page.file.src_uri
    origin = next((source for source, name in PAGES.items() if name == here), f"docs/{here}")

    def pointed(found: re.Match[str]) -> str:
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(origin), found["target"]))
        name = PAGES.get(inside, inside.removeprefix("docs/").replace(".ipynb", ".md"))
        if files.get_file_from_path(name) is not None:
            near = posixpath.relpath(name, posixpath.dirname(here) or ".")
            return f"{found['mark']}[{found['words']}]({near}{found['anchor'] or ''})"
        assert not found["mark"], f"{origin} shows {inside}, which is not below docs/"
        assert (ROOT / inside).exists(), f"{origin} names {inside}, which does not exist"
        return found["words"] if found["words"].strip("`") == inside else f"{found['words']} (`{inside}`)"

    pieces = FENCED.split(markdown)
    pieces[::2] = [LINK.sub(pointed, piece) for piece in pieces[::2]]
    return "".join(pieces)
