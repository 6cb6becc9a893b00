"""Folded networks under torch.compile and torch.fx: one graph, and the numbers of the network itself."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

from fieldshift import Policy, fold
from fieldshift.errors import UserError
from fieldshift.folding import PolicyMotion
from fieldshift.networks import Inserted

ROOT = Path(__file__).resolve().parents[2]


def test_a_compiled_network_is_one_graph_with_the_same_outputs_and_gradients() -> None:
    """In a process of its own: torch.compile cannot follow the shape checks of the tests."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("compiled_networks.py")],
        capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found.pop("without the image's size")[0] > 1e-5
    assert found == {case: pytest.approx([0, 0], abs=2e-6) for case in ("tsm-24", "tsm-27", "gsm-27")}


@pytest.mark.parametrize("fill", ["zeros", "border", "mean"])
@pytest.mark.parametrize("op", ["identity", "translate_x", "rotate"])
def test_the_gradient_of_a_movement_is_that_of_autograd(op: str, fill: str) -> None:
    policy = (
        Policy.replicate(3)
        if op == "identity"
        else Policy.single(op, {"rotate": 20.0}.get(op, 0.2), frames=3, fill=fill)
    )
    features = torch.randn(2, 7, 9, 11, dtype=torch.float64, requires_grad=True)
    movement = PolicyMotion((policy,))((9, 11), features)
    moved = movement.move(features, 4)
    gradient = torch.randn_like(moved)
    (expected,) = torch.autograd.grad(moved, features, gradient)
    torch.testing.assert_close(movement.move_back(gradient, 4), expected)


def test_a_motion_is_known_in_the_process_that_reads_it() -> None:
    motion = pickle.dumps(PolicyMotion((Policy.single("zoom", 1.7, frames=3),)))
    program = "import pickle, sys; m = pickle.load(sys.stdin.buffer); from fieldshift.networks import compiled; "
    done = subprocess.run(
        [sys.executable, "-c", program + "assert compiled._motions[m.name] == m"],
        input=motion, capture_output=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_features_of_a_folded_network_are_extracted_by_torchvision() -> None:
    torch.manual_seed(0)
    network = fold_into_resnet18()
    images = torch.rand(2, 3, 70, 90)  # the stride divides neither side
    with pytest.raises(
        UserError, match=r"torch\.fx cannot trace through the place 'layer1\.0\.conv1'.+Inserted as a leaf"
    ):
        create_feature_extractor(network, {"layer4": "features"})
    nodes = {"layer4": "features", "fc": "logits"}
    extractor = create_feature_extractor(network, nodes, tracer_kwargs={"leaf_modules": [Inserted]})
    with torch.no_grad():
        found = extractor(images)
        torch.testing.assert_close(found["logits"], network(images))
    assert found["features"].shape == (2, 512, 3, 3)


def fold_into_resnet18() -> torch.nn.Module:
    network = resnet18(num_classes=5).eval()
    fold(network, Policy.single("translate_x", 0.25, frames=3))
    return network
