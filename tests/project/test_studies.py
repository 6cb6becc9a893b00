"""The study whose raw numbers are committed: one command, which goes on, and leaves nothing of this machine in its file."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from fieldshift.readings import READINGS
from fieldshift.training import arm_named

ROOT = Path(__file__).resolve().parents[2]


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / "studies" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def forms() -> Any:
    return script("forms")


def test_its_arms_answer_the_questions_to_the_plain_methods(forms: Any) -> None:
    arms = [arm_named(name) for name in forms.ARMS]
    assert len(arms) == len(set(forms.ARMS))
    assert {"replicate", "random-policy", "random-policy-folded", "none", "dilated", "wide-field"} <= set(forms.ARMS)


def test_the_study_runs_goes_on_and_keeps_its_raw_numbers(
    forms: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "results" / "forms-left.json"
    words = [
        "--train-limit", "80", "--test-limit", "40", "--epochs", "1", "--search-epochs", "1", "--batch", "32", "--seeds", "1",
        "--tta-copies", "1", "--at-once", "0", "--arms", "none", "das-folded", "affine", "--out", str(out),
    ]  # fmt: skip
    forms.main(words)
    kept = json.loads(out.read_text())
    assert {row["reading"] for row in kept["rows"]} == set(READINGS)
    assert kept["searches"][0]["policy"]["found"]["cost"]["operations"] > 0
    assert set(kept["budget"]["arms"]) == {"none", "das-folded", "affine"}
    assert any(line.startswith("At equal compute, search included, das-folded (") for line in kept["verdict"])
    assert str(tmp_path) not in out.read_text()
    assert str(Path.home()) not in out.read_text()
    trained = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "forms-left").rglob("weights.safetensors")
    }
    (tmp_path / "runs" / "forms-left" / "result.json").unlink()
    forms.main(words)
    again = json.loads(out.read_text())
    assert again["rows"] == kept["rows"]
    assert {path: path.stat().st_mtime_ns for path in trained} == trained


def test_the_readmes_table_is_made_from_the_committed_numbers() -> None:
    tables, page = script("tables"), (ROOT / "README.md").read_text()
    assert page.count(tables.BEGIN) == 1
    assert tables.written(page) == page
