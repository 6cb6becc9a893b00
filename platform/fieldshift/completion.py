"""Shell completion: a script for bash or zsh that knows every command, its options and the names that they take.

The script contains the words, so that a key press starts no Python.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fieldshift.arguments import option_kinds
from fieldshift.data.names import OWN_KINDS, known_datasets
from fieldshift.errors import unknown_name
from fieldshift.forms import FORMS
from fieldshift.networks.names import TEMPORAL_NAMES, known_networks
from fieldshift.readings import BUDGETS
from fieldshift.renamed import HIDDEN
from fieldshift.tasks import TASKS
from fieldshift.training.arms import ARMS
from search_spaces import motion_spaces

SHELLS = ("bash", "zsh")
HEAD = {"bash": "", "zsh": "#compdef fieldshift\nautoload -U +X bashcompinit && bashcompinit\n"}
SCRIPT = """\
_fieldshift() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" command="${{COMP_WORDS[1]}}" words="" place=$COMP_CWORD
  if [ "$COMP_CWORD" -eq 1 ]; then
    words={commands}
  elif [ "${{word:0:2}}" = "--" ]; then
    case "$command" in
{options}
    esac
  else
    while [ "$place" -gt 1 ] && [ "${{COMP_WORDS[place]:0:2}}" != "--" ]; do place=$((place - 1)); done
    case "${{COMP_WORDS[place]}}" in
{values}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _fieldshift fieldshift
"""


def completion_script(shell: str, functions: Mapping[str, Callable[..., Any]]) -> str:
    """The completion script of a shell for commands with their functions.

    Where no words apply, the shell completes file names. Raises UserError for another shell.
    """
    if shell not in SHELLS:
        raise unknown_name("shell", shell, SHELLS)
    options = {
        command: sorted(f"--{name}" for name in option_kinds(function) if name not in HIDDEN)
        for command, function in functions.items()
    }
    return HEAD[shell] + SCRIPT.format(
        commands=shlex.quote(" ".join([*functions, "--help", "--version", "--completion"])),
        options=branches(options),
        values=branches({f"--{name}": words for name, words in names_of_options().items()}),
    )


def names_of_options() -> dict[str, list[str]]:
    """The names that options take, by option."""
    arms = [*ARMS]
    return {
        "data": [*known_datasets(), *(f"{kind}:" for kind in OWN_KINDS)],
        "network": list(dict.fromkeys(name for task in TASKS for name in known_networks(task))),
        "temporal": [*TEMPORAL_NAMES],
        "form": [*FORMS],
        "task": [*TASKS],
        "space": [*motion_spaces.names()],
        "arm": arms,
        "arms": arms,
        "budgets": [*BUDGETS],
        "completion": [*SHELLS],
    }


def branches(words: Mapping[str, Iterable[str]]) -> str:
    """The branches of a shell's `case`: each sets the words of its name."""
    return "\n".join(f"      {name}) words={shlex.quote(' '.join(each))} ;;" for name, each in words.items())
