"""The data set of an experiment: loaded by name, with a report of how it was read."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, cast

from fieldshift.console import say
from fieldshift.data import LoadingConfig
from fieldshift.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fieldshift.data import DataSet, Identity
    from fieldshift.tasks import Task


def load_data(
    data: str, task: str | None, loading: LoadingConfig, like: Identity | None = None, *, whole: bool | None = None
) -> DataSet:
    """The data set of this name, read as `loading` says; `like` and `whole` are those of `load_dataset`."""
    from fieldshift.data import load_dataset

    return load_dataset(
        data,
        task=cast("Task | None", task),
        root=loading.root,
        train_limit=loading.train_limit,
        test_limit=loading.test_limit,
        loading=loading,
        like=like,
        whole=whole,
    )


def constant_notes(frequent: Mapping[str, Any] | None, scores: Mapping[str, float]) -> list[str]:
    """A note with the names of the scores that are no better than that of always naming the most frequent class.

    frequent: `DataSet.most_frequent`; None, as in results of earlier versions and for segmentation, gives no note.
    """
    if frequent is None:
        return []
    beaten = [name for name, score in scores.items() if score <= frequent["share"] + 1e-9]
    if not beaten:
        return []
    return [
        f"Always naming {frequent['class']}, the most frequent class of the test images, would score {frequent['share']:.1%}; "
        f"no better: {', '.join(beaten)}."
    ]


def loading_from_plain(values: dict[str, Any]) -> LoadingConfig:
    """The loading settings that JSON or YAML holds; defaults for settings that are missing."""
    size = values.get("size")
    return LoadingConfig(**{**values, "size": None if size is None else tuple(size)})


def say_reading(dataset: DataSet) -> None:
    """Prints how the data were read, and one line per finding."""
    say(dataset.reading())
    for finding in dataset.findings:
        say(f"  note: {finding}")
    named = f"`fieldshift check --data {shlex.quote(dataset.name)}` names them."
    if dataset.skipped:
        say(
            f"{counted(dataset.skipped, 'file or sample', 'files or samples')} of {dataset.name} skipped as unusable; {named}"
        )
    if dataset.leaked:
        say(
            f"{counted(dataset.leaked, 'test image')} of {dataset.name} also in train, so scores will be too good; {named}"
        )
