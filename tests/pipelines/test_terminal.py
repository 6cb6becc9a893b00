"""Every long command on a terminal and in a pipe: it ends well, its bar at 100 %, and finds the same, to the last digit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import pipelines
from fieldshift.arguments import option_types
from fieldshift.cli import commands, main
from fieldshift.console import Progress
from tests.terminal import PLACES, Shown

COLUMNS = 80
LOADED = ["--loading.train_limit", "96", "--loading.test_limit", "48"]
TRAINED = [*LOADED, "--recipe.epochs", "1", "--recipe.batch", "32"]
SEARCHED = ["--search.epochs", "1", "--search.tune_epochs", "0", "--search.batch", "32"]
HERE = ["--tracking.enabled", "false", "--cluster.trials_at_once", "0"]
FEW = ["--arms", "none", "das", "--seeds", "1", "--tta_copies", "0"]
MIXED = ["--arms", "none", "das", "affine", "das-folded+affine", "--seeds", "1", "--tta_copies", "2"]

# What each command is called with, the titles of its bars, and a part of what it says at its end.
LONG = {
    "search": ([*LOADED, *SEARCHED, *HERE], ["search"], "policy, found in"),
    "train": (["--policy", "POLICY", *TRAINED, *HERE], ["training das"], "das: test accuracy"),
    "compare": (["--policy", "POLICY", *MIXED, *TRAINED, *HERE], ["comparison"], "At equal epochs, das"),
    "sweep-frames": (
        ["--policy", "POLICY", "--frame_counts", "1", "2", "--seeds", "1", *TRAINED, *HERE], ["frame sweep"], "2 of 2 trials",
    ),
    "study": (
        [*FEW, "--frame_counts", "1", "3", *TRAINED, *SEARCHED, *HERE, "--cluster.workers", "0"],
        ["search", "comparison", "frame sweep"], "study finished in",
    ),
    "evaluate": (["--run", "RUN"], ["scoring"], "on 80 test images of digit-pairs-left"),
    "compare-fields": (["--runs", "RUN", "--images", "2", "--tracking.enabled", "false"], ["effective fields"], "anisotropy"),
    "tune": (["--over", "learning_rate", "--samples", "2", *TRAINED, *HERE], ["tuning none"], "best on held-out images"),
    "receptive-field": (["--network", "tiny-resnet", "--size", "40"], [], "feature extractor"),
}  # fmt: skip


@pytest.fixture(scope="session")
def run(small_study: Path) -> Path:
    """The folder of a trained network."""
    return small_study / "compare" / "trials" / "das-equal-epochs-T3-seed0"


@pytest.fixture
def policy(small_study: Path) -> Path:
    return small_study / "policy.json"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What every command left where it ran first."""
    return {}


def left_in(out: Path) -> dict[str, Any]:
    """All results of a run folder, without times and without its own path."""
    files = {str(file.relative_to(out)): file.read_text().replace(str(out), "OUT") for file in out.rglob("result.json")}
    return {name: untimed(json.loads(text)) for name, text in files.items()}


def untimed(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: each for name, each in value.items() if not any(word in name for word in TIMES)}
        return {name: untimed(each) for name, each in kept.items()}
    return [untimed(each) for each in value] if isinstance(value, list) else value


TIMES = ("second", "hours", "finished")


def shown(place: str, command: str, out: Path, policy: Path, run: Path) -> Shown:
    given = {"POLICY": str(policy), "RUN": str(run)}
    words = [command, *(given.get(word, word) for word in LONG[command][0]), "--out", str(out)]
    return PLACES[place](lambda: main(words), COLUMNS)


def test_the_bar_of_a_training_moves_within_its_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown_at: list[float] = []
    show = Progress.show
    monkeypatch.setattr("fieldshift.training.loop.READ_EVERY", 1)
    monkeypatch.setattr(Progress, "show", lambda bar, done, note="": (shown_at.append(done), show(bar, done, note)))
    words = ["--recipe.epochs", "1", "--recipe.batch", "24", "--tracking.enabled", "false"]
    assert main(["train", *LOADED, *words, "--out", str(tmp_path / "t")]) == 0
    assert shown_at == [0.25, 0.5, 0.75, 1.0]


def test_every_command_that_can_be_resumed_is_tried() -> None:
    resumed = {
        command for command in commands() if "resume" in option_types(getattr(pipelines, command.replace("-", "_")))
    }
    assert resumed == LONG.keys()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", LONG)
def test_a_long_command_ends_well_and_its_bars_at_100_percent(
    command: str, place: str, policy: Path, run: Path, tmp_path: Path, found: dict[str, Any]
) -> None:
    _, bars, said = LONG[command]
    seen = shown(place, command, tmp_path / "out", policy, run)
    assert seen.status == 0, seen.sent
    assert said in seen.text
    for title in bars:
        assert " 100% " in seen.bar(title)
    assert "Traceback" not in seen.sent
    assert [line for line in seen.broken if not any(len(word) > COLUMNS - 8 for word in line.split())] == []
    left = left_in(tmp_path / "out")
    assert "result.json" in left
    assert left == found.setdefault(command, left)
