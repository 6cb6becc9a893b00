"""A folded search and its policy on images whose sides the network's stride does not divide."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fieldshift.folding import still
from fieldshift.networks import video_network
from fieldshift.networks.cells import InImage
from fieldshift.search.folded_cell import FoldedCell
from fieldshift.search.space import load_space

OPTIONS = (("identity",), ("translate_x",), ("translate_y",), ("rotate",))
GRID = {"translate_x": (0.3,), "translate_y": (0.2,), "rotate": (40.0,)}


@pytest.mark.parametrize(("per", "groups"), [("network", 1), ("place", 1), ("place", 3)])
@pytest.mark.parametrize("size", [(29, 22), (32, 24)])
def test_search_and_policy_move_alike(per: str, groups: int, size: tuple[int, int]) -> None:
    """A mixture with all weight on one option moves as the decided cell does, on any side."""
    torch.manual_seed(0)
    space = load_space("affine-one").with_changes(candidates=OPTIONS, grid=GRID, per=per, groups=groups)
    network = video_network("tiny-resnet", frames=1, num_classes=2, motions=still(groups)).eval()
    cell = FoldedCell(space, 3, 1, network.placements, network.stages)
    cell.attach(network)
    chosen = [1 + e % 3 for e in range(len(cell.edges))]
    images = torch.rand(2, 1, 3, *size)
    found: dict[str, Tensor] = {}
    for name, decided in (("search", [None] * len(chosen)), ("policy", chosen)):
        cell.decided = list(decided)
        weights = None if name == "policy" else nn.functional.one_hot(torch.tensor(chosen), len(OPTIONS)).float()
        with cell.shown(weights, learns=False), torch.no_grad():
            found[name] = network(images)
    torch.testing.assert_close(found["search"], found["policy"], atol=1e-5, rtol=1e-5)
    modules = [module for module in network.modules() if isinstance(module, InImage)]
    assert [module.stride for module in modules] == [2, 4]
    for module in modules:
        module.stride = None
    with cell.shown(None, learns=False), torch.no_grad():
        assert torch.equal(network(images), found["policy"]) == (size == (32, 24))
