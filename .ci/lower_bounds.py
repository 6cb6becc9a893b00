"""Prints the lowest versions that pyproject.toml allows, one constraint per line, for `make test-oldest`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
LOWEST = re.compile(r"(?P<name>[\w-]+)(?:\[[^\]]*\])?>=(?P<version>[\d.]+)")


def lower_bounds() -> list[str]:
    """`name==version.*` of every dependency of the program and of its optional features, not of the tools."""
    features = (PROJECT["optional-dependencies"][name] for name in ("postgresql", "export"))
    requirements = [*PROJECT["dependencies"], *(each for feature in features for each in feature)]
    found = [LOWEST.fullmatch(requirement) for requirement in requirements]
    assert all(found), "every dependency has a lower bound"
    return [f"{each['name']}=={each['version']}.*" for each in found if each]


if __name__ == "__main__":
    print("\n".join(lower_bounds()))
