"""Random networks of every layer of torch.nn against the gradient probe; 500 of them by hand (`receptive_field.testing`)."""

from __future__ import annotations

import pytest

from fieldshift.receptive_field.testing import check_network
from fieldshift.receptive_field.torch_layers import NO_MAPS, classes, layers

UNKNOWN = {
    "fractional_max_pool2d",  # windows drawn at random
    "fractional_max_pool3d",
    "a mixture of rows or columns of which the channels hold a part",
}

LATER = {"LinearCrossEntropyLoss"}
"""Layers that the lowest version of torch does not have."""


def test_every_layer_of_torch_is_taken_or_named_with_a_reason() -> None:
    named = set(layers()) | set(NO_MAPS)
    assert set(classes()) <= named, "a layer is new"
    assert named - set(classes()) <= LATER, "a layer is gone"
    assert not set(layers()) & set(NO_MAPS)


@pytest.mark.parametrize("seed", range(90))
def test_the_theory_agrees_with_the_probe_or_says_that_it_does_not_know(seed: int) -> None:
    """Their first layers are all of torch's, one after the other."""
    ending = check_network(seed)
    assert ending in {"agreed", "unbounded", "no map", "at a border"} or ending.removeprefix("unknown by ") in UNKNOWN


def test_as_many_networks_as_layers_are_tried() -> None:
    assert len(layers()) <= 90
