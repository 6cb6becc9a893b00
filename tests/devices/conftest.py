"""The stand-in device, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.other_device import other_device


@pytest.fixture(scope="module")
def there() -> Iterator[Callable[..., Any]]:
    with other_device() as run:
        yield run
