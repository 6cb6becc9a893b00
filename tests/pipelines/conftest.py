from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fieldshift.cluster import ClusterConfig
from fieldshift.data import LoadingConfig
from fieldshift.search import SearchConfig
from fieldshift.training import Recipe

SMALL = LoadingConfig(train_limit=160, test_limit=80)
HERE = ClusterConfig(workers=0, trials_at_once=0)
SEARCH = SearchConfig(epochs=1, tune_epochs=0, batch=32)


def small(out: Path, *, resume: bool = False, epochs: int = 1) -> object:
    import pipelines

    return pipelines.study(
        out=str(out), resume=resume, arms=["none", "affine", "das", "replicate"], seeds=2, frame_counts=[1, 3],
        average_copies=2, search=SEARCH, recipe=Recipe(epochs=epochs, batch=32), loading=SMALL, cluster=HERE,
    )  # fmt: skip


@pytest.fixture(scope="session")
def run_study() -> Callable[..., object]:
    """Runs a whole study in this process, small enough for a test, into the folder given."""
    return small


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of such a study; tests look at what it leaves."""
    out = tmp_path_factory.mktemp("study") / "study"
    small(out)
    return out
