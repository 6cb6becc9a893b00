"""Everything that computes runs on a device that is not the CPU, gives the CPU's numbers, and seldom makes it wait."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from fieldshift.data import BasicAugmentation
from fieldshift.data.augmentation.arms import augmentation
from fieldshift.folding import motions_of
from fieldshift.motions import COLOURS, FILLS, MOTIONS, Policy
from fieldshift.networks import TEMPORAL, predict_in_chunks
from fieldshift.receptive_field import effective
from fieldshift.training import FramePlan, Recipe, evaluate_network, objective_for, train_network
from tests.devices.toys import (
    CHAIN,
    Run,
    a_network_is_trained,
    data_of,
    folded_of,
    motions_are_searched,
    motions_are_searched_in_one_frame,
    network_of,
)
from tests.other_device import IS_STAND_IN, NAME, held, waits


def images(count: int = 2, channels: int = 3, size: tuple[int, int] = (16, 20)) -> Tensor:
    return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(0))


def same(there: Tensor | None, here: Tensor | None, tolerance: float = 1e-5) -> None:
    assert here is not None
    torch.testing.assert_close(held(there), here.detach(), atol=tolerance, rtol=tolerance)


def a_policy_moves(fill: str | tuple[float, ...], interpolation: str) -> None:
    policy = Policy.chain(CHAIN, frames=4, fill=fill, interpolation=interpolation)
    masks = torch.arange(2 * 16 * 20).view(2, 16, 20) % 5
    here, moved = images().requires_grad_(), images().to(NAME).requires_grad_()
    expected, video = policy.video(here), policy.video(moved)
    same(video, expected)
    expected.square().sum().backward()
    video.square().sum().backward()
    same(moved.grad, here.grad, 1e-4)
    same(policy.video_masks(masks.to(NAME), outside=255), policy.video_masks(masks, outside=255))
    waits.clear()
    policy.video(moved)  # nothing is brought over a second time
    assert not waits, waits


@pytest.mark.parametrize(
    ("fill", "interpolation"), list(itertools.product((*FILLS, (0.1, 0.2, 0.3)), ("bilinear", "nearest")))
)
def test_a_policys_videos_gradients_and_masks(there: Run, fill: str | tuple[float, ...], interpolation: str) -> None:
    there(a_policy_moves, fill, interpolation)


def an_operation_changes(name: str) -> None:
    high = {**MOTIONS, **COLOURS}[name].preset[1]
    policy = Policy.single(name, high, frames=3)
    same(policy.video(images().to(NAME)), policy.video(images()))


@pytest.mark.parametrize("name", [*MOTIONS, *COLOURS])
def test_every_motion_and_colour_operation(there: Run, name: str) -> None:
    there(an_operation_changes, name)


def a_network_answers(task: str, temporal: str, options: dict[str, Any]) -> None:
    policy = Policy.chain(CHAIN, frames=3)
    matrices = policy.matrices((16, 20)) if task == "segmentation" else None
    here, moved = network_of(task, temporal, **options), network_of(task, temporal, **options).to(NAME)
    video = policy.video(images())
    expected = here.fuse(here(video), matrices)
    fused = moved.fuse(moved(video.to(NAME)), matrices)
    same(fused, expected)
    expected.square().sum().backward()
    fused.square().sum().backward()
    for name, parameter in here.named_parameters():
        same(dict(moved.named_parameters())[name].grad, parameter.grad, 1e-4)
    here.eval(), moved.eval()
    if task == "classification":
        video = policy.with_frames(7).video(images())
        same(predict_in_chunks(moved, video.to(NAME), 3), predict_in_chunks(here, video, 3))


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("temporal", TEMPORAL)
def test_networks_and_their_gradients(there: Run, task: str, temporal: str) -> None:
    there(a_network_answers, task, temporal, {})


@pytest.mark.parametrize("options", [{"fusion": "learned"}, {"fusion": "mean-probabilities"}, {"recompute": True}])
def test_fusions_and_recomputation(there: Run, options: dict[str, Any]) -> None:
    there(a_network_answers, "classification", "gsf", options)


def images_are_augmented(arm: str) -> None:
    pixels = (images(6, 3, (32, 32)) * 255).to(torch.uint8)
    shared = {
        "basic": BasicAugmentation(flip=0.5, crop=4, scale=1.5),
        "resized": BasicAugmentation(flip=0.5, resized_crop=0.1),
    }
    draw = shared[arm] if arm in shared else augmentation(arm)
    masks = (pixels[:, 0] // 64).long()
    expected, moved = draw(pixels, 3, masks), draw(pixels.to(NAME), 3, masks.to(NAME))
    for ours, theirs in zip(moved, expected, strict=True):
        same(ours, theirs)


@pytest.mark.parametrize(
    "arm", ["basic", "resized", "affine", "randaugment", "autoaugment", "trivialaugment", "augmix"]
)
def test_augmentations_of_images_and_masks(there: Run, arm: str) -> None:
    there(images_are_augmented, arm)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_training_and_evaluation(there: Run, task: str) -> None:
    *moved, waited = there(a_network_is_trained, task, 3, NAME)
    assert moved == pytest.approx(there(a_network_is_trained, task, 3, "cpu")[:3], abs=1e-4)
    *_, longer = there(a_network_is_trained, task, 5, NAME)
    assert waited == longer  # nothing waits once per frame


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"relaxation": "gumbel"},
        {"order": "second", "optimizer": "sgd"},
        {"order": "second-exact", "optimizer": "sgd"},
    ],
    ids=["first", "gumbel", "second", "second-exact"],
)
def test_searches(there: Run, task: str, settings: dict[str, Any]) -> None:
    moved, policy, *_ = there(motions_are_searched, "affine-edge", task, settings, NAME)
    expected, same_policy, *_ = there(motions_are_searched, "affine-edge", task, settings, "cpu")
    assert moved == pytest.approx(expected, abs=1e-4)
    assert policy == same_policy


@pytest.mark.parametrize("space", ["affine-learned", "affine-colour"])
def test_learned_magnitudes_and_colours(there: Run, space: str) -> None:
    settings = {"selection": "magnitude"}
    moved, policy, *_ = there(motions_are_searched, space, "classification", settings, NAME)
    expected, same_policy, *_ = there(motions_are_searched, space, "classification", settings, "cpu")
    # Posterised levels jump: 1e-7 in a weight, a GPU's rounding, moves losses of the second pass by 1e-3, and magnitudes too.
    jumps = space == "affine-colour" and not IS_STAND_IN
    assert moved[:2] == pytest.approx(expected[:2], abs=1e-4)
    assert moved[2:] == pytest.approx(expected[2:], abs=2e-2 if jumps else 1e-4)
    assert jumps or policy == same_policy


def a_field_is_measured() -> None:
    policy, pixels = Policy.chain(CHAIN, frames=3), images(4, 3, (24, 24))
    here, moved = network_of("classification", "tsm"), network_of("classification", "tsm").to(NAME)
    expected, found = (effective(each, pixels, trained=False, policy=policy) for each in (here, moved))
    torch.testing.assert_close(found.values, expected.values, atol=1e-6, rtol=1e-4)


def test_effective_fields(there: Run) -> None:
    there(a_field_is_measured)


def cpu_and_device_meet() -> None:
    with pytest.raises(RuntimeError, match="meets a tensor of shape"):
        torch.ones(3).to(NAME) + torch.ones(3)
    assert waits.total() == 1
    float(torch.ones(3).to(NAME).sum())
    assert waits.total() == 3


@pytest.mark.skipif(not IS_STAND_IN, reason="of the stand-in alone")
def test_the_stand_in_notices_what_a_gpu_would(there: Run) -> None:
    there(cpu_and_device_meet)


def a_folded_network_answers(task: str, temporal: str, fill: str) -> None:
    motions = motions_of(Policy.chain(CHAIN, frames=3, fill=fill))
    here, moved = folded_of(task, temporal, motions), folded_of(task, temporal, motions).to(NAME)
    image = images()[:, None]
    for _ in range(2):
        waits.clear()
        expected, answered = here.fuse(here(image)), moved.fuse(moved(image.to(NAME, non_blocking=True)))
    assert not waits, waits  # the motions are brought over once
    same(answered, expected)
    expected.square().sum().backward()
    answered.square().sum().backward()
    for name, parameter in here.named_parameters():
        same(dict(moved.named_parameters())[name].grad, parameter.grad, 1e-4)


@pytest.mark.parametrize(
    ("task", "temporal", "fill"),
    [("classification", "tsm", "zeros"), ("segmentation", "gsm", "mean"), ("classification", "gsf", "border")],
)
def test_folded_networks_and_their_gradients(there: Run, task: str, temporal: str, fill: str) -> None:
    there(a_folded_network_answers, task, temporal, fill)


def a_folded_network_is_trained(epochs: int, batch: int, device: str) -> list[float]:
    data, objective = data_of("classification"), objective_for("classification", 2)
    plan = FramePlan(policy=None, mean=data.mean, std=data.std)
    network = folded_of("classification", "tsm", motions_of(Policy.chain(CHAIN, frames=3, fill="mean")), 1)
    counts: list[int] = []

    def report(row: dict[str, float], step: int) -> None:
        counts.append(waits.total())

    trained = train_network(
        network,
        data.train,
        plan=plan,
        recipe=Recipe(epochs=epochs, batch=batch, channels_last=False),
        objective=objective,
        seed=0,
        device=device,
        report=report,
    )
    scored = evaluate_network(network, data.test, plan=plan, objective=objective, batch=8, device=device)
    plain = network_of("classification", "none", 1, 1)
    train_network(
        plain, data.train, plan=plan, recipe=Recipe(epochs=2, batch=batch, channels_last=False), objective=objective,
        seed=0, device=device, report=report,
    )  # fmt: skip
    of_a_pass = [after - before for before, after in itertools.pairwise(counts)]
    return [trained.history[-1]["train/loss"], scored.score, scored.loss, of_a_pass[0] - of_a_pass[-1]]


def test_folded_training_and_evaluation_wait_as_the_plain_networks(there: Run) -> None:
    moved = there(a_folded_network_is_trained, 2, 4, NAME)
    assert moved[:3] == pytest.approx(there(a_folded_network_is_trained, 2, 4, "cpu")[:3], abs=1e-4)
    assert moved[3] == 0


@pytest.mark.parametrize(
    "settings", [{}, {"relaxation": "gumbel", "order": "second-exact", "optimizer": "sgd", "selection": "magnitude"}]
)
def test_folded_searches(there: Run, settings: dict[str, Any]) -> None:
    moved, policy, _ = there(motions_are_searched_in_one_frame, settings, NAME)
    expected, same_policy, _ = there(motions_are_searched_in_one_frame, settings, "cpu")
    assert moved == pytest.approx(expected, abs=1e-4)
    assert policy == same_policy
