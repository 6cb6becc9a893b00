"""What README.md and the pages of docs/ show is tried: Python blocks run, command lines parse."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import pipelines
from fieldshift.arguments import normalise, option_kinds
from fieldshift.cli import command_parser, commands
from fieldshift.motions import Policy

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
STANDS_FOR_MORE = {"..."}


def python_blocks() -> list[str]:
    return [code for page in PAGES for language, code in BLOCK.findall(page.read_text()) if language == "python"]


def command_lines() -> list[list[str]]:
    """Every `fieldshift COMMAND ...`, in blocks and within the text, without its comment."""
    found = []
    for page in PAGES:
        text = page.read_text()
        blocks = [line for _, code in BLOCK.findall(text) for line in code.splitlines()]
        spans = re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
        for line in [*blocks, *spans]:
            if line.strip().startswith("fieldshift "):
                found.append([word for word in shlex.split(line, comments=True)[1:] if word not in STANDS_FOR_MORE])
    return found


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy.single("translate_x", 0.45, frames=3)
    (tmp_path / "runs/study").mkdir(parents=True)
    policy.save(tmp_path / "runs/study/policy.json")
    monkeypatch.chdir(tmp_path)
    real = inspect.signature(pipelines.study)
    called: list[dict[str, Any]] = []

    def study(**options: Any) -> SimpleNamespace:  # which takes minutes; its own tests run it
        called.append(real.bind(**options).arguments)
        return SimpleNamespace(policy=policy, comparison=SimpleNamespace(summary=None))

    monkeypatch.setitem(pipelines.__dict__, "study", study)
    blocks = python_blocks()
    assert len(blocks) >= 3
    for code in blocks:
        loader = [(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]))]
        exec(compile(code, "README.md", "exec"), {"loader": loader, "__name__": "readme"})
    assert called == [{"seeds": 5}]
    assert (tmp_path / "folded.pt").exists()


def test_command_lines_parse() -> None:
    lines = command_lines()
    assert len({line[0] for line in lines}) >= 12
    for words in lines:
        command = words[0]
        if command in {"--help", "--version", "COMMAND"}:
            continue
        assert command in commands(), words
        if words[1:] == []:  # the command is named, not called
            continue
        function = getattr(importlib.import_module(commands()[command]), command.replace("-", "_"))
        positional = getattr(function, "positional", None)
        parsed, loose = normalise(words[1:], option_kinds(function), positional)
        known = [word for word in parsed if not word.startswith("--config=")]
        command_parser(command, function).parse_args(known)
        assert loose is None or positional is not None
