"""Under pytest the annotations of the platform are assertions: shapes, and their agreement within a call."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

import fieldshift
from fieldshift.data.augmentation import colours
from fieldshift.networks.movement import Taps
from fieldshift.training import Recipe
from fieldshift.training.map_quality import mean_overlap
from tests.shapes import SHAPED, has_shapes

PLATFORM = Path(fieldshift.__file__).parent
SHAPES = ("Float[", "Float64[", "Int[", "Int64[", "Integer[", "Bool[", "UInt8[", "Shaped[", "Real[")


def test_shapes_that_disagree_within_a_call_are_an_error_also_by_an_alias() -> None:
    labels, mask = np.zeros((4, 5), np.int64), np.ones((4, 6), bool)
    with pytest.raises(TypeCheckError):
        mean_overlap(labels, labels, mask, 2)
    assert mean_overlap(labels, labels, mask[:, :5], 2) == 1.0


def with_shapes_in_the_source() -> Iterator[tuple[str, Any]]:
    """The functions, methods and dataclasses whose signature or field names a shape; read from the source."""
    for path in sorted(PLATFORM.rglob("*.py")):
        name = ".".join(("fieldshift", *path.relative_to(PLATFORM).with_suffix("").parts)).removesuffix(".__init__")
        if not any(f"{name}.".startswith(f"fieldshift.{part}.") for part in SHAPED):
            continue
        module = importlib.import_module(name)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and has_shape(node):
                yield f"{name}.{node.name}", getattr(module, node.name)
            if isinstance(node, ast.ClassDef):
                home = getattr(module, node.name)
                for each in node.body:
                    if (
                        isinstance(each, ast.FunctionDef)
                        and has_shape(each)
                        and not getattr(home, "_is_protocol", False)
                    ):
                        yield f"{name}.{node.name}.{each.name}", inspect.getattr_static(home, each.name)


def has_shape(node: ast.FunctionDef) -> bool:
    signature = ast.unparse(node.args) + ast.unparse(node.returns or ast.Constant(None))
    return any(shape in signature for shape in SHAPES)


def test_every_function_with_a_shape_in_its_signature_keeps_account_of_it() -> None:
    """Read from the source, independently of the objects that are looked at."""
    kinds = Counter()
    for name, found in with_shapes_in_the_source():
        plain = inspect.unwrap(getattr(found, "__func__", found))
        if isinstance(plain, FunctionType):
            assert has_shapes(plain), name
            assert getattr(found, "__func__", found) is not plain, f"{name} is not checked"
            kinds[name.rpartition(".")[2] == "forward"] += 1
    assert kinds[False] > 100, kinds
    assert kinds[True] > 10, kinds
    assert has_shapes(inspect.unwrap(colours.posterize))  # by aliases alone


def test_a_dataclass_with_a_shape_is_checked_and_one_without_is_not() -> None:
    with pytest.raises(TypeCheckError):
        Taps(torch.zeros(3), torch.zeros(1, dtype=torch.int32), torch.zeros(3, dtype=torch.int32))
    assert has_shapes(Taps)
    assert not has_shapes(Recipe)
