"""A wrong value in a Python call is named in one line before any work begins, as it is on the command line."""

from __future__ import annotations

import importlib
import inspect
import pickle
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch

import pipelines
from fieldshift.arguments import option_types
from fieldshift.errors import UserError
from fieldshift.keyword_values import checked
from fieldshift.motions import Policy
from fieldshift.settings import accepted, choices_of, constructor, described, is_settings
from fieldshift.tracking import TrackingConfig


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recipe": {"epochs": 1}}, "recipe is {'epochs': 1}, but must be an object such as fieldshift.training.Recipe()."),
        ({"form": "foldd"}, "form is 'foldd', but must be 'video' or 'folded'."),
        ({"tracking": {}}, "tracking is {}, but must be an object such as fieldshift.tracking.TrackingConfig()."),
        ({"tracking": None}, "tracking is None, but must be an object such as fieldshift.tracking.TrackingConfig()."),
        ({"frames": "3"}, "frames is '3', but must be a whole number."),
        ({"frames": 3.0}, "frames is 3.0, but must be a whole number."),
        ({"seeds": True}, "seeds is True, but must be a whole number."),
        ({"arms": "none"}, "arms is 'none', but must be a list of names or None."),
        ({"arms": ["none", 3]}, "arms[1] is 3, but must be text."),
        ({"data": 7}, "data is 7, but must be text."),
        ({"form": 1}, "form is 1, but must be 'video' or 'folded'."),
        ({"resume": "yes"}, "resume is 'yes', but must be True or False."),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_line_before_any_work(
    given: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        pipelines.compare(**given)
    assert str(caught.value) == message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("epochs", "compare() has no argument epochs. It is a setting: search=fieldshift.search.SearchConfig(epochs=...) or "
         "recipe=fieldshift.training.Recipe(epochs=...)."),
        ("accumulate", "compare() has no argument accumulate. It is a setting: "
         "recipe=fieldshift.training.Recipe(accumulate=...)."),
        ("arm", "compare() has no argument arm. Did you mean arms?"),
    ],
)  # fmt: skip
def test_an_unknown_keyword_is_named_with_where_it_belongs(name: str, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        pipelines.compare(**{name: 1})
    assert str(caught.value) == message


def test_paths_and_numbers_of_numpy_become_plain_values() -> None:
    def command(*, out: str | None = None, seeds: int = 1, share: float = 0.5) -> Any:
        return out, seeds, share

    found = checked(command, __name__)(out=Path("runs/a"), seeds=np.int64(3), share=np.float32(0.5))
    assert found == ("runs/a", 3, 0.5)
    assert [type(each) for each in found] == [str, int, float]


@pytest.mark.parametrize(
    ("hint", "value", "found"),
    [
        (bool, np.True_, True),
        (tuple[int, int], [np.int64(48), 64], (48, 64)),
        (list[str], (Path("a"), "b"), ["a", "b"]),
        (list[str] | None, None, None),
        (dict[str, Any] | str | None, Policy.replicate(3), Policy.replicate(3)),
    ],
)  # fmt: skip
def test_what_is_meant_is_taken(hint: Any, value: Any, found: Any) -> None:
    taken = accepted("option", hint, value)
    assert taken == found
    assert type(taken) is type(found)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, np.array([1, 2])),
        (int, torch.tensor(1.5)),
        (int, np.True_),
        (bool, 1),
        (tuple[int, int], (48,)),
        (tuple[int, int], (48.5, 64)),
        (list[int], "12"),
        (dict[str, Any] | str | None, 7),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(hint: Any, value: Any) -> None:
    with pytest.raises(UserError, match=r"^option(\[\d\])? is .*, but must be "):
        accepted("option", hint, value)


def test_a_positional_value_is_checked_and_a_keyword_does_not_become_one() -> None:
    with pytest.raises(UserError, match="^run is 7, but must be text"):
        pipelines.results(7)
    with pytest.raises(TypeError, match="positional"):
        pipelines.compare("digit-pairs-left")


@pytest.mark.parametrize("name", pipelines.HOMES)
def test_every_default_of_a_command_is_accepted_and_every_type_has_words(name: str) -> None:
    command = getattr(pipelines, name)
    defaults = {each.name: each.default for each in inspect.signature(command).parameters.values()}
    hints = option_types(command)
    for option, hint in hints.items():
        if defaults.get(option, inspect.Parameter.empty) is not inspect.Parameter.empty:
            assert accepted(option, hint, defaults[option]) == defaults[option]
        for choice in choices_of(hint):
            for each in [choice, *(get_type_hints(choice).values() if is_settings(choice) else [])]:
                words = " ".join(word for part in choices_of(each) for word in described(part))
                assert "typing" not in words
                assert "<" not in words
            if is_settings(choice):
                home, _, kind = constructor(choice).rpartition(".")
                assert getattr(importlib.import_module(home), kind) is choice


def test_a_command_is_one_object_that_can_be_sent_to_a_process() -> None:
    assert pipelines.compare is pipelines.compare
    assert pickle.loads(pickle.dumps(pipelines.compare)) is pipelines.compare
    assert inspect.signature(pipelines.compare) == inspect.signature(
        importlib.import_module("pipelines.comparing").compare
    )
    assert TrackingConfig().__class__ is option_types(pipelines.compare)["tracking"]
