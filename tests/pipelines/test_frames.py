"""The number of frames: of a space, which commands do not use, and of a policy, which `describe` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldshift.cli import main
from fieldshift.motions import Policy

SPACE = """name = "five"
version = 1
inputs = 1
nodes = 1
edges_per_node = 1
magnitudes = "grid"
frames = 5
candidates = ["identity", "translate_x"]

[grid]
translate_x = [0.3]
"""
SEARCH = [
    "search", "--form", "folded", "--loading.train_limit", "64", "--search.epochs", "1", "--search.tune_epochs", "0",
    "--search.batch", "16", "--tracking.enabled", "false",
]  # fmt: skip


@pytest.mark.parametrize(("frames", "noted"), [(3, True), (5, False)])
def test_the_frames_of_a_space_are_said_where_a_search_has_others(
    frames: int, noted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "five.toml").write_text(SPACE)
    words = ["--space", str(tmp_path / "five.toml"), "--frames", str(frames), "--out", str(tmp_path / "run")]
    assert main([*SEARCH, *words]) == 0
    assert ("note: the space five has frames = 5, which is not used: --frames is 3" in capsys.readouterr().out) == noted
    assert Policy.load(tmp_path / "run" / "policy.json").frames == frames


def test_a_network_is_described_with_the_frames_of_its_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Policy.single("translate_x", 0.15, frames=7).save(tmp_path / "policy.json")
    policy = ["--form", "folded", "--policy", str(tmp_path / "policy.json")]
    words = ["describe", "--size", "40", "--speed", "false", *policy]
    said = []
    for frames in ([], ["--frames", "7"], ["--frames", "3"]):
        assert main([*words, *frames]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]
