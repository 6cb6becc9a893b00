"""The command line: words as people type them, errors in one line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

import pipelines
from fieldshift.arguments import explain, normalise, option_kinds, option_types, plain_help
from fieldshift.cli import command_function, commands, main, overview
from fieldshift.command_parser import parsed
from fieldshift.errors import UserError
from fieldshift.settings import choices_of, is_settings


@dataclass(frozen=True, kw_only=True)
class Settings:
    fast: bool = False
    kind: Literal["a", "b"] = "a"
    shared_name: int = 0


@dataclass(frozen=True, kw_only=True)
class More:
    kind: int = 0


def command(  # noqa: PLR0913 - one of every kind
    *,
    frames: int = 3,
    arms: list[str] | None = None,
    size: tuple[int, int] | None = None,
    resume: bool = False,
    images: list[str] | None = None,
    runs: list[str] | None = None,
    counts: list[int] | None = None,
    settings: Settings = Settings(),
    more: More = More(),
) -> None:
    """Does nothing."""


KINDS = option_kinds(command)


def test_kinds_come_from_the_signature() -> None:
    assert KINDS["frames"] == "value"
    assert KINDS["arms"] == KINDS["images"] == "list"
    assert (KINDS["runs"], KINDS["counts"]) == ("texts", "numbers")
    assert KINDS["size"] == "tuple"
    assert KINDS["resume"] == KINDS["settings.fast"] == "flag"
    assert KINDS["settings.kind"] == "value"


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        (["--resume"], ["--resume=true"]),
        (["--resume", "false", "--frames", "5"], ["--resume=false", "--frames=5"]),
        (["--resume", "--frames=5"], ["--resume=true", "--frames=5"]),
        (["--arms", "none", "das", "--resume"], ['--arms=["none", "das"]', "--resume=true"]),
        (["--arms=none,das"], ['--arms=["none", "das"]']),
        (["--arms", "equal compute, search included"], ['--arms=["equal compute, search included"]']),
        (["--arms", '["none"]'], ['--arms=["none"]']),
        (["--arms", "2019", "07"], ['--arms=["2019", "07"]']),  # names may be numbers
        (["--runs", "a,b", "2024"], ['--runs=["a,b", "2024"]']),  # paths may have commas
        (["--counts", "3,-5", "7"], ["--counts=[3, -5, 7]"]),
        (["--size", "64", "48"], ["--size=[64, 48]"]),
        (["--fast"], ["--settings.fast=true"]),
        (["--shared-name", "4"], ["--settings.shared_name=4"]),
        (["--settings.shared-name=4"], ["--settings.shared_name=4"]),
    ],
)
def test_words_become_what_the_parser_reads(typed: list[str], parsed: list[str]) -> None:
    assert normalise(typed, KINDS, "images") == (parsed, None)


@pytest.mark.parametrize(
    ("typed", "parsed", "loose"),
    [
        (["--settings.fast", "a.png", "b c.png"], ["--settings.fast=true"], ["a.png", "b c.png"]),
        (["a.png", "--frames", "-1"], ["--frames=-1"], ["a.png"]),
        (["--frames", "3", "--", "study", "--resume"], ["--frames=3"], ["study", "--resume"]),
        (["--images", "[b].png", "caf\udce9.png"], [], ["[b].png", "caf\udce9.png"]),
        (["--images", '["a.png"]'], ['--images=["a.png"]'], None),
    ],
)
def test_loose_words_stay_as_they_were_written(typed: list[str], parsed: list[str], loose: list[str] | None) -> None:
    assert normalise(typed, KINDS, "images") == (parsed, loose)


def test_a_chain_of_motions_is_one_word_of_the_command() -> None:
    words = ["--runs", "a,1", "2024", "--motions", "translate_x=0.3,zoom=1.2", "plain"]
    found = parsed("compare-fields", command_function("compare-fields"), words)
    assert (found["runs"], found["motions"]) == (["a,1", "2024"], ["translate_x=0.3,zoom=1.2", "plain"])


def test_a_single_value_given_twice_counts_as_the_last() -> None:
    """So that a script's options can be replaced after them."""
    assert normalise(["--frames", "3", "--frames", "5"], KINDS) == (["--frames=3", "--frames=5"], None)
    assert normalise(["--size", "4", "6", "--size", "8", "8"], KINDS) == (["--size=[4, 6]", "--size=[8, 8]"], None)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--kind", "a"], "--kind is short for --settings.kind and for --more.kind; give the full name."),
        (["--frame", "3"], "Unknown option --frame. Did you mean --frames?"),
        (["--frames"], "--frames needs a value"),
        (["--frames", "--resume"], "--frames needs a value"),
        (["--frames=--"], "--frames needs a value"),
        (["--frames", "--", "a"], "--frames needs a value"),
        (["loose"], "Unexpected argument 'loose'"),
        (["--arms", "none", "--arms", "das"], "--arms is given twice; give all its values after one --arms."),
        (["--arms", "none", "--arms=das"], "--arms is given twice; give all its values after one --arms."),
        (["--frames", "caf\udce9"], "--frames=caf\\udce9 is not valid UTF-8; rename that file or folder."),
    ],
)
def test_mistakes_are_named(typed: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        normalise(typed, KINDS)
    assert str(caught.value).startswith(said)


def test_the_parsers_complaint_becomes_one_line() -> None:
    text = "Parser key \"recipe.epochs\":\n  Expected a <class 'int'>. Got value: x"
    assert explain(text) == "--recipe.epochs is 'x', but must be a whole number."


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search", "--search.epochs", ""], "--search.epochs is empty, but must be a whole number."),
        (["search", "--search.flip", ""], "--search.flip is empty, but must be a number or nothing."),
        (["search", "--search.order="], "--search.order is empty, but must be first, second, second-exact."),
        (["search", "--search.order", "[first]"], "--search.order is '['first']', but must be first, second, second-exact."),
        (["search", "--search.crop", "1e400"], "--search.crop is '1e400', but must be a whole number or nothing."),
        (["search", "--tracking.enabled="], "--tracking.enabled is empty, but must be true or false."),
        (["search", "--form", ""], "--form is empty, but must be video, folded."),
        (["search", "--search", "3"],
         "--search is '3', but must be a YAML file of settings; give one of them as --search.NAME VALUE."),
        (["search", "--config", ""], "--config is empty; give the path of a YAML file."),
        (["sweep-frames", "--frame_counts", "nan"], "--frame_counts is 'nan', but must be whole numbers or nothing."),
        (["sweep-frames", "--frame_counts", "3", "x"], "--frame_counts is '3 x', but must be whole numbers or nothing."),
        (["train", "--loading.size", "nan"],
         "--loading.size is 'nan', but must be two whole numbers, height and width, such as --loading.size 48 64."),
        (["train", "--loading.size", "1e400", "3"],
         "--loading.size is '1e400 3', but must be two whole numbers, height and width, such as --loading.size 48 64."),
        (["train", "--loading.size", ""],
         "--loading.size is empty, but must be two whole numbers, height and width, such as --loading.size 48 64."),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)  # fmt: skip
def test_a_value_of_another_kind_is_named_without_the_parsers_words(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err == f"fieldshift: {said} See fieldshift {words[0]} --help.\n"


TEXTS = [
    (command, name)
    for command, home in commands().items()
    for name, hint in option_types(command_function(command)).items()
    if not is_settings(hint) and str in choices_of(hint)
]


@pytest.mark.parametrize(("command", "name"), TEXTS, ids=lambda each: each)
@pytest.mark.parametrize("blank", ["", "  ", "\n"], ids=["empty", "blanks", "newline"])
def test_an_empty_text_is_refused_by_every_command_and_writes_nothing(
    command: str, name: str, blank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable of the shell that is not set, as in --out "$OUT", would otherwise name the current folder."""
    monkeypatch.chdir(tmp_path)
    function = command_function(command)
    needed = [f"--{each}=x" for each in required(function) if each != name]
    with pytest.raises(UserError, match=rf"^--{name} is empty; give a value\.$"):
        parsed(command, function, [*needed, f"--{name}={blank}"])
    with pytest.raises(UserError, match=rf"^{name} is empty; give a value\.$"):
        getattr(pipelines, command.replace("-", "_"))(**{name: blank})
    assert not list(tmp_path.iterdir())


def required(function: Callable[..., Any]) -> list[str]:
    """The options that a command cannot do without."""
    return [
        name
        for name, each in inspect.signature(function).parameters.items()
        if each.default is each.empty and each.kind is each.KEYWORD_ONLY
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("search: 3", "The configuration has 'search' as 3, but must have its settings below it, such as frames."),
        ("search: [1]", "The configuration has 'search' as [1], but must have its settings below it, such as frames."),
        ("seed: 3\nsearch: epochs: 3", "--config FILE is not YAML (line 2: mapping values are not allowed here); correct it."),
        ("- seed", "--config FILE has no options in YAML, such as seed: 3; `--print_config` writes them."),
        ("3", "--config FILE has no options in YAML, such as seed: 3; `--print_config` writes them."),
        ("search:\n  epochs: ''", "--search.epochs is empty, but must be a whole number."),
        ("\ufeff# fieldshift train --config THIS_FILE\nseed: 3",
         "--config FILE is the configuration of `fieldshift train`; give one of `fieldshift search`."),
    ],
)  # fmt: skip
def test_a_configuration_of_another_kind_is_named_with_its_file(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text, encoding="utf-8")
    assert main(["search", "--config", str(file)]) == 2
    assert (
        capsys.readouterr().err == f"fieldshift: {said.replace('FILE', str(file), 1)} See fieldshift search --help.\n"
    )


def test_a_configuration_with_a_byte_order_mark_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "own.yaml"
    for text in ("search:\n  flip: 7\n", "search:\n  lr: 1\n  flip: 7\n"):  # the second is rewritten: lr was renamed
        file.write_text(f"\ufeff{text}", encoding="utf-8")
        assert main(["search", "--config", str(file)]) == 2
        assert "search.flip is 7" in capsys.readouterr().err


def test_help_lists_every_command_with_a_summary() -> None:
    text = overview()
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    for name in commands():
        assert len(lines[name].split()) > 3, name


@pytest.mark.parametrize("name", [*commands()])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: fieldshift {name}" in shown
    assert not re.search(r"type:|\bnull\b|\bNone\b", shown)


@pytest.mark.parametrize(
    ("generated", "said"),
    [
        ("seed of all draws (type: int, default: 0)", "seed of all draws (default: 0)"),
        ("run folder. (type: str | null, default: null)", "run folder."),
        ("a policy (type: Union[str, dict[str, Any], null], default: null)", "a policy"),
        ("none or all (some) (type: str, default: ('a', 'b'))", "none or all (some) (default: ('a', 'b'))"),
        ("ratio; None takes the module's own.", "ratio; leaving it out takes the module's own."),
        ("A size. None takes the data set's.", "A size. Leaving it out takes the data set's."),
        ("the file (required, type: str)", "the file (required)"),
    ],
)
def test_help_is_in_words(generated: str, said: str) -> None:
    assert plain_help(generated) == said


def test_an_unknown_command_exits_with_2_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serch"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Did you mean 'search'" in said
