"""The smallest images and batches: said beforehand by shapes alone, against networks that are run for real."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.networks.smallest import LARGEST_SIDE, check_batch_and_size, failure, passes


class Sized(nn.Module):
    """Needs images of `least` px: as many unpadded rows are cut off. With a normalisation over one value a channel."""

    def __init__(self, least: int = 1, *, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, least)
        self.pool = nn.AdaptiveAvgPool2d(1) if pooled else nn.Identity()
        self.norm = nn.BatchNorm2d(2)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.norm(self.pool(self.conv(images)))
        return result


class Seeing(nn.Module):
    """Looks at values, which shapes do not have."""

    def forward(self, images: Tensor) -> Tensor:
        return images[images > 0]


def runs(network: nn.Module, shape: tuple[int, ...], training: bool) -> bool:
    try:
        network.train(training)(torch.rand(shape))
    except (RuntimeError, ValueError):
        return False
    return True


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("side", [4, 5, 6])
@pytest.mark.parametrize("pooled", [True, False])
def test_shapes_tell_what_running_tells(pooled: bool, side: int, rows: int, training: bool) -> None:
    network = Sized(5, pooled=pooled)
    shape = (rows, 1, side, side)
    assert passes(network, shape, training) == runs(network, shape, training)


def check(
    network: nn.Module, *, images: int = 2, rows: int = 1, channels: int = 1, side: int = 8, **more: bool
) -> None:
    options = {"training": True, **more}
    check_batch_and_size(network, "n", images=images, rows=rows, channels=channels, size=(side, side), **options)


def test_a_single_value_a_channel() -> None:
    check(Sized(pooled=True), images=2)
    check(Sized(pooled=True), images=1, rows=3)  # frames are rows too
    check(Sized(pooled=True), images=1, training=False)
    with pytest.raises(UserError, match=r"cannot learn from 1 image per step.* give --recipe.batch 2 or more"):
        check(Sized(pooled=True), images=1)


def test_images_that_are_too_small() -> None:
    check(Sized(8))
    with pytest.raises(UserError, match=r"cannot read images of 8 x 8 px.* \(those of 16 x 16 px are not\)"):
        check(Sized(9))
    with pytest.raises(UserError, match="those of 32 x 32 px are not"):
        check(Sized(17), training=False)


def test_what_no_size_mends_says_the_reason() -> None:
    with pytest.raises(UserError, match=r"The network n cannot read images of 3 x 8 x 8: Invalid channel dimensions"):
        check(Sized(), channels=3)
    with pytest.raises(UserError, match="cannot read images of 1 x 8 x 8: "):
        check(Sized(2 * LARGEST_SIDE))


def test_where_shapes_say_nothing_nothing_is_refused() -> None:
    assert failure(Seeing(), (1, 1, 4, 4), training=False) is None


def test_the_network_is_left_as_it_was() -> None:
    network = Sized(3).eval()
    network.norm.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for side in (2, 8):
        passes(network, (2, 1, side, side), training=True)
    assert [part.training for part in (network, network.conv, network.norm)] == [False, False, True]
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert next(network.parameters()).device.type == "cpu"
