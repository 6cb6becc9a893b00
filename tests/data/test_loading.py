"""Overrides of how a run read its data: each one changes its own setting and nothing else."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import pytest

from fieldshift.data import LoadingConfig, LoadingOverrides
from fieldshift.errors import UserError

# Nothing as it is by default, but for classes_on_top, which excludes that parts are named.
RUN: dict[str, Any] = {
    "workers": 7, "size": (12, 14), "channels": 1, "memory": 9, "test_share": 0.5, "train_parts": ["a"],
    "test_parts": ["b"], "classes_on_top": False, "accept": ["two-labels"], "skip_unreadable": True,
    "pixel_limit": 1000, "download": True, "root": "there", "train_limit": 40, "test_limit": 30,
}  # fmt: skip


def test_every_setting_can_be_overridden() -> None:
    assert (
        [field.name for field in fields(LoadingOverrides)] == [field.name for field in fields(LoadingConfig)] == [*RUN]
    )


@pytest.mark.parametrize("name", RUN)
def test_what_is_given_counts_and_the_rest_stays(name: str) -> None:
    default = getattr(LoadingConfig(), name)
    others: dict[str, Any] = {
        "size": (3, 4), "channels": 3, "root": "here", "train_limit": 5, "test_limit": 6, "train_parts": ["c"],
        "test_parts": ["d"], "accept": ["empty-class"],
    }  # fmt: skip
    given = others.get(name, default)
    made = LoadingOverrides(**{name: given}).over(LoadingConfig(**RUN))
    assert asdict(made) == {**RUN, name: given}  # also where the value given is the default


def test_nothing_given_changes_nothing() -> None:
    assert LoadingOverrides().over(LoadingConfig(**RUN)) == LoadingConfig(**RUN)


@pytest.mark.parametrize(("name", "value"), [("workers", -1), ("channels", 2), ("test_share", 1.0), ("memory", -1)])
def test_what_cannot_be_is_refused_before_any_run_is_read(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"loading.{name} is {value}"):
        LoadingOverrides(**{name: value})  # type: ignore[arg-type]
