"""Checks the values of a call in Python as the command line's parser checks its words: before any work, in one line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any, TypeVar

from fieldshift.arguments import option_types
from fieldshift.errors import nearest_name
from fieldshift.settings import accepted, constructor, field_types, is_settings

Command = TypeVar("Command", bound=Callable[..., Any])


def checked(command: Command, home: str) -> Command:
    """Returns the command with every keyword checked against its type; paths may be `pathlib.Path` objects.

    `home` is the module that the result is an attribute of, for pickle. Raises TypeError for an unknown keyword and UserError
    for a value of a different type. Settings such as `Recipe` have checked their own values when they were made.
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
    groups = [group for group, hint in hints.items() if is_settings(hint) and name in field_types(hint)]
    nearest = nearest_name(name, hints)
    if groups:
        given = " or ".join(f"{group}={constructor(hints[group])}({name}=...)" for group in groups)
        hint = f" It is a setting: {given}."
    else:
        hint = f" Did you mean {nearest}?" if nearest else f" Known: {', '.join(hints)}."
    return f"{command}() has no argument {name}.{hint}"
