"""Batches: every sample once over all ranks, and the same global batches for any number of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldshift.data import TensorSplit, batch_count, batches, epoch_order
from fieldshift.errors import UserError


def split_of(count: int) -> TensorSplit:
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 2, 2).contiguous()
    return TensorSplit(images, torch.arange(count) % 3)


@given(
    count=st.integers(1, 70),
    batch=st.integers(1, 20),
    world=st.integers(1, 5),
    order=st.fixed_dictionaries({"shuffle": st.booleans(), "drop_last": st.booleans(), "epoch": st.integers(0, 3)}),
)
@settings(deadline=None, max_examples=80)
def test_ranks_share_the_same_global_batches(count: int, batch: int, world: int, order: dict[str, Any]) -> None:
    drop_last = order["drop_last"]
    if batch < world or (drop_last and count < batch):
        return
    split = split_of(count)
    whole = [indices for _, _, indices in batches(split, batch, seed=5, **order)]
    ranks = [list(batches(split, batch, seed=5, rank=rank, world=world, **order)) for rank in range(world)]
    assert {len(parts) for parts in ranks} == {len(whole)} == {batch_count(count, batch, drop_last=drop_last)}
    for number, indices in enumerate(whole):
        assert torch.equal(torch.cat([parts[number][2] for parts in ranks]), indices)
        sizes = [len(parts[number][2]) for parts in ranks]
        assert max(sizes) - min(sizes) <= 1
    seen = torch.cat(whole)
    assert len(set(seen.tolist())) == len(seen) == (count // batch * batch if drop_last else count)
    for images, targets, indices in ranks[0]:
        assert torch.equal(images[:, 0, 0, 0].long(), indices)
        assert torch.equal(targets, indices % 3)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    orders = {
        (seed, epoch): tuple(epoch_order(50, seed=seed, epoch=epoch).tolist())
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(set(orders.values())) == 16
    assert orders[2, 1] == tuple(epoch_order(50, seed=2, epoch=1).tolist())
    assert epoch_order(5, seed=0, epoch=0, shuffle=False).tolist() == [0, 1, 2, 3, 4]
    assert sorted(epoch_order(9, seed=-3, epoch=10**6).tolist()) == list(range(9))


def test_the_order_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    list(batches(split_of(10), 3, seed=0, epoch=0))
    assert torch.equal(before, torch.get_rng_state())


def test_wrong_sizes_are_refused_at_once() -> None:
    with pytest.raises(UserError, match="at least 4"):
        batches(split_of(10), 3, seed=0, epoch=0, world=4, rank=1)
    with pytest.raises(UserError, match="fewer than one batch of 16"):
        batches(split_of(10), 16, seed=0, epoch=0, drop_last=True)
    with pytest.raises(ValueError, match="rank"):
        batches(split_of(10), 4, seed=0, epoch=0, world=2, rank=2)


def test_a_split_knows_its_subsets() -> None:
    split = split_of(10)
    part = split.subset(torch.tensor([7, 2, 9]))
    images, targets = part.gather(torch.tensor([2, 0]))
    assert images[:, 0, 0, 0].tolist() == [9, 7]
    assert targets.tolist() == [0, 1]
    assert len(part) == 3
    assert torch.equal(part.to("cpu").targets, part.targets)


@pytest.mark.parametrize(
    ("images", "targets", "masks"),
    [
        (torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64), None),
        (torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), None),
        (torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3), None),
        (
            torch.zeros(3, 1, 2, 2, dtype=torch.uint8),
            torch.zeros(3, dtype=torch.int64),
            torch.zeros(3, 2, 3, dtype=torch.uint8),
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    images: torch.Tensor, targets: torch.Tensor, masks: torch.Tensor | None
) -> None:
    with pytest.raises((ValueError, TypeError)):
        TensorSplit(images, targets, masks)


def test_a_subset_shares_the_pixels_of_the_whole() -> None:
    images = torch.randint(256, (20, 3, 4, 5), dtype=torch.uint8)
    masks = torch.randint(4, (20, 4, 5), dtype=torch.uint8)
    whole = TensorSplit(images, torch.arange(20), masks)
    part = whole.subset(torch.arange(1, 20, 2)).subset(torch.tensor([4, 0, 7]))
    assert part.pixels.data_ptr() == images.data_ptr()
    assert part.to("cpu").pixels.data_ptr() == images.data_ptr()
    chosen = torch.tensor([9, 1, 15])
    assert torch.equal(part.targets, chosen)
    assert torch.equal(part.images, images[chosen])
    found, labels = part.gather(torch.tensor([2, 2, 0]))
    assert torch.equal(found, images[[15, 15, 9]])
    assert torch.equal(labels, masks[[15, 15, 9]].long())
    moved = part.to("meta")
    assert moved.pixels.shape == (3, 3, 4, 5)
    assert moved.masks is not None
    assert moved.masks.shape == (3, 4, 5)
