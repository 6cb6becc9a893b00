"""Words as messages and pages show them: numbers with their nouns and verbs, names of files."""

from __future__ import annotations

import json
import re
from typing import Any


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun: "1 image", "2,400 images"; `plural` for nouns that take more than an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def is_or_are(count: int) -> str:
    """The verb after a number: "is" for 1, else "are"."""
    return "is" if count == 1 else "are"


def printable(text: str) -> str:
    """A text as any encoding can show it: bytes of file names that are not UTF-8, which Python holds as surrogates, escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def yaml_line(value: Any) -> str:
    """A value as one line of YAML. JSON writes characters beyond U+FFFF as two codes, which YAML refuses."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return re.sub("[\x7f-\x9f\ud800-\udfff\ufeff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", text)
