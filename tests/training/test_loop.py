from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from fieldshift.data import TensorSplit
from fieldshift.data.augmentation.arms import augmentation
from fieldshift.errors import UserError
from fieldshift.motions import Policy
from fieldshift.networks import VideoNetwork, video_network
from fieldshift.training import (
    FramePlan,
    Recipe,
    evaluate_network,
    network_cost,
    objective_for,
    scored_at_once,
    train_network,
)
from fieldshift.training.cost import device_hours, equal_compute_epochs
from fieldshift.training.optimisation import build_optimizer
from fieldshift.training.recipe import check_batch
from tests.training.toys import CLASSES, MOVED, plan_of, toy_network, toy_split
from tests.two_processes import InTwo


def trained(recipe: Recipe, plan: FramePlan, **options: object) -> tuple[VideoNetwork, list[dict[str, float]]]:
    network = toy_network(plan.frames, "tsm" if plan.frames > 1 else "none")
    done = train_network(
        network,
        toy_split(),
        plan=plan,
        recipe=recipe,
        objective=objective_for("classification", CLASSES),
        seed=3,
        **options,
    )  # type: ignore[arg-type]
    return network, done.history


@pytest.mark.parametrize(
    "plan",
    [plan_of(), plan_of(MOVED), plan_of(Policy.single("translate_y", 0.3, frames=3), as_images=True)],
    ids=["image", "video", "as-images"],
)
def test_training_learns_and_scores(plan: FramePlan) -> None:
    network, history = trained(Recipe(epochs=6, batch=16, learning_rate=1e-2), plan)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["train/loss"] < history[0]["train/loss"]
    found = evaluate_network(
        network, toy_split(), plan=plan, objective=objective_for("classification", CLASSES), batch=7, copies=2
    )
    assert found.score > 0.8
    assert (found.score_tta is not None) == plan.as_images  # the others have no other views


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
def test_two_and_two_epochs_equal_four(tmp_path: Path, schedule: str) -> None:
    recipe = Recipe(epochs=4, batch=16, schedule=schedule)  # type: ignore[arg-type]
    plan = plan_of(MOVED, augmentation=augmentation("affine"))
    whole, history = trained(recipe, plan)
    checkpoint = tmp_path / "checkpoint.pt"

    class StopError(Exception):
        pass

    def stop(_row: dict[str, float], epoch: int) -> None:
        if epoch == 2:
            raise StopError

    with pytest.raises(StopError):
        trained(recipe, plan, checkpoint=checkpoint, report=stop)
    resumed, rest = trained(recipe, plan, checkpoint=checkpoint, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    losses = [row["train/loss"] for row in history]
    assert [row["train/loss"] for row in rest] == losses


def test_two_and_two_epochs_equal_four_where_layers_are_random(tmp_path: Path) -> None:
    def run(**options: object) -> dict[str, torch.Tensor]:
        network = toy_network(1, "none")
        network.network.fc = torch.nn.Sequential(torch.nn.Dropout(0.5), network.network.fc)
        train_network(
            network, toy_split(), plan=plan_of(), recipe=Recipe(epochs=4, batch=16), seed=3,
            objective=objective_for("classification", CLASSES), **options,
        )  # type: ignore[arg-type]  # fmt: skip
        return network.state_dict()

    def stop(_row: dict[str, float], epoch: int) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    whole = run()
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=checkpoint, report=stop)
    resumed = run(checkpoint=checkpoint, resume=True)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_a_checkpoint_of_another_network_is_refused_in_a_line(tmp_path: Path) -> None:
    checkpoint, recipe = tmp_path / "checkpoint.pt", Recipe(epochs=1, batch=16)
    trained(recipe, plan_of(MOVED), checkpoint=checkpoint)
    with pytest.raises(UserError, match=r"checkpoint\.pt belongs to another network; delete it"):
        trained(recipe, plan_of(), checkpoint=checkpoint, resume=True)


def test_a_checkpoint_of_another_run_is_refused_in_a_line(tmp_path: Path) -> None:
    """Of the same network, so that its tensors would fit."""
    checkpoint, recipe = tmp_path / "checkpoint.pt", Recipe(epochs=1, batch=16)
    trained(recipe, plan_of(), checkpoint=checkpoint, fingerprint="one")
    with pytest.raises(UserError, match=r"checkpoint\.pt belongs to another run; restore its own, or delete it"):
        trained(recipe, plan_of(), checkpoint=checkpoint, fingerprint="another", resume=True)
    _, history = trained(recipe, plan_of(), checkpoint=checkpoint, fingerprint="one", resume=True)
    assert len(history) == 1


def test_the_same_seed_gives_the_same_numbers_to_the_last_digit() -> None:
    plan = plan_of(augmentation=augmentation("randaugment"))
    first, second = (trained(Recipe(epochs=2, batch=16), plan) for _ in range(2))
    assert [row["train/loss"] for row in first[1]] == [row["train/loss"] for row in second[1]]
    for name, value in first[0].state_dict().items():
        assert torch.equal(value, second[0].state_dict()[name])


def test_evaluation_leaves_the_network_as_it_was() -> None:
    network = toy_network(3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    evaluate_network(network, toy_split(), plan=plan_of(MOVED), objective=objective_for("classification", CLASSES))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_loss_that_is_not_finite_stops_with_step_and_images(tmp_path: Path) -> None:
    network = toy_network(1, "none")
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match=r"nan at epoch 1, step 1 \(images \["):
        train_network(
            network, toy_split(), plan=plan_of(), recipe=Recipe(epochs=1, batch=16),
            objective=objective_for("classification", CLASSES), seed=0, checkpoint=tmp_path / "c.pt",
        )  # fmt: skip
    assert not (tmp_path / "c.pt").exists()


def test_segmentation_trains_with_alignment() -> None:
    torch.manual_seed(0)
    network = video_network(
        "tiny-resnet-fcn", temporal="tsm", frames=3, num_classes=CLASSES, in_channels=1, task="segmentation"
    )
    objective = objective_for("segmentation", CLASSES, 255)
    plan = plan_of(MOVED)
    done = train_network(
        network, toy_split(masks=True), plan=plan, recipe=Recipe(epochs=3, batch=16), objective=objective, seed=0
    )
    assert done.history[-1]["train/loss"] < done.history[0]["train/loss"]
    aligned = evaluate_network(network, toy_split(masks=True), plan=plan, objective=objective)
    unaligned = evaluate_network(network, toy_split(masks=True), plan=plan, objective=objective, align=False)
    single = evaluate_network(network, toy_split(masks=True), plan=plan, objective=objective, batch=1)
    assert (single.score, single.loss) == (pytest.approx(aligned.score), pytest.approx(aligned.loss))
    assert 0 <= aligned.score <= 1
    assert aligned.loss != unaligned.loss


def two_workers(folder: Path) -> None:
    network = toy_network(3)
    # Batch statistics of halves differ from those of the whole batch: the comparison holds without them.
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum, module.track_running_stats = 0.0, True
            module.forward = lambda x, m=module: x * m.weight[:, None, None] + m.bias[:, None, None]  # type: ignore[method-assign]
    train_network(
        network, toy_split(), plan=plan_of(MOVED), recipe=Recipe(epochs=2, batch=16),
        objective=objective_for("classification", CLASSES), seed=0,
    )  # fmt: skip
    found = evaluate_network(
        network, toy_split(47), plan=plan_of(MOVED), objective=objective_for("classification", CLASSES), batch=10
    )
    state = {name: value for name, value in network.state_dict().items() if value.dtype.is_floating_point}
    torch.save(
        {**state, "score": torch.tensor(found.score), "loss": torch.tensor(found.loss)},
        folder / f"{dist.get_rank()}.pt",
    )


def test_two_gloo_workers_train_and_score_like_one_process(in_two: InTwo, tmp_path: Path) -> None:
    in_two(two_workers, tmp_path)
    first, second = torch.load(tmp_path / "0.pt"), torch.load(tmp_path / "1.pt")
    network = toy_network(3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
            module.forward = lambda x, m=module: x * m.weight[:, None, None] + m.bias[:, None, None]  # type: ignore[method-assign]
    train_network(
        network, toy_split(), plan=plan_of(MOVED), recipe=Recipe(epochs=2, batch=16),
        objective=objective_for("classification", CLASSES), seed=0,
    )  # fmt: skip
    found = evaluate_network(
        network, toy_split(47), plan=plan_of(MOVED), objective=objective_for("classification", CLASSES), batch=10
    )
    for name, value in network.state_dict().items():
        if value.dtype.is_floating_point:
            assert torch.equal(first[name], second[name]), name
            assert torch.allclose(first[name], value, atol=1e-5), name
    assert first["score"].item() == second["score"].item() == pytest.approx(found.score)
    assert first["loss"].item() == pytest.approx(found.loss, abs=1e-5)


def test_cost_counts_what_the_layers_are() -> None:
    network = toy_network(3)
    cost = network_cost(network, 3, 1, (20, 20))
    assert cost.parameters == sum(parameter.numel() for parameter in network.parameters())
    single = network_cost(toy_network(1, "none"), 1, 1, (20, 20))
    assert cost.flops == pytest.approx(3 * single.flops)
    assert equal_compute_epochs(12, single.flops, cost.flops) == 36
    assert device_hours(1800, 2) == 1.0


def test_weight_decay_spares_biases_and_scales() -> None:
    network = toy_network(1, "none")
    decayed, spared = build_optimizer(network, Recipe(weight_decay=0.1)).param_groups
    assert all(parameter.dim() > 1 for parameter in decayed["params"])
    assert all(parameter.dim() <= 1 for parameter in spared["params"])
    assert spared["weight_decay"] == 0.0
    assert len(decayed["params"]) + len(spared["params"]) == len(list(network.parameters()))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"epochs": 0}, "recipe.epochs is 0"),
        ({"batch": 0}, "recipe.batch is 0"),
        ({"accumulate": 0}, "recipe.accumulate is 0"),
        ({"learning_rate": 0.0}, "recipe.learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "recipe.learning_rate is nan"),
        ({"label_smoothing": 1.0}, "recipe.label_smoothing is 1.0"),
        ({"weight_decay": -1.0}, "recipe.weight_decay is -1.0"),
    ],
)
def test_bad_recipes_are_refused(settings: dict[str, float], named: str) -> None:
    with pytest.raises(UserError, match=named):
        Recipe(**settings)  # type: ignore[arg-type]


def test_a_batch_that_workers_cannot_share_is_refused_with_one_that_they_can() -> None:
    check_batch(64, 4)
    with pytest.raises(UserError, match=r"A batch of 64 cannot be shared equally by 3 workers.*--recipe.batch 63"):
        check_batch(64, 3)


def test_compiling_without_a_compiler_is_refused_here_and_left_to_a_joined_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler, but 'no-such-compiler' is not installed"):
        Recipe(compile=True).check(1, here=True)
    Recipe(compile=True).check(1, here=False)
    Recipe().check(1, here=True)
    monkeypatch.setenv("CXX", sys.executable)
    Recipe(compile=True).check(1, here=True)


def test_the_auxiliary_head_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 1, 16, 16), generator=generator, dtype=torch.uint8)
    masks = (images[:, 0] > 127).to(torch.uint8)
    split = TensorSplit(images, torch.zeros(16, dtype=torch.int64), masks)
    weights = []
    for share in (0.0, 0.4):
        torch.manual_seed(0)
        network = video_network(
            "tiny-resnet-fcn",
            task="segmentation",
            temporal="tsm",
            frames=3,
            num_classes=2,
            in_channels=1,
            auxiliary=True,
        )
        before = network.network.aux_classifier.weight.detach().clone()
        train_network(
            network, split, plan=plan_of(MOVED), recipe=Recipe(epochs=1, batch=8, auxiliary_weight=share, weight_decay=0),
            objective=objective_for("segmentation", 2, 255), seed=0,
        )  # fmt: skip
        weights.append((network.network.aux_classifier.weight - before).abs().max())
        assert isinstance(network.eval()(torch.rand(1, 3, 1, 16, 16)), torch.Tensor)
    assert weights[0] == 0
    assert weights[1] > 1e-4


@pytest.mark.parametrize(
    ("frames", "size", "mapped", "count"),
    [(1, (32, 32), 0, 256), (3, (64, 64), 0, 256), (3, (224, 224), 0, 34), (3, (180, 240), 11, 16),
     (3, (512, 512), 21, 6), (1, (512, 512), 150, 3), (9, (2048, 1024), 19, 1)],
)  # fmt: skip
def test_large_images_and_maps_are_scored_fewer_at_once(
    frames: int, size: tuple[int, int], mapped: int, count: int
) -> None:
    assert scored_at_once(frames, size, mapped=mapped) == count
