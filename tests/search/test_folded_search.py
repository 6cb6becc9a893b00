"""The search in folded form: mixtures against single movements, gradients against differences, the loop from end to end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fieldshift.errors import UserError
from fieldshift.folding import PolicyMotion, motions_of, still
from fieldshift.motions import Policy
from fieldshift.motions.placed import PlacedPolicy, load_policy
from fieldshift.networks import VideoNetwork, video_network
from fieldshift.networks.folded import FoldedTSM
from fieldshift.search import Space, check_search, load_space, random_policy, search, units_of
from fieldshift.search.bilevel import outer_gradient
from fieldshift.search.folded_cell import FoldedCell
from fieldshift.search.selection import Selector
from fieldshift.search.supernet import FoldedSupernet
from fieldshift.training.checkpoint import read_checkpoint
from fieldshift.training.objectives import objective_for

GROUPS = 3  # divides the 3 of tiny-resnet's 24 channels that move each way


class Interrupted(Exception):  # noqa: N818
    pass


def folded_network(space: Space, seed: int = 0, task: str = "classification", **options: Any) -> VideoNetwork:
    torch.manual_seed(seed)
    name = "tiny-resnet" if task == "classification" else "tiny-resnet-fcn"
    settings = {"task": task, "frames": 1, "num_classes": 2, "in_channels": 1, "motions": still(space.groups)}
    return video_network(name, **{**settings, **options})


def few(**changes: Any) -> Space:
    """One edge, three options."""
    given = {
        "candidates": (("identity",), ("translate_x",), ("rotate",)),
        "grid": {"translate_x": (0.3,), "rotate": (40.0,)},
    }
    return load_space("affine-one").with_changes(**given, name="few", **changes)


def graph(**changes: Any) -> Space:
    """Two inputs, two nodes, five edges, five options."""
    return load_space("affine-cell").with_changes(nodes=2, **changes)


SPACES: dict[str, Space] = {
    "network": few(),
    "place": few(per="place"),
    "groups": few(per="place", groups=GROUPS),
    "one for all groups": few(groups=GROUPS, fill="border"),
    "graph": graph(edges_per_node=1),
}


def supernet_with(space: Space, frames: int = 3, seed: int = 1, **options: Any) -> FoldedSupernet:
    network = folded_network(space, **options)
    cell = FoldedCell(space, frames, seed, network.placements, network.stages)
    with torch.no_grad():
        cell.alpha.copy_(torch.randn(cell.alpha.shape, generator=torch.Generator().manual_seed(2)))
    return FoldedSupernet(network, cell, lambda video: (video - 0.2) / 0.3)


def modules_of(supernet: FoldedSupernet) -> list[FoldedTSM]:
    return [module for module in supernet.network.modules() if isinstance(module, FoldedTSM)]


def option_alone(cell: FoldedCell, e: int, o: int, channels: Tensor, behind: Tensor) -> Tensor:
    """Channels, half of them from either side, moved by one option of one edge through the policy of that option."""
    values, ops, space = cell.magnitudes()[e, o].tolist(), cell.operations[o].steps, cell.space
    steps = [(op, 0.0 if op == "identity" else value) for op, value in zip(ops, values, strict=False)]
    fill = "zeros" if space.fill == "mean" else space.fill
    policy = Policy.chain(steps, frames=cell.frames, reference=space.reference, symmetric=space.symmetric, fill=fill)
    movement = PolicyMotion((policy,))((channels.shape[-2], channels.shape[-1]), channels)
    return movement.move(channels - behind, channels.shape[1]) + behind


def plainly_moved(cell: FoldedCell, place: int, features: Tensor, fold: int, weights: Tensor) -> Tensor:
    """Every option of every edge alone, weighted and added; a node is the mean of its edges."""
    space = cell.space
    means = features.mean((2, 3), keepdim=True) * (space.fill == "mean")  # what lies outside of the map

    def mixed(e: int, channels: Tensor, behind: Tensor) -> Tensor:
        parts = [weights[e, o] * option_alone(cell, e, o, channels, behind) for o in range(len(cell.operations))]
        return torch.stack(parts).sum(0)

    if space.is_placed:
        result, each = features.clone(), fold // space.groups
        unit = next(number for number, unit in enumerate(cell.units) if cell.places[place] in unit)
        for group in range(space.groups):
            at = [side * fold + group * each + c for side in (0, 1) for c in range(each)]
            moved = mixed(unit * space.groups + group, features[:, at], means[:, at])
            result = result.index_copy(1, torch.tensor(at), moved)
        return result
    values = [features[:, : 2 * fold]] * space.inputs
    for node in range(space.inputs, space.inputs + space.nodes):
        incoming = [e for e, (_, target) in enumerate(cell.edges) if target == node]
        moved = [mixed(e, values[cell.edges[e][0]], means[:, : 2 * fold]) for e in incoming]
        values.append(torch.stack(moved).mean(0))
    return torch.cat([values[-1], features[:, 2 * fold :]], dim=1)


VARIANTS = {
    **SPACES,
    "border": few(per="place", fill="border"),
    "reflection": few(per="stage", fill="reflection"),
    "mean": few(per="place", fill="mean"),
    "first": few(reference="first"),
    "symmetric": few(symmetric=True),
    "graph of the mean": graph(fill="mean", reference="first"),
    "pairs": load_space("affine-edge"),
    "many": load_space("affine-groups").with_changes(groups=GROUPS),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_mixture_at_a_place_is_the_weighted_sum_of_single_movements(name: str) -> None:
    supernet = supernet_with(VARIANTS[name], frames=4)
    cell, modules = supernet.cell, modules_of(supernet)
    features = torch.rand(2, 24, 7, 6, generator=torch.Generator().manual_seed(3)).double().requires_grad_()
    weights = cell.weights().detach().double().requires_grad_()
    probe = torch.randn(features.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for place, module in enumerate(modules):
        results = []
        with cell.shown(weights, learns=True):
            results.append(module(features))
        results.append(plainly_moved(cell, place, features, module.fold, weights))
        torch.testing.assert_close(results[0], results[1], atol=1e-6, rtol=0)
        ours, plain = (torch.autograd.grad((moved * probe).sum(), [features, weights]) for moved in results)
        for found, expected in zip(ours, plain, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["place", "groups", "mean", "graph", "graph of the mean"])
def test_an_option_that_is_taken_away_takes_its_share_with_it(name: str) -> None:
    supernet = supernet_with(VARIANTS[name])
    cell, module = supernet.cell, modules_of(supernet)[0]
    features = torch.rand(2, 24, 7, 6, generator=torch.Generator().manual_seed(3)).double()
    weights = cell.weights().detach().double()
    weights[0, 1] = 0.0
    with cell.shown(weights, learns=False), torch.no_grad():
        found = module(features)
        torch.testing.assert_close(found, plainly_moved(cell, 0, features, module.fold, weights), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["place", "groups", "graph"])
def test_a_decided_cell_moves_by_its_policy(name: str) -> None:
    supernet = supernet_with(VARIANTS[name])
    cell = supernet.cell
    cell.decided = [e % len(cell.operations) for e in range(len(cell.edges))]
    features = torch.rand(2, 24, 7, 6)
    motions = motions_of(cell.to_policy({}))(cell.placements)
    for place, module in enumerate(modules_of(supernet)):
        with cell.shown(None, learns=False):
            moved = module(features)
        assert torch.equal(moved, FoldedTSM(24, motions[place])(features))
        if cell.space.nodes == 1:  # motions one after the other are sampled once
            weights = nn.functional.one_hot(torch.tensor(cell.decided), len(cell.operations)).float()
            expected = plainly_moved(cell, place, features, module.fold, weights)
            torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def losses_of(supernet: FoldedSupernet) -> list[Callable[[Sequence[Tensor]], Tensor]]:
    """The loss of two batches for given network parameters, with a graph to alpha."""
    names = [f"network.{name}" for name, _ in supernet.network.named_parameters()]
    generator = torch.Generator().manual_seed(5)

    def loss_on(images: Tensor, labels: Tensor) -> Callable[[Sequence[Tensor]], Tensor]:
        def loss(parameters: Sequence[Tensor]) -> Tensor:
            given = dict(zip(names, parameters, strict=True))
            logits = functional_call(supernet, given, (images, supernet.cell.weights()))
            return nn.functional.cross_entropy(logits, labels)

        return loss

    batches = [torch.rand(6, 1, 12, 12, generator=generator, dtype=torch.float64) for _ in range(2)]
    return [loss_on(batch, torch.arange(6) % 2) for batch in batches]


@pytest.mark.parametrize("order", ["first", "second", "second-exact"])
@pytest.mark.parametrize("name", ["groups", "graph"])
def test_the_outer_gradient_is_that_of_differences(monkeypatch, name: str, order: str) -> None:
    monkeypatch.setattr("fieldshift.search.bilevel.STEP_OF_DIFFERENCES", 1e-8)  # within one linear piece of the network
    supernet, lr = supernet_with(SPACES[name]).double(), 0.05
    supernet.cell.double()
    alpha, parameters = supernet.cell.alpha, list(supernet.network.parameters())
    outer, inner = losses_of(supernet)
    (found,), _ = outer_gradient(outer, inner, parameters, [alpha], order=order, lr=lr)

    def outer_loss() -> float:
        ahead = parameters
        if order != "first":
            slopes = torch.autograd.grad(inner(parameters), parameters)
            ahead = [(w - lr * slope).detach() for w, slope in zip(parameters, slopes, strict=True)]
        return float(outer(ahead).detach())

    step = 1e-6
    for index in ((0, 0), (0, 2), (len(alpha) - 1, 1)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                alpha[index] += sign * step
            values.append(outer_loss())
            with torch.no_grad():
                alpha[index] -= sign * step
        assert float(found[index]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-5)
    assert found.abs().max() > 1e-3


def test_learned_magnitudes_have_the_gradient_of_differences() -> None:
    space = load_space("affine-learned").with_changes(inputs=1, nodes=1, edges_per_node=1, per="place")
    supernet = supernet_with(space)
    cell, module = supernet.cell, modules_of(supernet)[1]
    features = torch.rand(1, 24, 6, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    probe = torch.randn(features.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    weights, values = cell.weights().detach().double(), cell.magnitudes.position

    def answer() -> Tensor:
        with cell.shown(weights, learns=True):
            return (module(features) * probe).sum()

    (found,) = torch.autograd.grad(answer(), values)
    assert found[0].abs().max() == 0  # the other place's
    step = 1e-6
    for o in range(len(cell.operations)):
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                values[1, o, 0] += sign * step
                sides.append(float(answer()))
                values[1, o, 0] -= sign * step
        assert float(found[1, o, 0]) == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=1e-4, abs=1e-6)
    assert (found[1, 1:] != 0).all()


@pytest.mark.parametrize("name", ["groups", "graph"])
def test_selection_measures_what_removal_costs_and_leaves_no_trace(name, toy_data, quick) -> None:
    supernet = supernet_with(SPACES[name]).train()
    cell, data = supernet.cell, toy_data()
    supernet(data.train.images[:8])
    batches = lambda: iter([(*data.train.gather(torch.arange(18)), torch.arange(18))])  # noqa: E731
    selector = Selector(
        supernet=supernet, batches=batches, objective=objective_for("classification", 2), config=quick(), seed=0
    )

    def measured(weights: Tensor) -> float:
        network = copy.deepcopy(supernet.network).train()  # the copy's places ask the same cell
        images, targets, _ = next(batches())
        with torch.no_grad(), cell.shown(weights, learns=False):
            logits = network((images.float()[:, None] / 255 - 0.2) / 0.3)[:, 0]
        return float(nn.functional.cross_entropy(logits, targets))

    weights = cell.weights().detach()
    costs = {}
    for o, option in enumerate(cell.operations):
        without = weights.clone()
        without[1, o] = 0.0
        costs[option.label] = measured(without) - measured(weights)
    before = {name: tensor.clone() for name, tensor in supernet.network.state_dict().items()}
    modes, random_state = [module.training for module in supernet.network.modules()], torch.get_rng_state()
    decision = selector.choose_operation(1)
    assert decision.harm == pytest.approx(costs, abs=1e-5)
    assert decision.chosen == [max(costs, key=lambda label: costs[label])]
    assert modes == [module.training for module in supernet.network.modules()]
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.network.state_dict().items())


@pytest.fixture
def run(toy_data, quick, normalise):
    def build(space: Space, *, task: str = "classification", seed: int = 0, config=None, **settings: Any):
        objective = objective_for(task, 2, 255 if task == "segmentation" else None)
        network = folded_network(space, seed=settings.pop("weights", 0), task=task)
        data = toy_data(task=task)
        return search(
            network, data, space, config or quick(), objective=objective, normalise=normalise, seed=seed, **settings
        )

    return build


@pytest.mark.parametrize(("name", "relaxation"), [("groups", "softmax"), ("graph", "gumbel")])
def test_a_search_that_is_interrupted_in_every_phase_ends_as_the_whole(run, quick, tmp_path, name, relaxation) -> None:
    """Within the supernet phase, after it, and in the tuning after the last decision but one."""
    config, space, parts = quick(relaxation=relaxation), SPACES[name], tmp_path / "parts"
    whole = run(space, config=config, folder=tmp_path / "whole")
    passes = len(whole.history)
    assert passes > 4
    for number, stop in enumerate((1, 2, passes - 1)):

        def interrupt(row: dict[str, float], step: int, stop: int = stop) -> None:
            if "train/loss" in row and step == stop:
                raise Interrupted

        # Other weights each time, to prove that everything comes from the checkpoint.
        with pytest.raises(Interrupted):
            run(space, config=config, folder=parts, report=interrupt, resume=number > 0, weights=number)
        assert len(read_checkpoint(parts / "search.pt")["history"]) == stop
    resumed = run(space, config=config, folder=parts, resume=True, weights=9)
    assert resumed.policy.to_json() == whole.policy.to_json()
    assert load_policy(parts / "policy.json") == whole.policy
    assert [row["train/loss"] for row in resumed.history] == [row["train/loss"] for row in whole.history]
    states = [read_checkpoint(folder / "search.pt") for folder in (tmp_path / "whole", parts)]
    assert torch.equal(states[0]["cell"]["alpha"], states[1]["cell"]["alpha"])


@pytest.mark.parametrize("name", SPACES)
def test_a_search_ends_with_the_policy_of_its_space(run, quick, name) -> None:
    space = SPACES[name]
    result = run(space, config=quick(selection="magnitude", epochs=1))
    assert isinstance(result.policy, PlacedPolicy) == space.is_placed
    assert result.policy.found["form"] == "folded"
    if isinstance(result.policy, PlacedPolicy):
        assert result.policy.groups == space.groups
        assert len(result.policy.motions) == (2 if space.per == "place" else 1)
        network = folded_network(space, motions=None, frames=3)
        assert result.policy.at([placement.path for placement in network.placements])
    ends = [decision["at"] for decision in result.decisions]
    assert ("place blocks.0.conv1 group 2" in ends) == (name == "groups")
    assert ("edge 0->2" in ends) == (name == "graph")


def test_segmentation_and_learned_magnitudes_are_searched(run, quick) -> None:
    space = few(per="place").with_changes(magnitudes="learned", grid={})
    config = quick(epochs=1, criterion="score", magnitude_learning_rate=0.3)
    result = run(space, task="segmentation", config=config)
    assert isinstance(result.policy, PlacedPolicy)
    assert "train/mIoU" in result.history[0]


def test_the_space_says_which_places_share_a_motion() -> None:
    with torch.device("meta"):
        network = video_network("resnet18", frames=1, num_classes=5, motions=still(1))
    places = [placement.path for placement in network.placements]
    units = {per: units_of(few(per=per), places, network.stages) for per in ("network", "stage", "place")}
    assert units["network"] == [tuple(places)]
    assert units["stage"] == [tuple(p for p in places if p.startswith(f"layer{stage}.")) for stage in range(1, 5)]
    assert units["place"] == [(place,) for place in places]
    assert units_of(few(per="stage"), ["a.0", "b"], ["a"]) == [("a.0",), ("b",)]
    for per, count in (("network", 1), ("stage", 4), ("place", 8)):
        assert check_search(network, few(per=per), 3) == count
    size = load_space("affine-groups").size(len(places) * 2)
    assert size == len(load_space("affine-groups").operations) ** 16 > 10**12


def test_random_policies_of_placed_spaces_come_from_the_seed() -> None:
    space, units = load_space("affine-groups"), [("a", "b"), ("c",)]
    first, again, other = (random_policy(space, 3, seed, units=units) for seed in (1, 1, 2))
    assert isinstance(first, PlacedPolicy)
    assert first == again != other
    assert [motion.places for motion in first.motions] == units
    assert first.groups == 2
    drawn = [random_policy(few(per="place"), 3, seed, units=[("a",)]).describe()[0] for seed in range(40)]
    assert len(set(drawn)) == 3


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (few(per="place", groups=2), {"motions": still(1)}, r"groups = 2 does not divide the 3 of 24 channels"),
        (few(per="place", groups=2), {"motions": still(1), "temporal": "gsf"}, "groups = 2 is for tsm"),
        (load_space("affine-colour"), {}, "has colour changes .* the form video"),
        (few(per="place"), {"motions": None, "frames": 3}, "video has one motion for all; use the form folded"),
    ],
)
def test_spaces_that_do_not_fit_are_refused_before_any_work(
    space: Space, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_search(folded_network(space, **options), space, 3)
    assert "\n" not in str(caught.value)


def test_placed_spaces_of_several_nodes_are_refused() -> None:
    with pytest.raises(UserError, match="so every motion is one edge, but 'inputs' is 2"):
        graph(per="place")
