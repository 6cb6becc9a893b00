"""bf16, channels_last and torch.compile: the loss curve of the plain path, within the noise between seeds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fieldshift.data import TensorSplit
from fieldshift.errors import UserError
from fieldshift.motions import Policy
from fieldshift.networks import TEMPORAL, video_network
from fieldshift.training import FramePlan, Recipe, objective_for, train_network

ROOT = Path(__file__).resolve().parents[2]
# How far rounding may carry the first epoch's loss, relative: eight bits of mantissa in bf16, else a few of 24.
ROUNDING = {"channels_last": 1e-3, "bf16": 2e-2, "compile": 1e-3}


@pytest.fixture(scope="module")
def measured() -> dict[str, object]:
    """What the benchmark prints, in a process of its own: torch.compile cannot follow the shape checks of the tests."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "precision.py", "--json", "--device", "cpu", "--temporal", "tsm"],
        capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("path", ROUNDING)
def test_the_loss_curve_is_the_plain_one_within_noise(measured: dict[str, dict[str, list[float]]], path: str) -> None:
    plain, found = (torch.tensor(measured["curves"][name]) for name in ("plain", path))
    distance = (found - plain).abs()
    assert plain[-1] < 0.8 * plain[0]
    assert distance[0] <= ROUNDING[path] * plain[0]
    assert bool((distance <= torch.tensor(measured["noise"])).all())


def train_in_bf16(temporal: str, device: str = "cpu") -> set[torch.dtype]:
    """The kinds of numbers that leave the first convolution while a network trains in bf16."""
    network = video_network("tiny-resnet", frames=3, num_classes=2, temporal=temporal, in_channels=1)
    kinds: set[torch.dtype] = set()
    network.network.get_submodule("conv1").register_forward_hook(lambda _m, _i, output: kinds.add(output.dtype))
    split = TensorSplit(torch.randint(0, 255, (4, 1, 12, 12), dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    train_network(
        network, split, plan=FramePlan(policy=Policy.replicate(3)), objective=objective_for("classification", 2),
        recipe=replace(Recipe(), epochs=1, batch=4, precision="bf16"), seed=0, device=device,
    )  # fmt: skip
    assert next(network.parameters()).dtype == torch.float32
    return kinds


@pytest.mark.parametrize("temporal", TEMPORAL)
def test_every_temporal_module_trains_in_bf16(temporal: str) -> None:
    assert train_in_bf16(temporal) == {torch.bfloat16}


def test_a_gpu_without_bf16_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_: self)
    with pytest.raises(UserError, match=r"recipe\.precision float32"):
        train_in_bf16("none", "cuda")
