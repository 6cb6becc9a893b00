"""Checks of values that come from Python, against their types: before any work, and in one line."""

from __future__ import annotations

import math
import operator
import os
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from numbers import Real
from typing import Any, Literal, SupportsFloat, Union, get_args, get_origin, get_type_hints

from fieldshift.errors import UserError

WORDS = {int: "a whole number", float: "a number", str: "text", types.NoneType: "None"}
REFUSED = object()
LARGEST_SEED = 2**63 - 1


def accept_fields(settings: Any, group: str) -> None:
    """Checks every field of a frozen dataclass against its type, in its `__post_init__`; a path becomes text.

    `group` is the name of the settings on the command line. Raises UserError for a value of a different type, and for a
    number that is not finite.
    """
    for name, hint in field_types(settings.__class__).items():
        object.__setattr__(settings, name, accepted(f"{group}.{name}", hint, getattr(settings, name)))


@cache
def field_types(settings: Any) -> dict[str, Any]:
    """The types of the fields that are given to a dataclass."""
    hints = get_type_hints(settings)
    return {field.name: hints[field.name] for field in fields(settings) if field.init}


def is_settings(hint: Any) -> bool:
    """Whether a type is a dataclass: a group of options, such as `Recipe`."""
    return isinstance(hint, type) and is_dataclass(hint)


def choices_of(hint: Any) -> tuple[Any, ...]:
    """The types of a union; any other type alone."""
    return get_args(hint) if get_origin(hint) in {Union, types.UnionType} else (hint,)


def accepted(name: str, hint: Any, value: Any) -> Any:
    """The value as its type has it: a path as text, a number of numpy as Python's. Raises UserError, also for infinity."""
    choices = choices_of(hint)
    if hasattr(value, "to_json") and any(get_origin(choice) is dict for choice in choices):
        return value  # a `Policy`, whose class would import torch here
    for choice in choices:
        found = converted(name, choice, value)
        if found is not REFUSED:
            return found
    words = list(dict.fromkeys(word for choice in choices for word in described(choice)))
    allowed = " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    raise UserError(f"{name} is {shown(value)}, but must be {allowed}.")


def converted(name: str, hint: Any, value: Any) -> Any:
    """The value if it is one of this type, else REFUSED. Raises UserError for a wrong item of a list, and for infinity."""
    origin = get_origin(hint)
    if is_settings(hint):
        return value if isinstance(value, hint) else REFUSED
    if origin is Literal:
        return next((each for each in get_args(hint) if isinstance(value, type(each)) and value == each), REFUSED)
    if origin in {list, tuple}:
        return converted_items(name, hint, value.tolist() if hasattr(value, "tolist") else value)
    if origin is dict:
        return value if isinstance(value, Mapping) else REFUSED
    if hint is str and isinstance(value, str | os.PathLike):
        return filled(name, str(os.fspath(value)))
    if hint is bool and type(value).__name__ == "bool":  # Python's and numpy's
        return bool(value)
    if hint is int and not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:
            return REFUSED
    if hint is float and isinstance(value, Real) and not isinstance(value, bool):
        return finite(name, value if type(value) in {int, float} else float(value))
    if hint in {int, float}:
        return REFUSED
    if isinstance(hint, type):
        return value if isinstance(value, hint) else REFUSED
    return value


def filled(name: str, text: str) -> str:
    """The same text. Raises UserError for a blank one, such as that of a shell variable which is not set."""
    if not text.strip():
        raise UserError(f"{name} is empty; give a value.")
    return text


def finite(name: str, value: SupportsFloat) -> SupportsFloat:
    """The same number. Raises UserError for infinity, nan and a whole number beyond the range of a float."""
    try:
        is_finite = math.isfinite(value)
    except OverflowError:
        is_finite = False
    if not is_finite:
        raise UserError(f"{name} is {shown(value)}, but must be a finite number.")
    return value


def converted_items(name: str, hint: Any, value: Any) -> Any:
    """The items of a list or tuple, each as its type has it; REFUSED for anything else, and for a tuple of another length."""
    kind, kinds = get_origin(hint), get_args(hint)
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str | bytes)
        or (kind is tuple and len(value) != len(kinds))
    ):
        return REFUSED
    kinds = kinds if kind is tuple else kinds * len(value)
    return kind(accepted(f"{name}[{at}]", kinds[at], item) for at, item in enumerate(value))


def constructor(settings: type) -> str:
    """The class with the package that exports it, such as fieldshift.training.Recipe."""
    return f"{'.'.join(settings.__module__.split('.')[:2])}.{settings.__name__}"


def described(hint: Any) -> list[str]:
    """The alternatives of a type in words."""
    origin = get_origin(hint)
    if is_settings(hint):
        return [f"an object such as {constructor(hint)}()"]
    if origin is Literal:
        return [repr(each) for each in get_args(hint)]
    if hint is bool:
        return ["True", "False"]
    if origin in {list, tuple}:
        many = "a list of" if origin is list else str(len(get_args(hint)))
        return [f"{many} {'names' if get_args(hint)[0] is str else 'whole numbers'}"]
    return [WORDS.get(hint, "a dict" if origin is dict else str(hint))]


def shown(value: Any) -> str:
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."
