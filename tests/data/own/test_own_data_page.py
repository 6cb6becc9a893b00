"""docs/own-data.md against the tables that it describes: every word, file name, encoding and option is on the page."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from fieldshift.data.files.class_files import CLASS_FILES
from fieldshift.data.files.folder_names import ROLES
from fieldshift.data.files.mask_files import STORAGES
from fieldshift.data.loading import LoadingConfig
from fieldshift.data.own.scene_lists import LIST_FOLDERS
from fieldshift.data.problems import ACCEPTABLE

PAGE = (Path(__file__).parents[3] / "docs" / "own-data.md").read_text(encoding="utf-8")


def test_every_word_for_a_part_is_on_the_page() -> None:
    for words in ROLES.values():
        assert ", ".join(words) in PAGE


@pytest.mark.parametrize("name", [*CLASS_FILES, *ACCEPTABLE, *(folder for folder in LIST_FOLDERS if folder != ".")])
def test_every_file_and_kind_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_every_way_to_store_a_mask_has_a_row() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("|")]
    for storage in STORAGES:
        words = storage.removesuffix(" bit(s)").split()
        assert any(all(word in row.replace(",", " ").split() for word in words) for row in rows), storage


def test_the_options_on_the_page_are_there() -> None:
    known = {field.name for field in fields(LoadingConfig)}
    named = {word.split("`")[0].split()[0] for word in PAGE.split("--loading.")[1:]}
    assert (
        {"train_parts", "test_parts", "classes_on_top", "accept"} <= {name.rstrip(".,;:)") for name in named} <= known
    )
