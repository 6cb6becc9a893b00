"""The documents of the project: their pages, and the blocks of code on them."""

from __future__ import annotations

import importlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from fieldshift.arguments import normalise, option_kinds
from fieldshift.cli import commands
from fieldshift.command_parser import command_parser

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "METHOD", "ARCHITECTURE", "CHANGELOG")),
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
BLOCK = re.compile(
    r'^(?:<!-- not run: (?P<reason>[^\n]+) -->\n\n)?```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```',
    re.DOTALL | re.MULTILINE,
)
TEXT = {"text"}
"""The language of outputs and drawings, which are no code."""
STANDS_FOR_MORE = {"..."}


@dataclass(frozen=True)
class Block:
    """A block of code: why it is not run (None where it is), its language, and the file that it is the contents of."""

    page: Path
    reason: str | None
    language: str
    title: str | None
    code: str

    @property
    def lines(self) -> list[list[str]]:
        """The words of every command of a shell block, without comments."""
        found = (shlex.split(line, comments=True) for line in self.code.splitlines())
        return [words for words in found if words]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    return [
        Block(page, found["reason"], found["language"], found["title"], found["code"])
        for found in BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


def spans(page: Path) -> list[list[str]]:
    """The words of every `fieldshift COMMAND ...` within the text of a page."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    found = [line for line in re.findall(r"`([^`\n]+)`", text) if line.startswith("fieldshift ")]
    return [[word for word in shlex.split(line) if word not in STANDS_FOR_MORE] for line in found]


def check_command(words: list[str]) -> None:
    """Raises UserError or AssertionError unless `fieldshift WORDS` parses; a command alone is only named."""
    command, rest = words[0], words[1:]
    if command in {"--help", "--version", "--completion", "COMMAND"}:
        return
    assert command in commands(), words
    if not rest:
        return
    function = getattr(importlib.import_module(commands()[command]), command.replace("-", "_"))
    positional = getattr(function, "positional", None)
    parsed, loose = normalise(rest, option_kinds(function), positional)
    command_parser(command, function).parse_args([word for word in parsed if not word.startswith("--config=")])
    assert loose is None or positional is not None
    if command == "submit" and loose:
        check_command(loose)
