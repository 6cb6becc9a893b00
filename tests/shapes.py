"""Under pytest every jaxtyping annotation of the platform is an assertion; installed before anything imports the platform."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, AbstractDtype, install_import_hook
from jaxtyping._import_hook import _JaxtypingLoader

# A whole number is a float to Python's typing rules; beartype has to be told.
checker = types.ModuleType("fieldshift_shape_checker")
checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # type: ignore[attr-defined]
sys.modules[checker.__name__] = checker


def has_shapes(made: Callable[..., Any]) -> bool:
    """Whether an annotation of a function or of a dataclass's field names an array with a shape, itself or by an alias."""
    names = {name for hint in made.__annotations__.values() for name in re.findall(r"\w+", str(hint))}
    known = (vars(sys.modules[made.__module__]).get(name) for name in names)
    return any(isinstance(each, type) and issubclass(each, AbstractArray | AbstractDtype) for each in known)


def checked(function: Any = None, *, typechecker: Any) -> Any:
    """As `jaxtyping.jaxtyped`, whose account of every call takes long: here only of functions and dataclasses with shapes.

    The types of the others are for mypy, and those of settings are checked by themselves.
    """
    if function is None:
        return lambda each: checked(each, typechecker=typechecker)
    if isinstance(function, types.FunctionType | type) and not has_shapes(function):
        return function
    return with_shapes(function, typechecker=typechecker)


with_shapes = jaxtyping.jaxtyped


def executed(loader: Any, module: types.ModuleType) -> None:
    """Executes a module with its checks, as jaxtyping's loader does, but leaves others their compiled files.

    jaxtyping renames compiled files until the module was executed, so all that it imports would be compiled from source.
    """
    path = loader.get_filename(module.__name__)
    exec(loader.source_to_code(loader.get_data(path), path), vars(module))


# Of motions only what computes: policies and their files check what users give them themselves, in one line.
SHAPED = (
    *(f"motions.{name}" for name in ("colour", "grid_sampling", "matrices", "pixel_map", "sampling")),
    *("networks", "data", "receptive_field", "training", "search"),
)


def check_shapes() -> None:
    """Shapes of modules that are imported from now on are checked in every call."""
    jaxtyping.jaxtyped = checked
    _JaxtypingLoader.exec_module = executed
    install_import_hook([f"fieldshift.{name}" for name in SHAPED], f"{checker.__name__}.check")
