"""Imports never lead in a circle, also not those of types or inside functions."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PLATFORM = Path(__file__).resolve().parents[2] / "platform"


def imports() -> dict[str, set[str]]:
    """The modules that each module of the platform imports anywhere; packages, which load names on use, are left out."""
    files = {".".join(path.relative_to(PLATFORM).with_suffix("").parts): path for path in PLATFORM.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        if path.stem == "__init__":
            continue
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        named = {node.module or "" for node in nodes}
        named |= {f"{node.module}.{each.name}" for node in nodes for each in node.names}
        found[name] = {each for each in named if each in files}
    return found


def test_no_import_leads_in_a_circle() -> None:
    found = imports()
    assert found["fieldshift.motions.policy"] >= {"fieldshift.motions.policy_file", "fieldshift.motions.graph"}
    order = list(TopologicalSorter(found).static_order())
    assert order.index("fieldshift.motions.graph") < order.index("fieldshift.motions.policy")


def test_a_circle_would_be_found() -> None:
    found = imports()
    found["fieldshift.motions.policy_file"] = {*found["fieldshift.motions.policy_file"], "fieldshift.motions.policy"}
    with pytest.raises(CycleError):
        list(TopologicalSorter(found).static_order())
