"""The GPU's kernel gives what the library operations give; on machines without a GPU, Triton interprets it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fieldshift.folding import PolicyMotion
from fieldshift.motions import Policy
from fieldshift.networks import movement, movement_kernel

POLICIES = {
    "part cells": Policy.single("translate_x", 0.3, frames=3),
    "many taps": Policy.chain([("rotate", 20.0), ("zoom", 1.3)], frames=5),
}
SIZES = {
    "odd": (2, 16, 9, 7),
    "two tiles of channels": (3, 80, 5, 6),
    "tiles of pixels": (1, 72, 8, 9),
    "a column": (1, 6, 5, 1),
}
PRECISIONS = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 2**-7}
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def library(features: Tensor, weights: Tensor, taps: movement.Taps, width: int, blocks: int) -> Tensor:
    """The sums of the CPU's operations."""
    result: Tensor = movement._MoveChannels.apply(features.cpu(), weights.cpu(), taps.to("cpu"), width, blocks, None)
    return result


def check(device: str) -> None:
    """Compares both in every precision and layout, with the taps of a policy and with those of its gradient."""
    for policy in POLICIES.values():
        for shape in SIZES.values():
            for precision, tolerance in PRECISIONS.items():
                for layout in LAYOUTS:
                    torch.manual_seed(0)
                    features = torch.randn(shape).to(precision).to(device).contiguous(memory_format=layout)
                    moved = PolicyMotion((policy,))(shape[2:], features)
                    width = 2 * (shape[1] // 4)
                    for weights, taps in ((moved.weights, moved.taps), moved.adjoint):
                        found = movement_kernel.launch(features, weights, taps.rows, taps.starts, width, 2)
                        expected = library(features, weights, taps, width, 2)
                        assert found.is_contiguous(memory_format=layout)
                        torch.testing.assert_close(found.cpu(), expected, atol=tolerance, rtol=tolerance)
                        assert torch.equal(found[:, width:], features[:, width:])


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton comes with torch for GPUs alone")
def test_the_interpreted_kernel_moves_channels_as_the_library_does() -> None:
    root = Path(__file__).resolve().parents[2]
    where = {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(root / "platform"), str(root)])}
    code = "from tests.networks.test_movement_kernel import check; check('cpu')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, **where},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_kernel_moves_channels_on_a_gpu() -> None:
    check("cuda")


def test_a_map_on_the_cpu_is_not_taken() -> None:
    assert not movement_kernel.takes(torch.ones(1, 2, 3, 3))


def test_a_machine_where_no_kernel_compiles_is_named_once() -> None:
    """A CPU is such a machine, as is a GPU without a C compiler."""
    movement_kernel._compiles.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"^Triton compiles no kernel for cpu \(.+\); channels are moved by slower"):
        assert not movement_kernel._compiles(torch.device("cpu"), torch.float32)
    assert not movement_kernel._compiles(torch.device("cpu"), torch.float32)
    movement_kernel._compiles.cache_clear()
