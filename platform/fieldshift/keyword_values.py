"""Checks the values of a call in Python as the command line's parser checks its words: before any work, in one line."""

from __future__ import annotations

import inspect
import operator
import os
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache, wraps
from numbers import Real
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from fieldshift.arguments import choices_of, is_settings, option_types
from fieldshift.errors import UserError, nearest_name

Command = TypeVar("Command", bound=Callable[..., Any])
WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text", types.NoneType: "None"}


def checked(command: Command, home: str) -> Command:
    """Returns the command with every keyword checked against its type; paths may be `pathlib.Path` objects.

    `home` is the module that the result is an attribute of, for pickle. Raises TypeError for an unknown keyword and UserError
    for a value of another type, also within settings such as `Recipe`.
    """

    parameters = inspect.signature(command).parameters.values()
    positions = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]

    @cache
    def hints() -> dict[str, Any]:
        return option_types(command)

    @wraps(command)
    def call(*positional: Any, **given: Any) -> Any:
        given |= dict(zip(positions, positional, strict=False))
        positional = positional[len(positions) :]
        for name in given:
            if name not in hints():
                raise TypeError(unknown_keyword(command.__name__, name, hints()))
        return command(*positional, **{name: accepted(name, hints()[name], value) for name, value in given.items()})

    call.__module__ = home
    return call  # type: ignore[return-value]


def unknown_keyword(command: str, name: str, hints: Mapping[str, Any]) -> str:
    """The text of the error: a setting of a group is named with its group."""
    groups = [group for group, hint in hints.items() if is_settings(hint) and name in get_type_hints(hint)]
    nearest = nearest_name(name, hints)
    if groups:
        given = " or ".join(f"{group}={constructor(hints[group])}({name}=...)" for group in groups)
        hint = f" It is a setting: {given}."
    else:
        hint = f" Did you mean {nearest}?" if nearest else f" Known: {', '.join(hints)}."
    return f"{command}() has no argument {name}.{hint}"


def accepted(name: str, hint: Any, value: Any) -> Any:
    """The value as its type has it: a path as text, a number of numpy as Python's. Raises UserError."""
    choices = choices_of(hint)
    if hasattr(value, "to_json") and any(get_origin(choice) is dict for choice in choices):
        return value  # a `Policy`, whose class would import torch here
    for choice in choices:
        found = converted(name, choice, value)
        if found is not REFUSED:
            return found
    raise UserError(f"{name} is {shown(value)}, but must be {' or '.join(dict.fromkeys(map(described, choices)))}.")


REFUSED = object()


def converted(name: str, hint: Any, value: Any) -> Any:
    """The value if it is one of this type, else REFUSED. Raises UserError for a wrong value within a right one."""
    origin = get_origin(hint)
    if is_settings(hint):
        return with_accepted_fields(name, value) if isinstance(value, hint) else REFUSED
    if origin is Literal:  # which names are known is for the command to say
        return value if isinstance(value, tuple({type(each) for each in get_args(hint)})) else REFUSED
    if origin is list:
        items = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return [accepted(name, get_args(hint)[0], item) for item in value] if items else REFUSED
    if origin is tuple:
        kinds = get_args(hint)
        items = isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) == len(kinds)
        return tuple(accepted(name, kind, item) for kind, item in zip(kinds, value, strict=True)) if items else REFUSED
    if origin is dict:
        return value if isinstance(value, Mapping) else REFUSED
    if hint is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    if hint is bool and type(value).__name__ == "bool":  # Python's and numpy's
        return bool(value)
    if hint is int and not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:
            return REFUSED
    if hint is float and isinstance(value, Real) and not isinstance(value, bool):
        return value if isinstance(value, int | float) else float(value)
    if hint in {int, float}:
        return REFUSED
    if isinstance(hint, type):
        return value if isinstance(value, hint) else REFUSED
    return value


def with_accepted_fields(name: str, settings: Any) -> Any:
    hints = get_type_hints(type(settings))
    now = {field.name: getattr(settings, field.name) for field in fields(settings) if field.init}
    then = {field: accepted(f"{name}.{field}", hints[field], value) for field, value in now.items()}
    changed = {field: value for field, value in then.items() if repr(value) != repr(now[field])}
    return replace(settings, **changed) if changed else settings


def constructor(settings: type) -> str:
    """The class with the package that exports it, such as fieldshift.training.Recipe."""
    return f"{'.'.join(settings.__module__.split('.')[:2])}.{settings.__name__}"


def described(hint: Any) -> str:
    """A type in words."""
    origin = get_origin(hint)
    if is_settings(hint):
        return f"an object such as {constructor(hint)}()"
    if origin is Literal:
        return " or ".join(repr(each) for each in get_args(hint))
    if origin is list:
        return f"a list of {'names' if get_args(hint)[0] is str else 'whole numbers'}"
    if origin is tuple:
        return f"{len(get_args(hint))} values"
    return WORDS.get(hint, "a dict" if origin is dict else str(hint))


def shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
