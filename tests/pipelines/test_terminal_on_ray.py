"""The commands that use Ray, with a real one, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldshift.cli import main
from fieldshift.cluster import ClusterConfig, connect
from fieldshift.run_folder import read_result
from tests.terminal import in_terminal

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]

LOADED = ["--loading.train_limit", "96", "--loading.test_limit", "48"]
TRAINED = [*LOADED, "--recipe.epochs", "1", "--recipe.batch", "32"]
SEARCHED = ["--search.epochs", "1", "--search.tune_epochs", "0", "--search.batch", "32"]
FEW = ["--seeds", "1", "--tta_copies", "0", "--budgets", "equal-epochs", *TRAINED]

# A study searches, compares and sweeps through Ray Tune, as the commands of these names do.
ON_RAY = {
    "study": (
        ["--arms", "none", "das", "--frame_counts", "1", "3", *FEW, *SEARCHED],
        ["search", "comparison", "frame sweep"],
    ),
    "compare": (["--arms", "randaugment", "--tune_randaugment", "1", *FEW], ["tuning RandAugment", "comparison"]),
}


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    with connect(ClusterConfig()):
        yield


@pytest.mark.parametrize("command", ON_RAY)
def test_a_command_with_workers_ends_well_and_its_bars_at_100_percent(
    command: str, ray_cluster: None, tmp_path: Path
) -> None:
    words, bars = ON_RAY[command]
    seen = in_terminal(lambda: main([command, *words, "--out", str(tmp_path / "out")]))
    assert seen.status == 0, seen.sent
    for title in bars:
        assert " 100% " in seen.bar(title)
    assert read_result(tmp_path / "out")
