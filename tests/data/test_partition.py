"""Parts of a split: disjoint, complete, stratified, and the same for the same seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldshift.data import TensorSplit, halves, holdout
from fieldshift.data.partition import limited, stratified
from fieldshift.errors import UserError

LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=60)


def split_of(labels: list[int]) -> TensorSplit:
    return TensorSplit(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), torch.tensor(labels, dtype=torch.int64))


@given(labels=LABELS, share=st.floats(0.05, 0.95), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=60)
def test_parts_hold_every_index_once_and_every_class_in_proportion(labels: list[int], share: float, seed: int) -> None:
    targets = torch.tensor(labels, dtype=torch.int64)
    first, second = stratified(targets, share, seed)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(len(labels)))
    assert len(first) == round(share * len(labels))
    for label in set(labels):
        exact = len(first) / len(labels) * labels.count(label)
        assert abs(int((targets[first] == label).sum()) - exact) < 1
    assert all(torch.equal(*pair) for pair in zip((first, second), stratified(targets, share, seed), strict=True))


def test_halves_are_even_in_every_class_and_change_with_the_seed() -> None:
    split = split_of([0] * 20 + [1] * 31 + [2] * 9)
    one, two = halves(split, seed=0)
    assert (len(one), len(two)) == (30, 30)
    assert torch.equal(torch.bincount(split.targets[one]), torch.tensor([10, 16, 4])) or torch.equal(
        torch.bincount(split.targets[one]), torch.tensor([10, 15, 5])
    )
    assert not torch.equal(one, halves(split, seed=1)[0])


def test_holdout_takes_the_fraction_of_each_class() -> None:
    split = split_of([0] * 80 + [1] * 20)
    kept, held = holdout(split, 0.1, seed=0)
    assert torch.bincount(split.targets[held]).tolist() == [8, 2]
    assert len(kept) == 90


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, 3.0])
def test_holdout_refuses_a_fraction_outside(fraction: float) -> None:
    with pytest.raises(UserError, match="above 0 and below 1"):
        holdout(split_of([0, 1]), fraction, seed=0)


def test_parts_that_would_be_empty_are_refused() -> None:
    with pytest.raises(UserError, match="fraction"):
        holdout(split_of([0, 1]), 0.01, seed=0)
    with pytest.raises(UserError, match="halved"):
        halves(split_of([0]), seed=0)


def test_a_limit_keeps_the_shares_of_the_classes() -> None:
    targets = torch.tensor([0] * 90 + [1] * 10)
    assert torch.bincount(targets[limited(targets, 20, seed=0)]).tolist() == [18, 2]
    assert torch.equal(limited(targets, None, seed=0), torch.arange(100))
    assert torch.equal(limited(targets, 500, seed=0), torch.arange(100))
    with pytest.raises(UserError, match="at least 1"):
        limited(targets, 0, seed=0)
