"""Everything that computes runs on a device that is not the CPU, gives the CPU's numbers, and seldom makes it wait."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from fieldshift.data import BasicAugmentation, DataSet, TensorSplit
from fieldshift.data.augmentation.arms import augmentation
from fieldshift.folding import motions_of, still
from fieldshift.motions import COLOURS, FILLS, MOTIONS, Policy
from fieldshift.networks import TEMPORAL, VideoNetwork, predict_in_chunks, video_network
from fieldshift.receptive_field import effective
from fieldshift.search import RULES, Alternatives, SearchConfig, SelectionRule, load_space, search
from fieldshift.training import FramePlan, Recipe, evaluate_network, objective_for, train_network
from tests.other_device import NAME, held, other_device, waits

CHAIN = [("rotate", 20.0), ("zoom", 1.3)]
AUGMENTED = {"flip": 0.5, "crop": 1, "scale": 1.2}
WAITS_PER_PASS = 6  # 2 for the order of the samples, 4 at the end: losses, score, whether weights are finite, alpha
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def there() -> Iterator[Run]:
    with other_device() as run:
        yield run


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


def network_of(task: str, temporal: str, frames: int = 3, channels: int = 3, **options: Any) -> VideoNetwork:
    torch.manual_seed(0)
    name = "tiny-resnet" if task == "classification" else "tiny-resnet-fcn"
    return video_network(
        name, task=task, temporal=temporal, frames=frames, num_classes=2, in_channels=channels, **options
    )


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
    draw = BasicAugmentation(flip=0.5, crop=4, scale=1.5) if arm == "basic" else augmentation(arm)
    masks = (pixels[:, 0] // 64).long()
    expected, moved = draw(pixels, 3, masks), draw(pixels.to(NAME), 3, masks.to(NAME))
    for ours, theirs in zip(moved, expected, strict=True):
        same(ours, theirs)


@pytest.mark.parametrize("arm", ["basic", "affine", "randaugment", "autoaugment", "trivialaugment", "augmix"])
def test_augmentations_of_images_and_masks(there: Run, arm: str) -> None:
    there(images_are_augmented, arm)


def data_of(task: str) -> DataSet:
    """Noise with a bright column; the class says on which side of the picture it is."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(16) % 2
    pixels = torch.randint(0, 60, (16, 1, 12, 12), generator=generator, dtype=torch.uint8)
    pixels[torch.arange(16), 0, :, torch.randint(1, 5, (16,), generator=generator) + 6 * classes] = 255
    dense = task == "segmentation"
    split = TensorSplit(pixels, classes, (pixels[:, 0] == 255).to(torch.uint8) if dense else None)
    return DataSet(
        name="toy", task=task, classes=("left", "right"), train=split, test=split, mean=(0.2,), std=(0.3,),
        size=(12, 12), protocol="toy", digest="toy",
    )  # type: ignore[arg-type]  # fmt: skip


def a_network_is_trained(task: str, frames: int, device: str, **settings: Any) -> list[float]:
    data, objective = data_of(task), objective_for(task, 2, 255 if task == "segmentation" else None)
    recipe = Recipe(epochs=2, channels_last=False, **{"batch": 4, **settings})
    plan = FramePlan(
        policy=Policy.chain(CHAIN, frames=frames, fill="mean"), mean=data.mean, std=data.std,
        basic=BasicAugmentation(flip=recipe.flip, crop=recipe.crop, scale=recipe.scale),
    )  # fmt: skip
    network = network_of(task, "gsf", frames, 1)
    counts: list[int] = []

    def report(row: dict[str, float], step: int) -> None:
        counts.append(waits.total())

    trained = train_network(
        network, data.train, plan=plan, recipe=recipe, objective=objective, seed=0, device=device, report=report
    )
    scored = evaluate_network(network, data.test, plan=plan, objective=objective, batch=8, device=device)
    return [trained.history[-1]["train/loss"], scored.score, scored.loss, counts[1] - counts[0]]


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_training_and_evaluation(there: Run, task: str) -> None:
    *moved, waited = there(a_network_is_trained, task, 3, NAME)
    assert moved == pytest.approx(there(a_network_is_trained, task, 3, "cpu")[:3], abs=1e-4)
    *_, longer = there(a_network_is_trained, task, 5, NAME)
    assert waited == longer  # nothing waits once per frame


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("settings", [{}, {"clip_norm": 1.0, "optimizer": "sgd"}, AUGMENTED], ids=str)
def test_no_step_of_a_training_waits(there: Run, task: str, settings: dict[str, Any]) -> None:
    few, many = (there(partial(a_network_is_trained, **settings, batch=batch), task, 3, NAME)[-1] for batch in (8, 2))
    assert few == many > 0  # of 2 and of 8 steps: the numbers are read at the end of the epoch


def motions_are_searched(
    space: str, task: str, settings: dict[str, Any], device: str
) -> tuple[list[float], str, dict[str, int], list[dict[str, int]]]:
    data, objective = data_of(task), objective_for(task, 2, 255 if task == "segmentation" else None)
    config = SearchConfig(epochs=2, channels_last=False, **{"batch": 8, "frames": 3, **settings})
    network = network_of(task, "tsm", config.frames, 1)
    normalise = FramePlan(policy=None, mean=data.mean, std=data.std).normalise
    of_a_pass, of_tuning = [], []

    def report(row: dict[str, float], step: int) -> None:
        if "train/loss" in row:
            (of_a_pass if step <= config.epochs else of_tuning).append(dict(waits))
        waits.clear()

    found = search(
        network, data, load_space(space), config, objective=objective, normalise=normalise, device=device, report=report
    )
    losses = [value for row in found.history for name, value in row.items() if name.endswith("loss")]
    return losses, str(found.policy.edges), of_a_pass[1], of_tuning


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
    assert moved == pytest.approx(expected, abs=1e-4)
    assert policy == same_policy


SETTINGS: dict[str, dict[str, Any]] = {
    "first order": {},
    "gumbel": {"relaxation": "gumbel"},
    "second order": {"order": "second", "optimizer": "sgd"},
    "exact second order": {"order": "second-exact", "optimizer": "sgd"},
    "clipped": {"clip_norm": 1.0},
    "augmented": AUGMENTED,
}


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_no_step_of_a_search_waits(there: Run, task: str, settings: dict[str, Any]) -> None:
    few, many = (
        there(motions_are_searched, "affine-cell", task, {**settings, "selection": "magnitude", **size}, NAME)[2]
        for size in ({"batch": 8}, {"batch": 2, "frames": 5})
    )
    assert few == many  # of 1 and of 4 steps, in 3 and in 5 frames
    assert sum(few.values()) <= WAITS_PER_PASS


@pytest.mark.parametrize("space", ["affine-learned", "affine-colour"])
def test_no_step_waits_for_learned_magnitudes_or_colours(there: Run, space: str) -> None:
    few, many = (
        there(motions_are_searched, space, "classification", {"selection": "magnitude", "batch": batch}, NAME)[2]
        for batch in (8, 2)
    )
    assert few == many
    assert sum(few.values()) <= WAITS_PER_PASS


class InOrder(SelectionRule):
    """Makes the same decisions whatever was learned, so that two searches tune the same cells."""

    measures = True

    def removal_costs(self, alternatives: Alternatives) -> list[float]:
        return [float(-number) for number, _ in enumerate(alternatives.measure()[1:])]


def motions_are_chosen_in_order(batch: int) -> list[dict[str, int]]:
    RULES.setdefault("in order", InOrder())
    settings = {"batch": batch, "selection": "in order"}
    return motions_are_searched("affine-cell", "classification", settings, NAME)[3]


def test_no_step_of_the_tuning_between_decisions_waits(there: Run) -> None:
    _, few, many = (there(motions_are_chosen_in_order, batch) for batch in (8, 8, 2))  # the first copies the constants
    assert few == many
    assert len(few) > 10


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


def test_the_stand_in_notices_what_a_gpu_would(there: Run) -> None:
    there(cpu_and_device_meet)


def folded_of(task: str, temporal: str, motions: Any, channels: int = 3) -> VideoNetwork:
    return network_of(task, temporal, 1, channels, motions=motions)


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


def motions_are_searched_in_one_frame(
    settings: dict[str, Any], device: str, learned: bool = False
) -> tuple[list[float], str, dict[str, int]]:
    data, objective = data_of("classification"), objective_for("classification", 2)
    config = SearchConfig(epochs=2, frames=3, channels_last=False, **{"batch": 8, **settings})
    space = load_space("affine-place")
    if learned:
        space = space.with_changes(magnitudes="learned", grid={})
    normalise = FramePlan(policy=None, mean=data.mean, std=data.std).normalise
    of_a_pass: list[dict[str, int]] = []

    def report(row: dict[str, float], step: int) -> None:
        of_a_pass.append(dict(waits))
        waits.clear()

    network = folded_of("classification", "tsm", still(1), 1)
    found = search(network, data, space, config, objective=objective, normalise=normalise, device=device, report=report)
    losses = [value for row in found.history for name, value in row.items() if name.endswith("loss")]
    return losses, "\n".join(found.policy.describe()), of_a_pass[1]


@pytest.mark.parametrize(
    "settings", [{}, {"relaxation": "gumbel", "order": "second-exact", "optimizer": "sgd", "selection": "magnitude"}]
)
def test_folded_searches(there: Run, settings: dict[str, Any]) -> None:
    moved, policy, _ = there(motions_are_searched_in_one_frame, settings, NAME)
    expected, same_policy, _ = there(motions_are_searched_in_one_frame, settings, "cpu")
    assert moved == pytest.approx(expected, abs=1e-4)
    assert policy == same_policy


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("learned", [False, True], ids=["frozen", "learned"])
def test_no_step_of_a_folded_search_waits(there: Run, settings: dict[str, Any], learned: bool) -> None:
    few, many = (
        there(motions_are_searched_in_one_frame, {**settings, "selection": "magnitude", "batch": batch}, NAME, learned)[
            2
        ]
        for batch in (8, 2)
    )
    assert few == many
    assert sum(few.values()) <= WAITS_PER_PASS
