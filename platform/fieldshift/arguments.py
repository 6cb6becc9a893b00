"""Normalises command-line arguments (flags without a value, lists without brackets) for the generated parser."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from types import FunctionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fieldshift.errors import UserError, nearest_name
from fieldshift.renamed import HIDDEN, aliases
from fieldshift.settings import WORDS, choices_of, field_types, is_settings
from fieldshift.wording import printable, yaml_line

Kind = Literal["flag", "list", "texts", "numbers", "tuple", "value"]


def typed(function: Callable[..., Any]) -> FunctionType:
    """Returns a command with the types of its options evaluated, without running its module's type-checking imports.

    The parser would otherwise run the `if TYPE_CHECKING:` blocks of the module, which import everything the command needs.
    """
    function = inspect.unwrap(function)
    assert isinstance(function, FunctionType)
    same = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    same.__kwdefaults__, same.__doc__ = function.__kwdefaults__, function.__doc__
    same.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    same.__annotations__ = get_type_hints(same)
    return same


@cache
def option_types(function: Callable[..., Any]) -> dict[str, Any]:
    """The options of a command with their types, in the order of its parser.

    A command that passes `**shared` on, to `Experiment(**shared)`, has the options of that class, too.
    """
    from jsonargparse._parameter_resolvers import get_signature_parameters  # what `add_function_arguments` calls

    return {option.name: option.annotation for option in get_signature_parameters(typed(function))}


def option_kinds(function: Callable[..., Any]) -> dict[str, Kind]:
    """Every option of a command, `recipe.epochs` included, with the form of its value."""
    kinds: dict[str, Kind] = {"config": "value", "print_config": "flag", "help": "flag"}
    for name, hint in option_types(function).items():
        kinds.update(kinds_of(name, hint))
    return kinds


def kinds_of(name: str, hint: Any) -> dict[str, Kind]:
    if is_settings(hint):
        kinds: dict[str, Kind] = {name: "value"}
        for field, inner in field_types(hint).items():
            kinds.update(kinds_of(f"{name}.{field}", inner))
        return kinds
    choices = choices_of(hint)
    if bool in choices:
        return {name: "flag"}
    several = next((each for each in choices if get_origin(each) in SEVERAL), None)
    if several is None:
        return {name: "value"}
    if get_origin(several) is tuple:
        return {name: "tuple"}
    return {name: "numbers" if int in get_args(several) else "texts" if name in TEXTS else "list"}


SEVERAL = (list, tuple)
"""The types whose options take several words."""
LISTS: tuple[Kind, ...] = ("list", "texts", "numbers")
TEXTS = frozenset({"motions", "runs"})
"""List options of paths or chains of motions, in whose words commas are no separators."""


def normalise(
    argv: list[str], kinds: dict[str, Kind], positional: str | None = None
) -> tuple[list[str], list[str] | None]:
    """Rewrites `argv` for the parser: `--resume` becomes `--resume=true`, `--arms none das` becomes `--arms=["none", ...]`.

    An option of a group may be given by its last name where that is unique, and with dashes: `--skip-unreadable`. Also
    returns, unchanged, the words of the list option `positional` (none where it is None): words that are not options or
    their values, and all words after `--`. Raises UserError for an unknown option (naming the nearest one), a list given
    twice, unexpected words, and a value that is not valid text. For any other option given twice, the last value counts.
    """
    out: list[str] = []
    loose: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            loose += rest
            break
        if word == "-h":
            out.append("--help")
        elif not word.startswith("--"):
            loose.append(word)
        else:
            name, equals, value = word[2:].partition("=")
            name, given = known_option(name.replace("-", "_"), kinds), value if equals else None
            if kinds[name] in LISTS and any(each.startswith(f"--{name}=") for each in out):
                raise UserError(f"--{name} is given twice; give all its values after one --{name}.")
            items = list_items(given, rest) if name == positional else []
            if name == positional and not is_json_list(items):
                loose += items
            else:
                out.append(option_word(name, kinds[name], items[0] if items else given, rest))
    if loose and positional is None:
        raise UserError(f"Unexpected argument '{loose[0]}'; options are written --name VALUE.")
    for word in out:
        check_text(word)
    return out, loose or None


def known_option(name: str, kinds: dict[str, Kind]) -> str:
    """The whole, present name of an option. Raises UserError for an unknown one, naming the nearest."""
    former = aliases(kinds)
    name = whole_name(name, [*kinds, *former])
    name = former.get(name, name)
    if name in HIDDEN:
        raise UserError(f"Unknown option --{name}; {HIDDEN[name]}.")
    if name not in kinds:
        nearest = nearest_name(name, kinds)
        hint = f" Did you mean --{nearest}?" if nearest else ""
        raise UserError(f"Unknown option --{name}.{hint}")
    return name


def option_word(name: str, kind: Kind, given: str | None, rest: list[str]) -> str:
    """One word for the parser, of an option and its value: `given` after "=", or taken from the front of `rest`."""
    if name in {"help", "print_config"}:
        return f"--{name}"
    if kind == "flag":
        follows = given is None and rest and rest[0].lower() in {"true", "false"}
        return f"--{name}={(rest.pop(0) if follows else 'true' if given is None else given).lower()}"
    if kind in (*LISTS, "tuple"):
        return f"--{name}={list_text(list_items(given, rest), kind)}"
    if given is None and rest and not rest[0].startswith("--"):
        given = rest.pop(0)
    elif given is None or given == "--":  # argparse would treat the latter as a missing value
        raise UserError(f"--{name} needs a value; give --{name} VALUE.")
    return f"--{name}={given}"


def list_items(given: str | None, rest: list[str]) -> list[str]:
    """The words of a list option: `given` after "=", or those at the front of `rest` up to the next option."""
    if given is not None:
        return [given]
    items: list[str] = []
    while rest and not rest[0].startswith("--"):
        items.append(rest.pop(0))
    return items


def is_json_list(items: list[str]) -> bool:
    return len(items) == 1 and items[0].startswith("[")


def check_text(word: str) -> None:
    """Raises UserError for bytes that are not UTF-8; only pictures to predict may have such names."""
    try:
        word.encode()
    except UnicodeEncodeError:
        shown = printable(word)
        raise UserError(f"{shown} is not valid UTF-8; rename that file or folder.") from None


def whole_name(name: str, kinds: Iterable[str]) -> str:
    """Expands `skip_unreadable` to `loading.skip_unreadable`: an option's last name is enough where only one group has it.

    Raises UserError where several groups have it.
    """
    if name in kinds or "." in name:
        return name
    groups = [kind for kind in kinds if kind.endswith(f".{name}")]
    if len(groups) > 1:
        raise UserError(
            f"--{name} is short for {' and for '.join(f'--{kind}' for kind in groups)}; give the full name."
        )
    return groups[0] if groups else name


def list_text(items: list[str], kind: Kind) -> str:
    """Formats words, or one bracketed or comma-separated word, as a JSON list, of numbers where the option takes them.

    A comma followed by a space belongs to its word, as in a name of several words; in `texts` every comma does.
    """
    if is_json_list(items):
        return items[0]
    words = items if kind == "texts" else [word for item in items for word in re.split(r",(?! )", item) if word]
    numbers = kind in ("numbers", "tuple")
    return yaml_line([int(word) if numbers and re.fullmatch(r"[+-]?\d+", word) else word for word in words])


def given_texts(value: str) -> list[str]:
    """All texts in the value of an option as the parser reads it: those in a list or a group of options, or itself."""
    import yaml

    def texts(part: object) -> Iterator[str]:
        if isinstance(part, dict):
            part = list(part.values())
        if isinstance(part, list):
            for each in part:
                yield from texts(each)
        elif isinstance(part, str):
            yield part

    try:
        return [value, *texts(yaml.safe_load(value))]
    except yaml.YAMLError:
        return [value]


def explain(message: str, known: Iterable[str] = ()) -> str:
    """Rewrites the parser's message about a value as one line with the option, the value and what is allowed.

    jsonargparse raises TypeError and ValueError without fields: key, value and types are in the text only.
    """
    text = " ".join(message.split())
    if missing := re.search(r"following arguments are required: (.*)", text):
        return f"--{missing.group(1)} is required; give --{missing.group(1)} VALUE."
    if strange := re.search(r"Option '(.+)' is not accepted|Group '(.+)' does not accept option '(.+)'", text):
        whole, group, name = strange.groups()
        name = whole or f"{group}.{name}"
        nearest = nearest_name(name, [each for each in known if whole or each.startswith(f"{group}.")])
        hint = f" Did you mean {nearest}?" if nearest else ""
        return f"The configuration has an unknown option '{name}'.{hint}"
    found = re.search(r'[Pp]arser key "([^"]+)":? ?(.*)', text)
    if found is None:
        return text if text.endswith(".") else f"{text}."
    option, complaint = found.groups()
    if group := re.search(r"Unable to load config '(.*?)'", complaint):
        return (
            f"--{option} is {quoted(group.group(1))}, but must be a YAML file of settings; give one of them as "
            f"--{option}.NAME VALUE."
        )
    union = re.search(r"Subtypes: \[(.*?)\] Errors: .*Given value:(.*)$", complaint)
    found = union or re.search(r"Expected an? (.*?)\. Got value:(.*)$", complaint)
    if found is None:
        return f"--{option}: {complaint.rstrip('.')}."
    kinds, value = found.groups()
    several = any(f"{kind.__name__}[" in kinds for kind in SEVERAL)
    return f"--{option} is {quoted(value.strip(), several=several)}, but must be {allowed_words(kinds, option)}."


def quoted(value: str, *, several: bool = False) -> str:
    """A value of an option as it was written, in quotation marks, `several` words in a row; "empty" for none."""
    words = value
    if several and value.startswith("["):
        with suppress(ValueError, SyntaxError):  # no list of plain values
            words = " ".join(str(each) for each in ast.literal_eval(value))
    return f"'{words}'" if words else "empty"


def allowed_words(kinds: str, option: str) -> str:
    """The types that the parser names, such as "<class 'int'>, <class 'NoneType'>", in words."""
    names = {kind.__name__: words for kind, words in WORDS.items()}
    names |= {
        "bool": "true or false", "list": "a list", "dict": "an object", "NoneType": "nothing",
        "list[int]": "whole numbers", "list[str]": "names",
        "tuple[int, int]": f"two whole numbers, height and width, such as --{option} 48 64",
    }  # fmt: skip
    parts = re.findall(r"typing\.Literal\[([^\]]*)\]|<class '(\w+)'>|((?:list|tuple)\[[^\]]*\])", kinds)
    words = [names.get(part, part.replace("'", "")) for match in parts for part in match if part]
    if any(word.startswith("two ") for word in words):
        words = [word for word in words if word != "nothing"]
    return " or ".join(dict.fromkeys(words)) or kinds


def plain_help(text: str) -> str:
    """Simplifies an option's help: no Python types, no default that is None, and None described in words."""
    text = re.sub(r"\s*\((?:type: .*, )?default: null\)$", "", text)
    text = re.sub(r"\(type: .*, default: (.*)\)$", r"(default: \1)", text)
    text = re.sub(r"\s*\(type: [^()]*\)$", "", text)
    text = re.sub(r"\(required, type: [^()]*\)$", "(required)", text)
    text = re.sub(r"(^|\. )None\b", r"\1Leaving it out", text)
    return re.sub(r"\bNone\b", "leaving it out", text)
