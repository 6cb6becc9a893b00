"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from fieldshift.wording import counted


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (2400, "2,400 images"), (-1, "-1 images")]
)
def test_only_one_is_singular(count: int, words: str) -> None:
    assert counted(count, "image") == words


def test_a_plural_of_its_own() -> None:
    assert [counted(count, "class", "classes") for count in (1, 3)] == ["1 class", "3 classes"]
