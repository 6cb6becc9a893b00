"""Selection against brute force: every number measured again, one at a time, in plain words."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor

from fieldshift.motions.policy_file import may_be_chance
from fieldshift.search import RelaxedCell
from fieldshift.search.selection import Selector, is_open, next_edge, next_node
from fieldshift.search.supernet import Supernet, batch_statistics

CRITERIA = ["loss", "score"]


@pytest.fixture
def selector_of(toy_data, toy_network, toy_space, objective, normalise):
    def build(config, space=toy_space) -> Selector:
        cell = RelaxedCell(space, 3, seed=1)
        with torch.no_grad():
            cell.alpha.copy_(torch.randn(cell.alpha.shape, generator=torch.Generator().manual_seed(2)))
        supernet = Supernet(toy_network(), cell, normalise).train()
        supernet(toy_data().train.images[:8])  # running statistics that are not the first ones
        split = toy_data().train

        def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            for indices in torch.arange(len(split)).split(12):
                yield (*split.gather(indices), indices)

        return Selector(supernet=supernet, batches=batches, objective=objective, config=config, seed=0)

    return build


def state_of(selector: Selector) -> dict[str, Any]:
    network = selector.supernet.network
    return {
        "tensors": {name: tensor.clone() for name, tensor in network.state_dict().items()},
        "modes": [module.training for module in network.modules()],
        "alpha": selector.supernet.cell.alpha.detach().clone(),
        "random": torch.get_rng_state(),
    }


def assert_same_state(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before["modes"] == after["modes"]
    assert torch.equal(before["alpha"], after["alpha"])
    assert torch.equal(before["random"], after["random"])
    for name, tensor in before["tensors"].items():
        assert torch.equal(tensor, after["tensors"][name]), name


def each_measured(selector: Selector, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Every image's loss and whether it was right, with the batch's statistics, on a copy of the network."""
    network, cell = copy.deepcopy(selector.supernet.network).train(), selector.supernet.cell
    losses, right = [], []
    with torch.no_grad():
        for images, targets, _ in selector.batches():
            video = selector.supernet.normalise(cell.video(images.float() / 255, weights))
            logits = network(video).mean(1)
            losses.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
            right.append(logits.argmax(-1) == targets)
    return torch.cat(losses).double(), torch.cat(right).double()


def plainly_measured(selector: Selector, weights: Tensor | None) -> tuple[float, float]:
    losses, right = each_measured(selector, weights)
    return float(losses.mean()), float(right.mean())


@pytest.mark.parametrize("criterion", CRITERIA)
def test_options_are_judged_by_what_their_removal_costs_without_renormalising(selector_of, quick, criterion) -> None:
    selector = selector_of(quick(criterion=criterion))
    cell = selector.supernet.cell
    for edge in range(len(cell.edges)):
        weights = cell.weights().detach()
        whole = plainly_measured(selector, weights)
        costs = {}
        for o, option in enumerate(cell.operations):
            without = weights.clone()
            without[edge, o] = 0.0
            loss, score = plainly_measured(selector, without)
            costs[option.label] = loss - whole[0] if criterion == "loss" else whole[1] - score
        before = state_of(selector)
        decision = selector.choose_operation(edge)
        assert_same_state(before, state_of(selector))
        assert decision.harm == pytest.approx(costs, abs=1e-5)
        assert decision.harm[decision.chosen[0]] == max(decision.harm.values())
        ranked = sorted(decision.harm.values())
        assert decision.margin == pytest.approx(ranked[-1] - ranked[-2])
        if criterion == "loss":
            without = []
            for label in sorted(decision.harm, key=lambda label: -decision.harm[label])[:2]:
                changed = weights.clone()
                changed[edge, [option.label for option in cell.operations].index(label)] = 0.0
                without.append(each_measured(selector, changed)[0].numpy())
            assert decision.margin_error == pytest.approx(scipy.stats.sem(without[0] - without[1]), rel=1e-3)
        else:
            assert decision.margin_error is None
        assert decision.whole == pytest.approx({"loss": whole[0], "score": whole[1]}, abs=1e-5)
        assert cell.operations[cell.decided[edge]].label == decision.chosen[0]


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("kept", [1, 2])
def test_edges_are_judged_by_the_mean_of_the_others(selector_of, quick, toy_space, criterion, kept) -> None:
    selector = selector_of(quick(criterion=criterion), toy_space.with_changes(inputs=2))
    cell = selector.supernet.cell
    cell.decided = [1, 2, 1, 0, 1]
    whole = plainly_measured(selector, None)
    costs = {}
    for e, name in ((2, "0->3 translate_x"), (3, "1->3 identity"), (4, "2->3 translate_x")):
        cell.kept[e] = False
        loss, score = plainly_measured(selector, None)
        cell.kept[e] = True
        costs[name] = loss - whole[0] if criterion == "loss" else whole[1] - score
    before = state_of(selector)
    node = next_node(cell, kept)
    assert node == 3
    decision = selector.choose_edges(node, kept)
    assert_same_state(before, state_of(selector))
    assert decision.harm == pytest.approx(costs, abs=1e-5)
    assert len(decision.chosen) == kept
    assert min(decision.harm[name] for name in decision.chosen) >= max(
        harm for name, harm in decision.harm.items() if name not in decision.chosen
    )
    assert sum(cell.kept[2:]) == kept


@pytest.mark.parametrize("criterion", CRITERIA)
def test_between_equal_motions_the_larger_weight_decides(selector_of, quick, toy_space, criterion) -> None:
    motions = (("shear_x",), ("translate_x",), ("rotate",))
    selector = selector_of(quick(criterion=criterion), toy_space.with_changes(candidates=motions))
    cell = selector.supernet.cell
    torch.nn.init.zeros_(selector.supernet.network.network.fc.weight)  # one answer for every video: nothing hurts
    largest = cell.alpha.argmax(-1).tolist()
    assert set(largest) != {0}
    for edge in range(len(cell.edges)):
        decision = selector.choose_operation(edge)
        assert set(decision.harm.values()) == {0.0}
        assert decision.margin == 0
    assert cell.decided == largest
    node = next_node(cell, 1)
    incoming = [e for e, (_, target) in enumerate(cell.edges) if target == node]
    with torch.no_grad():
        cell.alpha[incoming[-1], largest[incoming[-1]]] += 5  # not the first
    selector.choose_edges(node, 1)
    assert [e for e in incoming if cell.kept[e]] == incoming[-1:]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_where_nothing_differs_the_identity_is_kept_and_called_chance(selector_of, quick, criterion) -> None:
    selector = selector_of(quick(criterion=criterion))
    cell = selector.supernet.cell
    torch.nn.init.zeros_(selector.supernet.network.network.fc.weight)
    assert set(cell.alpha.argmax(-1).tolist()) != {0}  # not the largest weight everywhere
    for edge in range(len(cell.edges)):
        decision = selector.choose_operation(edge)
        assert decision.chosen == ["identity"]
        assert (decision.margin, decision.margin_error) == (0, 0 if criterion == "loss" else None)
        assert may_be_chance(asdict(decision)) == (criterion == "loss")


def test_between_equal_scores_the_loss_decides(selector_of, quick) -> None:
    """The score of few images is a coarse number: several options cost the same share of them."""
    selector, ties = selector_of(quick(criterion="score")), 0
    cell = selector.supernet.cell
    for edge in range(len(cell.edges)):
        weights = cell.weights().detach()
        measured = {}
        for o, option in enumerate(cell.operations):
            without = weights.clone()
            without[edge, o] = 0.0
            loss, score = plainly_measured(selector, without)
            measured[option.label] = (-round(score, 9), loss)
        decision = selector.choose_operation(edge)
        assert decision.chosen == [max(measured, key=lambda label: measured[label])]
        ties += len({cost for cost, _ in measured.values()}) < len(measured)
    assert ties > 0


def test_every_edge_comes_once_in_an_order_of_the_seed(selector_of, quick) -> None:
    orders = []
    for seed in (0, 0, 1, 2, 3):
        cell = selector_of(quick()).supernet.cell
        order = []
        while (edge := next_edge(cell, seed)) is not None:
            order.append(edge)
            cell.decided[edge] = 0
        assert sorted(order) == list(range(len(cell.edges)))
        orders.append(tuple(order))
    assert orders[0] == orders[1]
    assert len(set(orders)) > 1


def test_nodes_that_lead_nowhere_are_left_alone(toy_space) -> None:
    cell = RelaxedCell(toy_space.with_changes(inputs=2), 3, seed=0)
    cell.decided = [0] * 5
    assert is_open(cell, 1)
    cell.kept[3] = cell.kept[4] = False  # node 3 reads node 0 only, so node 2 leads nowhere
    assert next_node(cell, 1) is None
    assert not is_open(cell, 1)
    assert cell.to_policy({}).nodes == 1


def test_magnitude_takes_the_largest_weight_and_random_depends_on_the_seed(selector_of, quick) -> None:
    selector = selector_of(quick(selection="magnitude"))
    cell = selector.supernet.cell
    largest = cell.alpha.argmax(-1).tolist()
    for edge in range(len(cell.edges)):
        selector.choose_operation(edge)
    assert cell.decided == largest
    strengths = cell.alpha.detach().softmax(-1).amax(-1)
    node = next_node(cell, 1)
    incoming = [e for e, (_, target) in enumerate(cell.edges) if target == node]
    selector.choose_edges(node, 1)
    assert [e for e in incoming if cell.kept[e]] == [max(incoming, key=lambda e: float(strengths[e]))]

    def drawn(seed: int) -> tuple[str, ...]:
        other = selector_of(quick(selection="random"))
        other = Selector(**{**vars(other), "seed": seed})
        return tuple(other.choose_operation(edge).chosen[0] for edge in range(3))

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(8)}) > 2


def test_state_is_put_back_also_when_measuring_fails(selector_of, quick) -> None:
    selector = selector_of(quick())
    before = state_of(selector)
    network = selector.supernet.network

    def measure_and_fail() -> None:
        with batch_statistics(network):
            network(selector.supernet.video(next(selector.batches())[0]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure_and_fail()
    assert_same_state(before, state_of(selector))
