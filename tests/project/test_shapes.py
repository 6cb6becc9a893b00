"""Under pytest the annotations of the platform are assertions: shapes, and their agreement within a call."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest
from jaxtyping import TypeCheckError

import fieldshift
from fieldshift.data.augmentation import colours
from fieldshift.training.map_quality import mean_overlap
from tests.shapes import SHAPED, has_shapes

PLATFORM = Path(fieldshift.__file__).parent
SHAPES = ("Float[", "Float64[", "Int[", "Int64[", "Integer[", "Bool[", "UInt8[", "Shaped[", "Real[")


def test_shapes_that_disagree_within_a_call_are_an_error_also_by_an_alias() -> None:
    labels, mask = np.zeros((4, 5), np.int64), np.ones((4, 6), bool)
    with pytest.raises(TypeCheckError):
        mean_overlap(labels, labels, mask, 2)
    assert mean_overlap(labels, labels, mask[:, :5], 2) == 1.0


def test_every_function_with_a_shape_in_its_signature_keeps_account_of_it() -> None:
    """Read from the source, independently of the objects that are looked at."""
    checked = 0
    for path in sorted(PLATFORM.rglob("*.py")):
        name = ".".join(("fieldshift", *path.relative_to(PLATFORM).with_suffix("").parts)).removesuffix(".__init__")
        if not any(f"{name}.".startswith(f"fieldshift.{part}.") for part in SHAPED):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            found = getattr(importlib.import_module(name), node.name)
            signature = ast.unparse(node.args) + ast.unparse(node.returns or ast.Constant(None))
            if any(shape in signature for shape in SHAPES) and isinstance(inspect.unwrap(found), FunctionType):
                assert has_shapes(inspect.unwrap(found)), f"{name}.{node.name}"
                assert found is not inspect.unwrap(found), f"{name}.{node.name} is not checked"
                checked += 1
    assert checked > 50
    assert has_shapes(inspect.unwrap(colours.posterize))  # by aliases alone
