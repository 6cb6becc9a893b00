"""The command line: one command per function of `pipelines`, generated from its signature and docstring."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import io
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fieldshift.console import complain, lasting_output, open_closed_streams
from fieldshift.errors import RunFailedError, UserError, one_line, unknown_name
from fieldshift.termination import terminate_like_interrupt
from fieldshift.whole_file import FULL

INTERRUPTED, TERMINATED = 130, 143


def commands() -> dict[str, str]:
    """Command names with the module of `pipelines` that defines each, read without importing any of them."""
    from pipelines import HOMES

    return {name.replace("_", "-"): home for name, home in HOMES.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Exit status: 0 success, 2 user error (one line), 1 any other error, 130 Ctrl-C, 143 SIGTERM or SIGHUP.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names may contain characters that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    with lasting_output(), terminate_like_interrupt() as termination:
        try:
            status = dispatch(argv)
            return TERMINATED if termination.received else status
        except UserError as error:
            complain(one_line(error))
            return 2
        except RunFailedError as error:
            complain(one_line(error))
            return 1
        except OSError as error:
            if error.errno in FULL and error.filename is None:
                complain(f"{error.strerror}; free some space, then --resume continues a run.")
                return 2
            if error.filename is None or error.strerror is None:
                raise
            advice = "free some space or give another path" if error.errno in FULL else "give another path"
            complain(f"'{error.filename}': {error.strerror}; {advice}.")
            return 2
        except KeyboardInterrupt:
            complain(f"{'terminated' if termination.received else 'interrupted'}.")
            return TERMINATED if termination.received else INTERRUPTED


def dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print(overview())
        return 0
    if argv[0] == "--version":
        from fieldshift import __version__

        print(f"fieldshift {__version__}")
        return 0
    if argv[0].partition("=")[0] == "--completion":
        from fieldshift.completion import completion_script

        shell = argv[0].partition("=")[2] or " ".join(argv[1:])
        print(completion_script(shell, {name: command_function(name) for name in commands()}), end="")
        return 0
    known = commands()
    if argv[0] not in known:
        raise unknown_name("command", argv[0], known)
    return run(argv[0], argv[1:])


def command_function(command: str) -> Callable[..., Any]:
    """The function of a command."""
    found: Callable[..., Any] = getattr(importlib.import_module(commands()[command]), command.replace("-", "_"))
    return found


def overview() -> str:
    """The text of `fieldshift --help`; the summaries are the first sentences of the functions' docstrings."""
    columns = max(60, min(shutil.get_terminal_size((110, 24)).columns, 110))
    names = max(len(name) for name in commands())

    def paragraph(text: str, first: str = "", indent: str = "") -> str:
        return textwrap.fill(text, columns, initial_indent=first or indent, subsequent_indent=indent)

    listed = [
        paragraph(summary(home, name.replace("-", "_")), f"  {name:<{names}}  ", " " * (names + 4))
        for name, home in commands().items()
    ]
    return "\n".join(
        [
            "usage: fieldshift COMMAND [OPTIONS]",
            "",
            paragraph(
                "Turns images into short videos of moved copies and searches for the motions that best reshape the receptive "
                "field for a task."
            ),
            "",
            "start with:",
            "  fieldshift study                     the whole job on the built-in data",
            "  fieldshift init --data folder:PATH   a commented study.yaml for your data",
            "  fieldshift ui --run runs/study       MLflow's pages on a run",
            "",
            "commands:",
            *listed,
            "",
            paragraph(
                "fieldshift COMMAND --help lists a command's options; --config FILE reads them from YAML, --print_config "
                "writes them. Commands that train, search or measure write result.json and config.yaml into their --out folder."
            ),
            paragraph(
                "fieldshift --completion bash (or zsh) prints a script that completes commands, options and names. Load it with"
            ),
            "  source <(fieldshift --completion bash)",
        ]
    )


def summary(home: str, function: str) -> str:
    """The first line of a function's docstring, read from its source so that `--help` imports no heavy package."""
    spec = importlib.util.find_spec(home)
    if spec is None or spec.origin is None:
        return ""
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return (ast.get_docstring(node) or "").split("\n", 1)[0].rstrip(".")
    return ""


def run(command: str, argv: list[str]) -> int:
    from fieldshift.command_parser import parsed

    function = command_function(command)
    outcome = function(**parsed(command, function, argv))
    return outcome if isinstance(outcome, int) else getattr(outcome, "exit_status", 0)


if __name__ == "__main__":
    sys.exit(main())
