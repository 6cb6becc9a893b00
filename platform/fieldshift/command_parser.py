"""The parser of a command's options, made from its function: types, defaults and help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from fieldshift.arguments import explain, normalise, option_kinds, option_types, plain_help, typed
from fieldshift.errors import UserError
from fieldshift.renamed import HIDDEN, check_moved, present_config
from fieldshift.settings import accepted


def parsed(command: str, function: Callable[..., Any], argv: Sequence[str]) -> dict[str, Any]:
    """The arguments of a command's function that these words give. Raises UserError, naming the option."""
    parser = command_parser(command, function)
    positional, kinds = getattr(function, "positional", None), option_kinds(function)
    try:
        check_moved(command, (word[2:].partition("=")[0] for word in argv if word.startswith("--")))
        words, loose = normalise(list(argv), kinds, positional)
        words = [
            f"--config={present_config(word[9:], command, kinds)}" if word.startswith("--config=") else word
            for word in words
        ]
    except UserError as error:
        raise UserError(f"{error} See fieldshift {command} --help.") from None
    values: dict[str, Any] = vars(parser.instantiate(parser.parse_args(words)))
    values.pop("config", None)
    if loose is not None:
        values[str(positional)] = loose
    hints = option_types(function)
    return {
        name: accepted(name if name == positional else f"--{name}", hints[name], value)
        for name, value in values.items()
    }


def command_parser(command: str, function: Callable[..., Any]) -> Any:
    """The parser of one command, of words that `normalise` has put into order."""
    from jsonargparse import SUPPRESS, ArgumentParser, DefaultHelpFormatter

    class Help(DefaultHelpFormatter):
        def _expand_help(self, action: Any) -> str:
            return plain_help(super()._expand_help(action))

        def _format_args(self, action: Any, default_metavar: str) -> str:
            text = super()._format_args(action, default_metavar).replace(",null}", "}")
            return text.replace("[ITEM,...]", action.dest.upper())

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> Any:
            if isinstance(ex, UserError):
                raise ex
            raise UserError(f"{explain(message, option_kinds(function))} See fieldshift {command} --help.")

    about = inspect.cleandoc(function.__doc__ or "").split("\n\nArgs:")[0]
    words = getattr(function, "positional", None)
    usage = f"fieldshift {command} [OPTIONS]" + (f" {words.upper()} ..." if words else "")
    parser = Parser(prog=f"fieldshift {command}", usage=usage, description=about, formatter_class=Help)
    parser.add_argument("--config", action="config", help="read options from a YAML file")
    parser.add_function_arguments(typed(function), as_group=False, fail_untyped=True)
    for action in parser._actions:
        if action.dest in HIDDEN:
            action.help = SUPPRESS
    return parser
