"""Trials and policies that the report's tests share: small, made up, with known means."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from fieldshift.motions import Edge, Policy, Step

BASELINES = ("none", "affine")
SCORES: dict[str, tuple[float, ...]] = {
    "none": (0.60, 0.62, 0.64, 0.61),
    "affine": (0.70, 0.71, 0.75, 0.72),
    "das": (0.90, 0.88, 0.93, 0.91),
    "das-gsf": (0.92,),
    "wide-field": (0.91, 0.86, 0.92, 0.93),
    "replicate": (0.95, 0.94, 0.97, 0.96),
}


def trial(arm: str, seed: int, score: float, reading: str = "equal compute", **more: Any) -> dict[str, Any]:
    """One row of a comparison with plausible costs."""
    row = {
        "arm": arm,
        "reading": reading,
        "seed": seed,
        "score": score,
        "score_tta": float("nan"),
        "parameters": 48_321,
        "flops": 4.1e6,
        "epochs": 12,
        "seconds": 30.0 + seed,
        "search_seconds": 39.0 if arm.startswith("das") else 0.0,
        "frames": 3,
    }
    return row | more


@pytest.fixture
def rows(trial_rows: pd.DataFrame) -> pd.DataFrame:
    """`trial_rows`, to be changed at will."""
    return trial_rows.copy()


@pytest.fixture(scope="session")
def trial_rows() -> pd.DataFrame:
    """Four seeds of six arms at both readings; `das-gsf` has one seed, 15 % less at equal epochs."""
    return pd.DataFrame(
        [
            trial(arm, seed, score * (1.0 if reading == "equal compute" else 0.85), reading)
            for reading in ("equal epochs", "equal compute")
            for arm, scores in SCORES.items()
            for seed, score in enumerate(scores)
        ]
    )


@pytest.fixture
def make_trial() -> Any:
    """The function that makes one row."""
    return trial


def cell_policy(frames: int = 3) -> Policy:
    """All 14 edges of a cell of 2 inputs and 4 nodes."""
    steps = (Step("translate_x", 0.43), Step("rotate", -35.0), Step("zoom", 1.5), Step("identity", 0.0))
    edges = tuple(
        Edge(source, target, (steps[(source + target) % 4],)) for target in range(2, 6) for source in range(target)
    )
    return Policy(inputs=2, nodes=4, edges=edges, frames=frames)


def composite_policy() -> Policy:
    """All 14 edges, three motions on each."""
    steps = (Step("translate_x", -0.4), Step("rotate", -35.0), Step("zoom", 1.8))
    edges = tuple(Edge(edge.source, edge.target, steps) for edge in cell_policy().edges)
    return Policy(inputs=2, nodes=4, edges=edges, frames=3)


@pytest.fixture(
    params=[
        cell_policy(),
        composite_policy(),
        Policy.replicate(3),
        Policy.single("translate_y", -0.3, frames=16),
        Policy.chain([("rotate", 30.0), ("brightness", 0.2)], frames=1),
    ],
    ids=["14-edges", "14-composites", "replicate", "16-frames", "1-frame"],
)
def policy(request: pytest.FixtureRequest) -> Policy:
    """Policies at the ends of what is drawn."""
    found: Policy = request.param
    return found
