"""Settings that are made in Python are checked when they are made, by type and in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldshift.cluster import ClusterConfig
from fieldshift.data import LoadingConfig
from fieldshift.data.loading import LoadingOverrides
from fieldshift.errors import UserError
from fieldshift.networks import NetworkConfig
from fieldshift.search import SearchConfig
from fieldshift.settings import field_types
from fieldshift.tracking import TrackingConfig
from fieldshift.training import Recipe

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
        (LoadingConfig, {"size": 48}, "loading.size is 48, but must be 2 values or None."),
        (LoadingConfig, {"accept": "leaks"}, "loading.accept is 'leaks', but must be a list of names or None."),
        (TrackingConfig, {"enabled": 1}, "tracking.enabled is 1, but must be True or False."),
        (SearchConfig, {"order": "third"}, "search.order is 'third', but must be 'first' or 'second' or 'second-exact'."),
    ],
)  # fmt: skip
def test_the_line_names_value_and_what_is_allowed(kind: type, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        kind(**given)
    assert str(caught.value) == message


def test_paths_and_numbers_of_numpy_become_plain_values(tmp_path: Path) -> None:
    assert ClusterConfig(storage=tmp_path).storage == str(tmp_path)
    assert TrackingConfig(artifacts=tmp_path).artifacts == str(tmp_path)
    assert NetworkConfig(weights=tmp_path / "w.safetensors").weights == str(tmp_path / "w.safetensors")
    assert LoadingConfig(root=tmp_path, size=[np.int64(48), 64]).size == (48, 64)
    recipe = Recipe(epochs=np.int64(2), flip=np.float32(0.5))
    assert recipe == Recipe(epochs=2, flip=0.5)
    assert [type(recipe.epochs), type(recipe.flip)] == [int, float]


def test_an_address_as_a_path_is_checked_as_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^tracking\.uri is "):
        TrackingConfig(uri=tmp_path)


@pytest.mark.parametrize("kind", GROUPS)
def test_the_defaults_are_accepted_as_they_are(kind: type) -> None:
    made = kind()
    assert all(type(getattr(made, field)) is type(getattr(kind, field)) for field in field_types(kind))
