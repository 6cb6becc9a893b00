"""Packages that load their names on first use: importing the package does not import torch."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def load_on_use(package: str) -> None:
    """Makes `package` load the names of its `if TYPE_CHECKING:` block on first use; call it at the end of `__init__`."""
    module = sys.modules[package]
    assert module.__file__ is not None
    homes = deferred_names(Path(module.__file__).read_text(encoding="utf-8"))

    class DeferringPackage(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name not in homes:
                raise AttributeError(f"module '{package}' has no attribute '{name}'")
            value = getattr(importlib.import_module(homes[name]), name)
            setattr(self, name, value)
            return value

        def __setattr__(self, name: str, value: Any) -> None:
            # Python sets every imported module as an attribute of its package, which would hide a function of the same name.
            if not (name in homes and isinstance(value, ModuleType)):
                super().__setattr__(name, value)

    module.__class__ = DeferringPackage


def deferred_names(source: str) -> dict[str, str]:
    """The names that a source imports under `if TYPE_CHECKING:`, each with its module."""
    return {
        name.name: node.module
        for block in ast.parse(source).body
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for name in node.names
    }
