"""Statistics of BatchNorm over two gloo processes against torch's BatchNorm over the whole batch in one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.training import Recipe, objective_for, train_network
from fieldshift.training.batch_statistics import SynchronisedBatchNorm, synchronise_batch_norm
from tests.training.toys import CLASSES, MOVED, plan_of, toy_network, toy_split
from tests.two_processes import InTwo

PARTS = {"even": (4, 8), "uneven": (3, 8), "one of them without any": (8, 8)}
ALONE = Recipe(epochs=1, batch=16, optimizer="sgd", learning_rate=0.05)
RECIPE = replace(ALONE, sync_batch_norm=True)


def a_norm(momentum: float | None = 0.1) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(5, momentum=momentum)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(5, generator=generator) + 0.5)
        norm.bias.copy_(torch.rand(5, generator=generator))
    return norm


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = 3 * torch.rand(8, 5, 4, 6, generator=generator) + 40  # far from 0: E[x^2] - E[x]^2 would lose digits
    return images, torch.rand(8, 5, 4, 6, generator=generator)


def measured(norm: nn.Module, images: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """Output, gradients of first and second order of a sum over images, and running statistics, of two steps."""
    images = images.clone().requires_grad_()
    norm(images * 0.5)
    output = norm(images)
    slopes = torch.autograd.grad((output * wanted).pow(2).sum(), [images, *norm.parameters()], create_graph=True)
    second = torch.autograd.grad(sum(each.pow(2).sum() for each in slopes[:1]), [images])
    state = {name: value.double() for name, value in norm.state_dict().items()}
    return {
        "output": output,
        "images": slopes[0],
        "to_weight": slopes[1],
        "to_bias": slopes[2],
        "second": second[0],
        **state,
    }


def two_workers(folder: Path) -> None:
    images, wanted = batch()
    found: dict[str, object] = {}
    for name, (first, last) in PARTS.items():
        own = slice(0, first) if dist.get_rank() == 0 else slice(first, last)
        for momentum in (0.1, None):
            norm = nn.Sequential(a_norm(momentum))
            synchronise_batch_norm(norm)
            found[f"{name} {momentum}"] = measured(norm[0], images[own], wanted[own])
    for name, recipe in (("trained", RECIPE), ("each for itself", ALONE)):
        network = toy_network(3)
        train_network(
            network,
            toy_split(),
            plan=plan_of(MOVED),
            recipe=recipe,
            objective=objective_for("classification", CLASSES),
            seed=0,
        )
        found[name] = network.state_dict()
    torch.save(found, folder / f"{dist.get_rank()}.pt")


@pytest.fixture(scope="module")
def workers(in_two: InTwo, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("two")
    in_two(two_workers, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("parts", PARTS)
def test_two_workers_are_one_batch_norm(
    workers: list[dict[str, dict[str, Tensor]]], parts: str, momentum: float | None
) -> None:
    images, wanted = batch()
    expected = measured(a_norm(momentum), images, wanted)
    both = [worker[f"{parts} {momentum}"] for worker in workers]
    for name, value in expected.items():
        if name in ("output", "images", "second"):
            found = torch.cat([each[name] for each in both])
        elif name in ("to_weight", "to_bias"):
            found = both[0][name] + both[1][name]
        else:
            assert torch.equal(both[0][name], both[1][name]), name
            found = both[0][name]
        torch.testing.assert_close(found, value, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_two_workers_train_like_one_process_under_batch_norm(workers: list[dict[str, dict[str, Tensor]]]) -> None:
    network, plain = toy_network(3), toy_network(3)
    train_network(
        network, toy_split(), plan=plan_of(MOVED), recipe=ALONE,
        objective=objective_for("classification", CLASSES), seed=0,
    )  # fmt: skip
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    for name, value in network.state_dict().items():
        first, second = (worker["trained"][name] for worker in workers)
        assert torch.equal(first, second), name
        torch.testing.assert_close(first, value, atol=1e-5, rtol=1e-4)
    assert not torch.equal(network.state_dict()["network.fc.weight"], plain.state_dict()["network.fc.weight"])


def test_alone_it_is_torchs_batch_norm() -> None:
    images, wanted = batch()
    norm = nn.Sequential(a_norm())
    synchronise_batch_norm(norm)
    assert type(norm[0]) is SynchronisedBatchNorm
    for name, value in measured(norm[0], images, wanted).items():
        assert torch.equal(value, measured(a_norm(), images, wanted)[name]), name


class Activated(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 1, 1)), "has no BatchNorm; leave it out"),
        (nn.Sequential(Activated(3)), r"statistics of 0 \(Activated\)"),
    ],
)
def test_what_cannot_be_synchronised_is_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(UserError, match=message):
        synchronise_batch_norm(network)


def test_there_have_to_be_two_workers() -> None:
    RECIPE.check(2, here=True)
    with pytest.raises(UserError, match=r"--recipe\.sync_batch_norm shares the statistics"):
        RECIPE.check(1, here=True)
    with pytest.raises(UserError, match=r"--recipe\.compile and --recipe\.sync_batch_norm"):
        Recipe(compile=True, sync_batch_norm=True).check(2, here=True)


def test_workers_with_batch_statistics_of_their_own_score_with_the_saved_ones(
    workers: list[dict[str, dict[str, Tensor]]],
) -> None:
    first, second = (each["each for itself"] for each in workers)
    assert any(name.endswith("running_mean") for name in first)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
