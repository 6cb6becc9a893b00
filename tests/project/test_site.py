"""`make docs`: the site builds without a warning, needs nothing from elsewhere, and every picture has words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fieldshift.cli import commands
from tests.documents import ROOT

ELSEWHERE = re.compile(r'<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)="?(?:https?:)?//[^>]*>')
NOT_LOADED = re.compile(r'rel="?(?:canonical|next|prev)')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    path = os.pathsep.join([str(ROOT / "platform"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
        check=False, timeout=240,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


def pages(site: Path) -> dict[str, str]:
    found = {str(path.relative_to(site)): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert len(found) > 30
    return found


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = [
        (name, found)
        for name, text in pages(site).items()
        for found in ELSEWHERE.findall(text)
        if not NOT_LOADED.search(found)
    ]
    assert loaded == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.search(r"url\(\s*['\"]?https?:", styles)


def test_every_picture_has_words(site: Path) -> None:
    pictures = [(name, tag) for name, text in pages(site).items() for tag in re.findall(r"<img\b[^>]*>", text)]
    assert pictures
    for name, tag in pictures:
        words = re.search(r'alt="([^"]+)"', tag)
        assert words is not None, (name, tag)
        assert len(words[1].split()) >= 3, (name, tag)


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
)
def test_lists_within_lists_are_indented_as_the_site_needs_it(page: Path) -> None:
    """By four spaces a level: fewer are a nested list on a code host, but not on the site."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    indents = {len(found) % 4 for found in re.findall(r"^( *)(?:[-*+]|\d+\.) ", text, flags=re.MULTILINE)}
    assert indents <= {0}


def test_every_command_and_public_function_has_its_entry(site: Path) -> None:
    text = pages(site)
    listed = text[str(Path("reference") / "commands.html")]
    assert [name for name in commands() if f'id="fieldshift-{name}"' not in listed] == []
    assert 'id="fieldshift.motions.Policy.video"' in text[str(Path("reference") / "motions.html")]
    assert not any("MISSING" in page or "::: " in page for page in text.values())


def test_no_page_names_a_path_of_the_machine_that_built_it(site: Path) -> None:
    own = re.compile(rf"{re.escape(str(ROOT))}|/tmp/|/home/(?!ray)|/root/")
    assert [(name, own.findall(text)) for name, text in pages(site).items() if own.search(text)] == []
