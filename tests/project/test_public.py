"""The functions of `pipelines` stay functions, whichever of its modules were imported."""

from __future__ import annotations

import importlib

import pipelines


def test_no_module_takes_the_place_of_a_command() -> None:
    modules = set(pipelines.HOMES.values())
    for module in modules:
        importlib.import_module(module)
    assert not {f"pipelines.{name}" for name in pipelines.HOMES} & modules
    assert all(callable(getattr(pipelines, name)) for name in pipelines.HOMES)
