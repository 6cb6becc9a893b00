"""Training and search make the CPU wait for the device at the end of a log interval, and at no step."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from fieldshift.search import RULES, Alternatives, SelectionRule, Space, load_space
from tests.devices.toys import Run, a_network_is_trained, motions_are_searched, motions_are_searched_in_one_frame
from tests.other_device import NAME

AUGMENTED = {"flip": 0.5, "crop": 1, "scale": 1.2}
WAITS_PER_PASS = 6  # 2 for the order of the samples, 4 at the end: losses, score, whether weights are finite, alpha


def small(name: str) -> Space:
    """A packaged space with two nodes at most."""
    space = load_space(name)
    return space.with_changes(inputs=1, nodes=min(2, space.nodes), edges_per_node=1)


@pytest.mark.parametrize(
    ("task", "settings"),
    [("classification", {"clip_norm": 1.0, **AUGMENTED}), ("segmentation", {"optimizer": "sgd", **AUGMENTED})],
)
def test_no_step_of_a_training_waits(there: Run, task: str, settings: dict[str, Any]) -> None:
    few, many = (there(partial(a_network_is_trained, **settings, batch=batch), task, 3, NAME)[-1] for batch in (8, 2))
    assert few == many > 0  # of 2 and of 8 steps: the numbers are read at the end of the epoch


GUMBEL = {"relaxation": "gumbel", "order": "second-exact", "optimizer": "sgd"}


@pytest.mark.parametrize(
    ("space", "task", "settings"),
    [
        ("affine-cell", "classification", {"clip_norm": 1.0, **AUGMENTED}),
        ("affine-edge", "segmentation", AUGMENTED),
        ("affine-edge", "classification", {"order": "second", "optimizer": "sgd"}),
        ("affine-edge", "classification", GUMBEL),
        ("affine-learned", "classification", {}),
        ("affine-colour", "classification", {}),
    ],
)
def test_no_step_of_a_search_waits(there: Run, space: str, task: str, settings: dict[str, Any]) -> None:
    few, many = (
        there(motions_are_searched, small(space), task, {**settings, "selection": "magnitude", **size}, NAME)[2]
        for size in ({"batch": 8, "frames": 3}, {"batch": 2, "frames": 4})
    )
    assert few == many  # of 1 and of 4 steps, in 3 and in 4 frames
    assert sum(few.values()) <= WAITS_PER_PASS


class InOrder(SelectionRule):
    """Makes the same decisions whatever was learned, so that two searches tune the same cells."""

    measures = True

    def removal_costs(self, alternatives: Alternatives) -> list[float]:
        return [float(-number) for number, _ in enumerate(alternatives.measure()[1:])]


def motions_are_chosen_in_order(batch: int) -> list[dict[str, int]]:
    RULES.setdefault("in order", InOrder())
    settings = {"batch": batch, "selection": "in order"}
    return motions_are_searched(small("affine-cell"), "classification", settings, NAME)[3]


def test_no_step_of_the_tuning_between_decisions_waits(there: Run) -> None:
    _, few, many = (there(motions_are_chosen_in_order, batch) for batch in (8, 8, 2))  # the first copies the constants
    assert few == many
    assert few


@pytest.mark.parametrize(("settings", "learned"), [(AUGMENTED, False), (GUMBEL, True)], ids=["frozen", "learned"])
def test_no_step_of_a_folded_search_waits(there: Run, settings: dict[str, Any], learned: bool) -> None:
    few, many = (
        there(motions_are_searched_in_one_frame, {**settings, "selection": "magnitude", "batch": batch}, NAME, learned)[
            2
        ]
        for batch in (8, 2)
    )
    assert few == many
    assert sum(few.values()) <= WAITS_PER_PASS
