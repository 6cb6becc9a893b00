"""Names of options in earlier versions: hidden aliases for one version, and options that became commands."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from fieldshift.errors import UserError
from fieldshift.wording import yaml_line

RENAMED = {
    "average_copies": "tta_copies",
    "readings": "budgets",
    "search.lr": "search.learning_rate",
    "search.lr_min": "search.min_learning_rate",
    "search.alpha_lr": "search.alpha_learning_rate",
    "search.magnitude_lr": "search.magnitude_learning_rate",
}
"""Former names of options with the present ones. Files of runs keep the former: their digests and readers depend on them."""

HIDDEN = {"search.frames": "give only --frames"}
"""Options of Python that the command line neither lists nor takes, and the advice instead."""

MOVED = {
    ("search", "explain"): "fieldshift explain POLICY",
    ("receptive-field", "runs"): "fieldshift compare-fields --runs FOLDER",
}
"""Options, by command, that are commands of their own now, and how they are called."""


def aliases(known: Collection[str]) -> dict[str, str]:
    """The former names of the known options, each with its present name."""
    return {former: present for former, present in RENAMED.items() if present in known}


def check_moved(command: str, names: Iterable[str]) -> None:
    """Raises UserError for an option of the command that is a command of its own now, naming that command."""
    for name in names:
        if (command, name) in MOVED:
            raise UserError(f"--{name} of {command} is now a separate command: {MOVED[command, name]}.")


def present_names(values: Mapping[str, Any], known: Collection[str], group: str = "") -> dict[str, Any]:
    """A configuration with the present names of its options. Raises UserError where it has both names of one option."""
    renamed: dict[str, Any] = {}
    former = aliases(known)
    for name, value in values.items():
        whole = f"{group}{name}"
        present = former.get(whole, whole).removeprefix(group)
        if present != name and present in values:
            raise UserError(
                f"The configuration has '{whole}' and '{group}{present}', which are one option; remove '{whole}'."
            )
        renamed[present] = present_names(value, known, f"{whole}.") if isinstance(value, Mapping) else value
    return renamed


def former_names(values: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    """The options of a group with the names that files of runs have."""
    former = {present: name for name, present in RENAMED.items()}
    return {former.get(f"{group}{name}", f"{group}{name}").removeprefix(group): value for name, value in values.items()}


def without_later(values: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """The values without settings that earlier versions did not have, where they are those that these ran with (`later`)."""
    return {name: value for name, value in values.items() if name not in later or later[name] != value}


def check_command(file: str, content: str, command: str) -> None:
    """Raises UserError for the config.yaml of another command's run, which names its command in the first line."""
    written = re.match(r"# fieldshift (\S+) --config THIS_FILE", content)
    if written is None or (written[1], command) in {(command, command), ("receptive-field", "compare-fields")}:
        return  # the two were one command in earlier versions
    raise UserError(
        f"--config {file} is the configuration of `fieldshift {written[1]}`; give one of `fieldshift {command}`."
    )


def check_groups(values: Mapping[str, Any], known: Collection[str]) -> None:
    """Raises UserError where a configuration gives a group of options one value; a text is the path of its settings."""
    for name, value in values.items():
        first = next((each for each in known if each.startswith(f"{name}.")), None)
        if first is not None and not isinstance(value, Mapping | str):
            raise UserError(
                f"The configuration has '{name}' as {value!r}, but must have its settings below it, such as "
                f"{first.removeprefix(f'{name}.')}."
            )


def present_config(text: str, command: str, known: Collection[str]) -> str:
    """The value of --config with present names: the same where nothing was renamed, else the content as JSON.

    A file that cannot be read stays as it is, for the parser to report. Raises UserError for another command's file, and for
    one that is not YAML or holds no options.
    """
    import yaml

    if not text:
        raise UserError("--config is empty; give the path of a YAML file.")
    try:
        content = Path(text).read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return text
    check_command(text, content, command)
    try:
        values = yaml.safe_load(content)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise UserError(f"--config {text} is not YAML ({line}{error.problem}); correct it.") from None
    except (ValueError, yaml.YAMLError):
        return text
    if values is None:  # an empty file
        return text
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise UserError(f"--config {text} has no options in YAML, such as seed: 3; `--print_config` writes them.")
    check_moved(command, values)
    groups = {each.partition(".")[0] for each in known if "." in each}
    given = {
        name: value for name, value in values.items() if value is not None or name not in groups
    }  # no empty groups
    check_groups(given, known)
    renamed = present_names(given, known)
    return text if renamed == values else yaml_line(renamed)
