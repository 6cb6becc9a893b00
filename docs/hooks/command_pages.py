"""The page of all commands and their options, made from the functions of `pipelines` as the command line is."""

from __future__ import annotations

import inspect
from typing import Any

from mkdocs.structure.files import File, Files

from fieldshift.arguments import plain_help
from fieldshift.cli import command_function, commands
from fieldshift.command_parser import command_parser
from fieldshift.renamed import HIDDEN
from pipelines import HOMES

HEAD = """# Command line

`fieldshift COMMAND --help` prints the options of a command. An option of a group may be given by its last name where that is
unique: `--epochs 3` for `--recipe.epochs 3` of `train`. `--config FILE` reads options from YAML; `--print_config` writes them.

`fieldshift --completion bash` (or `zsh`) prints a completion script:

<!-- not run: writes into the home folder -->

```bash
fieldshift --completion bash > ~/.local/share/bash-completion/completions/fieldshift
```
"""

PYTHON = """# pipelines

Every command is a function: `import pipelines; pipelines.study(seeds=5)`. Options of a group are one object:
`pipelines.train(recipe=Recipe(epochs=3))` for `--recipe.epochs 3`. `**shared` are the options of
[`Experiment`](experiment.md).
"""
RESULTS = (
    "pipelines.studying.StudyResult",
    "pipelines.comparison.Comparison",
    "pipelines.sweeping.FrameSweep",
    "pipelines.fields.FieldResult",
    "pipelines.training.TrainResult",
    "pipelines.using.EvaluationResult",
    "pipelines.tuning.TuneResult",
    "pipelines.previewing.PreviewResult",
    "fieldshift.experiment.search_trial.SearchResult",
)


def on_files(files: Files, config: Any) -> Files:
    """Adds the page of the command line, and that of the same functions in Python."""
    parts = [HEAD, *(section(command) for command in commands())]
    files.append(File.generated(config, "reference/commands.md", content="\n\n".join(parts)))
    functions = [f"::: {home}.{name}" for name, home in HOMES.items()]
    results = [f"::: {name}\n    options:\n      members: []" for name in RESULTS]
    parts = [PYTHON, *functions, "# Results of the functions", *results]
    files.append(File.generated(config, "reference/pipelines.md", content="\n\n".join(parts)))
    return files


def section(command: str) -> str:
    """The heading, the description and the options of one command."""
    function = command_function(command)
    parser = command_parser(command, function)
    formatter = parser._get_formatter()
    rows = [
        f"| `--{action.dest}` | {described(formatter, action)} |"
        for action in parser._actions
        if action.dest not in {"help", "config", "print_config", *HIDDEN}
        and type(action).__name__ != "_ActionConfigLoad"
    ]
    about = inspect.cleandoc(function.__doc__ or "").split("\n\nArgs:")[0]
    table = "\n".join(f"    {row}" for row in ["| option | meaning |", "| --- | --- |", *rows])
    return f'## fieldshift {command}\n\n{about}\n\n??? note "Options of {command}"\n\n{table}\n'


def described(formatter: Any, action: Any) -> str:
    """The help of an option in one line."""
    text = plain_help(str(formatter._expand_help(action)))
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
