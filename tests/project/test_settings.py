"""Settings that are made in Python are checked when they are made, by type and in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipelines
from fieldshift.arguments import option_types
from fieldshift.cli import main
from fieldshift.cluster import ClusterConfig
from fieldshift.data import LoadingConfig
from fieldshift.data.loading import LoadingOverrides
from fieldshift.errors import UserError
from fieldshift.motions import MOTIONS
from fieldshift.networks import NetworkConfig
from fieldshift.search import SearchConfig
from fieldshift.settings import choices_of, field_types, is_settings
from fieldshift.tracking import TrackingConfig
from fieldshift.training import Recipe
from fieldshift.training.recipe import LARGEST_SCALE

GROUPS: dict[type, str] = {
    ClusterConfig: "cluster",
    LoadingConfig: "loading",
    LoadingOverrides: "loading",
    NetworkConfig: "architecture",
    Recipe: "recipe",
    SearchConfig: "search",
    TrackingConfig: "tracking",
}


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field) for kind in GROUPS for field in field_types(kind)],
    ids=lambda each: str(each)[-40:],
)
@pytest.mark.parametrize("value", [object(), {"a": 1}, b"x"], ids=["object", "dict", "bytes"])
def test_a_value_of_another_type_is_one_line(kind: type, field: str, value: Any) -> None:
    with pytest.raises(UserError) as caught:
        kind(**{field: value})
    assert str(caught.value).startswith(f"{GROUPS[kind]}.{field} is ")
    assert ", but must be " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (Recipe, {"epochs": "3"}, "recipe.epochs is '3', but must be a whole number."),
        (Recipe, {"epochs": 3.5}, "recipe.epochs is 3.5, but must be a whole number."),
        (Recipe, {"optimizer": "adam"}, "recipe.optimizer is 'adam', but must be 'adamw' or 'sgd'."),
        (ClusterConfig, {"workers": True}, "cluster.workers is True, but must be a whole number."),
        (ClusterConfig, {"min_workers": "1"}, "cluster.min_workers is '1', but must be a whole number or None."),
        (LoadingConfig, {"size": 48}, "loading.size is 48, but must be 2 whole numbers or None."),
        (LoadingConfig, {"size": (1, 2, 3)}, "loading.size is (1, 2, 3), but must be 2 whole numbers or None."),
        (LoadingConfig, {"size": (48, 64.0)}, "loading.size[1] is 64.0, but must be a whole number."),
        (LoadingConfig, {"accept": "leaks"}, "loading.accept is 'leaks', but must be a list of names or None."),
        (LoadingConfig, {"accept": ["leaks", 3]}, "loading.accept[1] is 3, but must be text."),
        (LoadingConfig, {"classes_on_top": 1}, "loading.classes_on_top is 1, but must be True or False."),
        (LoadingOverrides, {"skip_unreadable": 1}, "loading.skip_unreadable is 1, but must be True, False or None."),
        (Recipe, {"optimizer": np.array(["sgd", "adamw"])},
         "recipe.optimizer is array(['sgd', 'adamw'], dtype='<U5'), but must be 'adamw' or 'sgd'."),
        (TrackingConfig, {"uri": " "}, "tracking.uri is empty; give a value."),
        (TrackingConfig, {"enabled": 1}, "tracking.enabled is 1, but must be True or False."),
        (SearchConfig, {"order": "third"}, "search.order is 'third', but must be 'first', 'second' or 'second-exact'."),
    ],
)  # fmt: skip
def test_the_line_names_value_and_what_is_allowed(kind: type, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        kind(**given)
    assert str(caught.value) == message


FLOATS = [(kind, field) for kind in GROUPS for field, hint in field_types(kind).items() if float in choices_of(hint)]


@pytest.mark.parametrize(("kind", "field"), FLOATS, ids=lambda each: str(each)[-40:])
@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e400"])
def test_a_number_that_is_not_finite_is_refused_in_every_setting(kind: type, field: str, value: str) -> None:
    for made in (float(value), np.float32(value)):
        with pytest.raises(UserError) as caught:
            kind(**{field: made})
        assert str(caught.value) == f"{GROUPS[kind]}.{field} is {float(value)}, but must be a finite number."


@pytest.mark.parametrize("digits", [400, 5000])
def test_a_whole_number_beyond_the_range_of_a_float_is_refused(digits: int) -> None:
    with pytest.raises(UserError, match=r"^recipe\.scale is .*, but must be a finite number\.$") as caught:
        Recipe(scale=10**digits)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("group", ["recipe", "search"])
@pytest.mark.parametrize("written", ["1e400", "-1e400"])
def test_infinity_is_refused_from_the_command_line_and_from_yaml(
    written: str, group: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "train" if group == "recipe" else "search"
    (tmp_path / "own.yaml").write_text(f"{group}:\n  clip_norm: {'-' * written.startswith('-')}.inf\n")
    for words in ([f"--{group}.clip_norm={written}"], ["--config", str(tmp_path / "own.yaml")]):
        assert main([command, *words, "--out", str(tmp_path / "run")]) == 2
        said = capsys.readouterr().err
        assert said == f"fieldshift: {group}.clip_norm is {float(written)}, but must be a finite number.\n"
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", [Recipe, SearchConfig])
def test_random_scaling_is_bounded_by_the_limit_of_the_motion_zoom(kind: type) -> None:
    assert MOTIONS["zoom"].limits[1] == LARGEST_SCALE == 20
    assert kind(scale=20).scale == 20
    for scale in (20.5, 0.5, 99999999999999999999):
        with pytest.raises(UserError, match=rf"scale is {scale}, but the largest factor must be from 1 to 20\."):
            kind(scale=scale)


def test_paths_and_numbers_of_numpy_become_plain_values(tmp_path: Path) -> None:
    assert ClusterConfig(storage=tmp_path).storage == str(tmp_path)
    assert TrackingConfig(artifacts=tmp_path).artifacts == str(tmp_path)
    assert NetworkConfig(weights=tmp_path / "w.safetensors").weights == str(tmp_path / "w.safetensors")
    for size in ([np.int64(48), 64], np.array([48, 64]), torch.tensor([48, 64]), torch.Size([48, 64])):
        found = LoadingConfig(root=tmp_path, size=size).size
        assert found == (48, 64)
        assert [type(each) for each in (found, *found)] == [tuple, int, int]
    recipe = Recipe(epochs=np.int64(2), flip=np.float64(0.5), scale=np.float32(1.5), optimizer=np.str_("sgd"))
    assert recipe == Recipe(epochs=2, flip=0.5, scale=1.5, optimizer="sgd")
    assert {type(getattr(recipe, name)) for name in ("epochs", "flip", "scale", "optimizer")} == {int, float, str}
    assert type(NetworkConfig(places=np.str_("layer1.*")).places) is str


def test_an_address_as_a_path_is_checked_as_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^tracking\.uri is "):
        TrackingConfig(uri=tmp_path)


def test_all_settings_of_commands_check_themselves() -> None:
    hints = {hint for name in pipelines.HOMES for hint in option_types(getattr(pipelines, name)).values()}
    assert {choice for hint in hints for choice in choices_of(hint) if is_settings(choice)} == GROUPS.keys()


@pytest.mark.parametrize("kind", GROUPS)
def test_the_defaults_are_accepted_as_they_are(kind: type) -> None:
    made = kind()
    assert all(type(getattr(made, field)) is type(getattr(kind, field)) for field in field_types(kind))
