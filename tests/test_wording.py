"""Words of messages, and values as YAML reads them."""

from __future__ import annotations

import sys

import pytest
import yaml

from fieldshift.wording import yaml_line

VALUES = [
    "pets \U0001f600", "folder:a b", "caf\u00e9", "quote \" and ' and \\", "# no comment", "a: b", "", "no", "1e3",
    "\x7f\u0085\ufeff", ["run \U0001f600", "run_b", 3, None], {"data": "folder:\U00020000", "seeds": 3, "on": True},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_yaml_reads_back_what_is_written(value: object) -> None:
    line = yaml_line(value)
    assert "\n" not in line
    assert yaml.safe_load(line) == value
    assert yaml.safe_load(f"name: {line}  # words") == {"name": value}


def test_yaml_reads_back_every_character() -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    for first in range(0, len(characters), 10_000):
        text = "".join(characters[first : first + 10_000])
        assert yaml.safe_load(yaml_line(text)) == text
