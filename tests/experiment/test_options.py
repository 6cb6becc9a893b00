"""The options that every command shares: one dataclass, flat on the command line, named in each command's help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

import pipelines
from fieldshift.arguments import option_types
from fieldshift.command_parser import command_parser
from fieldshift.experiment import Experiment
from fieldshift.experiment.options import PROBLEM

FIELDS = {field.name: field for field in fields(Experiment)}
SHARING = [
    name
    for name in pipelines.HOMES
    if any(each.kind is each.VAR_KEYWORD for each in inspect.signature(getattr(pipelines, name)).parameters.values())
]
OWN_DEFAULTS = {("study", "form"), ("study", "cluster")}
WITHOUT = {("sweep_frames", "frames")}


def command(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(pipelines, name)
    return found


def test_the_commands_that_train_or_search_share_the_options() -> None:
    assert set(SHARING) >= {"study", "search", "compare", "sweep_frames", "train", "tune"}


@pytest.mark.parametrize("name", SHARING)
def test_a_command_has_every_shared_option_with_its_type_and_default(name: str) -> None:
    types, defaults = option_types(command(name)), command_parser(name, command(name)).get_defaults()
    for shared, field in FIELDS.items():
        if (name, shared) in WITHOUT:
            assert shared not in types
            continue
        assert shared in types
        if (name, shared) not in OWN_DEFAULTS:
            default = defaults[shared]
            assert (default.as_dict() if hasattr(default, "as_dict") else default) == plain(field.default)


def plain(value: Any) -> Any:
    return {key: plain(each) for key, each in vars(value).items()} if hasattr(value, "__dataclass_fields__") else value


@pytest.mark.parametrize("name", SHARING)
def test_help_in_python_names_the_shared_options_and_where_they_are_described(name: str) -> None:
    text = inspect.getdoc(command(name)) or ""
    _, _, shared = text.partition("shared: the options of `fieldshift.experiment.Experiment`")
    listed = set(re.findall(r"\w+", shared.partition(":")[2]))
    own = set(inspect.signature(command(name)).parameters)
    missing = {option for option in FIELDS if (name, option) not in WITHOUT and option not in own}
    assert listed == missing


@pytest.mark.parametrize("name", SHARING)
def test_a_misspelt_keyword_is_named(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name}\(\) has no argument netwrk. Did you mean network\?$"):
        command(name)(netwrk="tiny-resnet")


def test_every_shared_option_is_described() -> None:
    described = re.findall(r"^ {4,8}(\w+): \S", inspect.getdoc(Experiment) or "", re.MULTILINE)
    assert described == list(FIELDS)


@pytest.mark.parametrize("form", ["video", "folded"])
def test_a_worker_rebuilds_what_it_computes_with(form: Any) -> None:
    experiment = Experiment(data="digit-pairs-top", frames=5, form=form, seed=3, out="somewhere")
    rebuilt = Experiment.from_plain(experiment.plain())
    assert {name: getattr(rebuilt, name) for name in PROBLEM} == {name: getattr(experiment, name) for name in PROBLEM}
    assert (rebuilt.seed, rebuilt.out) == (0, None)
