"""Former names of options: taken on the command line and in YAML, listed nowhere, and kept in the files of runs."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fieldshift.arguments import normalise, option_kinds
from fieldshift.cli import commands, main
from fieldshift.command_parser import command_parser
from fieldshift.errors import UserError
from fieldshift.experiment.budget import readings_of
from fieldshift.readings import BUDGETS, READINGS
from fieldshift.renamed import HIDDEN, MOVED, RENAMED, present_config, present_names
from fieldshift.search import SearchConfig

KINDS = {
    name: option_kinds(getattr(importlib.import_module(home), name.replace("-", "_")))
    for name, home in commands().items()
}
FORMER = [(name, former) for name, kinds in KINDS.items() for former in RENAMED if RENAMED[former] in kinds]
SAMPLES = {"average_copies": 2, "readings": ["equal epochs"]}


def value(former: str) -> Any:
    return SAMPLES.get(former, 0.25)


def words(former: str) -> list[str]:
    given = value(former)
    return [f"--{former}", *(given if isinstance(given, list) else [str(given)])]


def test_every_former_name_leads_to_an_option_of_some_command() -> None:
    assert {former for _, former in FORMER} == set(RENAMED)
    for name, kinds in KINDS.items():
        assert not set(RENAMED) & set(kinds), name


@pytest.mark.parametrize(("name", "former"), FORMER)
def test_a_former_name_is_taken_on_the_command_line_as_the_present_one(name: str, former: str) -> None:
    present = [f"--{RENAMED[former]}", *words(former)[1:]]
    assert normalise(words(former), KINDS[name]) == normalise(present, KINDS[name])


@pytest.mark.parametrize(("name", "former"), FORMER)
def test_a_former_name_is_taken_from_a_configuration(name: str, former: str, tmp_path: Path) -> None:
    group, _, last = former.rpartition(".")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({group: {last: value(former)}} if group else {last: value(former)}))
    text = present_config(str(file), name, KINDS[name])
    function = getattr(importlib.import_module(commands()[name]), name.replace("-", "_"))
    parsed = command_parser(name, function).parse_args(
        [f"--config={text}", *(["--run=x"] if "run" in KINDS[name] else [])]
    )
    assert parsed[RENAMED[former]] == value(former)


@pytest.mark.parametrize("name", KINDS)
def test_help_lists_present_names_only(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert not [former for former in (*RENAMED, *HIDDEN) if f"--{former} " in shown]


def test_files_of_searches_keep_the_former_names() -> None:
    config = SearchConfig(learning_rate=0.1, min_learning_rate=0.01, batch=2)
    kept = config.record()
    assert (kept["lr"], kept["lr_min"], kept["batch"]) == (0.1, 0.01, 2)
    assert not {present.removeprefix("search.") for present in RENAMED.values()} & kept.keys()
    assert SearchConfig.from_record(kept) == config


def test_both_names_of_one_option_are_refused() -> None:
    with pytest.raises(UserError, match="'average_copies' and 'tta_copies', which are one option") as refusal:
        present_names({"average_copies": 1, "tta_copies": 2}, ["tta_copies"])
    assert "\n" not in str(refusal.value)


def test_a_configuration_without_former_names_stays_a_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"tta_copies": 1}))
    assert present_config(str(file), "compare", KINDS["compare"]) == str(file)
    assert present_config("nowhere.yaml", "compare", KINDS["compare"]) == "nowhere.yaml"


def test_a_group_without_settings_is_no_setting(tmp_path: Path) -> None:
    """Its lines may be comments, as in the files that `init` writes."""
    file = tmp_path / "study.yaml"
    file.write_text("recipe:\n  # epochs: 3\nseed: 3\nweights:\n")
    assert json.loads(present_config(str(file), "train", {"recipe.epochs", "seed", "weights"})) == {
        "seed": 3,
        "weights": None,
    }


@pytest.mark.parametrize(("command", "option"), MOVED)
@pytest.mark.parametrize("configured", [True, False])
def test_an_option_that_became_a_command_names_it(
    command: str, option: str, configured: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({option: "x"}))
    assert main([command, "--config", str(file)] if configured else [command, f"--{option}", "x"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert MOVED[command, option] in error


@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_option_is_refused_with_advice(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", f"--{name}", "3"]) == 2
    assert HIDDEN[name] in capsys.readouterr().err


def test_budgets_are_taken_by_either_name() -> None:
    assert list(BUDGETS.values()) == list(READINGS)
    for budget, reading in BUDGETS.items():
        assert readings_of([budget]) == readings_of([reading]) == [reading]


def test_a_configuration_of_another_command_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "# fieldshift train --config THIS_FILE runs this again; digest 0; semantics 2\npolicy: {found: {}}\n"
    )
    assert main(["search", "--config", str(config)]) == 2
    error = capsys.readouterr().err
    assert f"--config {config} is the configuration of `fieldshift train`; give one of `fieldshift search`." in error
    assert error.count("\n") == 1
    config.write_text("# fieldshift receptive-field --config THIS_FILE runs this again; digest 0\nruns: [nowhere]\n")
    assert main(["compare-fields", "--config", str(config)]) == 2
    assert "is the configuration of" not in capsys.readouterr().err
