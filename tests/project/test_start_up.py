"""A mistake is answered before anything slow is imported: in one process that imports nothing but the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fieldshift.data.catalogue import OWN
from fieldshift.data.names import DOWNLOADED, OWN_KINDS, PLACES
from fieldshift.data.published.sets import PUBLISHED
from fieldshift.networks import TEMPORAL
from fieldshift.networks.names import INTERLEAVED, TEMPORAL_NAMES, published_models
from tests.mistakes import MISTAKES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("mistakes")
    path = os.pathsep.join([str(ROOT / "platform"), str(ROOT)])
    variables = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    script = f"from tests.mistakes import answer_all; answer_all({str(folder)!r})"
    done = subprocess.run(
        [sys.executable, "-c", script], env={**variables, "PYTHONPATH": path}, capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_answered_in_one_line_before_anything_slow_is_imported(
    name: str, answered: dict[str, Any]
) -> None:
    status, said, imported = answered["answers"][name]
    assert status == 2
    assert said.count("\n") == 1, said
    assert MISTAKES[name][1] in said
    assert imported == []


def test_no_mistake_leaves_a_file(answered: dict[str, Any]) -> None:
    assert answered["made"] == []


def test_names_known_without_torch_are_those_of_the_registries() -> None:
    assert tuple(TEMPORAL) == TEMPORAL_NAMES
    assert tuple(name for name, kind in TEMPORAL.items() if kind.takes_interleave) == INTERLEAVED
    assert tuple(OWN) == OWN_KINDS
    assert tuple(PUBLISHED) == tuple(PLACES)
    assert set(DOWNLOADED) <= set(PLACES)


def test_published_models_are_those_that_torchvision_registers() -> None:
    from torchvision import models
    from torchvision.models import detection, get_model_weights, list_models, segmentation

    for kind, module in (("", models), ("segmentation", segmentation), ("detection", detection)):
        found = published_models(kind)  # type: ignore[arg-type]
        assert sorted(found) == list_models(module=module)
        for name, entries in found.items():
            assert set(entries) == set(get_model_weights(name).__members__)


@pytest.mark.parametrize(("chosen", "spins"), [(None, "1000"), ("ACTIVE", "30000000000"), ("PASSIVE", "0")])
def test_threads_that_wait_leave_the_core_to_others_unless_told_otherwise(chosen: str | None, spins: str) -> None:
    """OpenMP itself prints how often a thread looks before it sleeps; two trainings on the same cores else stand still."""
    variables = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    variables |= {"OMP_DISPLAY_ENV": "VERBOSE", "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)])}
    if chosen is not None:
        variables["OMP_WAIT_POLICY"] = chosen
    script = "import pipelines, sys; assert 'torch' not in sys.modules; import torch"
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True)
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("torch has another OpenMP library than GNU's here, which does not print the count")
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr
