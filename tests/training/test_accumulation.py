"""Micro-batches whose gradients are added, against the whole batch at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fieldshift.data import TensorSplit
from fieldshift.data.augmentation.arms import augmentation
from fieldshift.errors import UserError
from fieldshift.networks import VideoNetwork, video_network
from fieldshift.training import FramePlan, Recipe, loop, objective_for, train_network
from fieldshift.training.accumulation import micro_batches
from fieldshift.training.recipe import check_batch
from tests.training.toys import CLASSES, MOVED, plan_of, toy_network, toy_split
from tests.two_processes import InTwo

SGD: dict[str, Any] = {"epochs": 2, "batch": 16, "optimizer": "sgd", "learning_rate": 0.02, "schedule": "constant"}


def without_norms(network: VideoNetwork) -> VideoNetwork:
    """Every BatchNorm replaced by its scale and shift."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
            module.forward = lambda x, m=module: x * m.weight[:, None, None] + m.bias[:, None, None]  # type: ignore[method-assign]
    return network


def trained(
    network: VideoNetwork, plan: FramePlan, split: TensorSplit | None = None, **settings: Any
) -> dict[str, Any]:
    done = train_network(
        network, toy_split() if split is None else split, plan=plan, recipe=Recipe(**(SGD | settings)),
        objective=objective_for("classification", CLASSES), seed=3,
    )  # fmt: skip
    weights = {name: value for name, value in network.state_dict().items() if value.dtype.is_floating_point}
    return {"weights": weights, "history": done.history}


def assert_close(found: dict[str, Any], wanted: dict[str, Any], tolerance: float = 1e-6) -> None:
    assert found["weights"].keys() == wanted["weights"].keys()
    for name, value in wanted["weights"].items():
        assert torch.allclose(found["weights"][name], value, rtol=0, atol=tolerance), name
    for mine, other in zip(found["history"], wanted["history"], strict=True):
        assert mine["train/loss"] == pytest.approx(other["train/loss"], abs=tolerance)
        assert mine["train/accuracy"] == other["train/accuracy"]


@pytest.mark.parametrize("accumulate", [2, 4, 16])
@pytest.mark.parametrize(
    "settings", [{}, {"clip_norm": 0.1}, {"label_smoothing": 0.1}], ids=["plain", "clipped", "smoothed"]
)
def test_without_batch_norm_the_update_is_that_of_the_whole_batch(accumulate: int, settings: dict[str, Any]) -> None:
    plan = plan_of(MOVED, augmentation=augmentation("affine"))
    whole, parts = (
        trained(without_norms(toy_network(3)), plan, accumulate=number, **settings) for number in (1, accumulate)
    )
    assert_close(parts, whole)
    before = toy_network(3).state_dict()
    moved = max(float((value - before[name]).abs().max()) for name, value in whole["weights"].items())
    assert moved > 1e-3


def test_pixels_count_alike_in_micro_batches_with_different_numbers_of_them() -> None:
    split = toy_split(masks=True)
    assert split.masks is not None
    split.masks[::3, 4:] = 255
    found: list[dict[str, Tensor]] = []
    for accumulate in (1, 4):
        torch.manual_seed(0)
        shape: dict[str, Any] = {"temporal": "tsm", "frames": 3, "num_classes": CLASSES, "in_channels": 1}
        network = without_norms(video_network("tiny-resnet-fcn", task="segmentation", auxiliary=True, **shape))
        train_network(
            network, split, plan=plan_of(MOVED), recipe=Recipe(**SGD, accumulate=accumulate),
            objective=objective_for("segmentation", CLASSES, 255), seed=0,
        )  # fmt: skip
        found.append({name: value for name, value in network.state_dict().items() if value.dtype.is_floating_point})
    for name, value in found[0].items():
        assert torch.allclose(found[1][name], value, rtol=0, atol=1e-6), name


def test_in_bf16_the_difference_is_that_of_rounding() -> None:
    whole, parts, exact = (
        trained(without_norms(toy_network(3)), plan_of(MOVED), accumulate=number, precision=precision)
        for number, precision in ((1, "bf16"), (4, "bf16"), (1, "float32"))
    )
    rounding, added = (
        max(float((other["weights"][name] - value).abs().max()) for name, value in whole["weights"].items())
        for other in (exact, parts)
    )
    assert added < 2 * rounding


def test_with_batch_norm_every_micro_batch_has_statistics_of_its_own() -> None:
    """As the loop would compute it with one micro-batch for each forward pass, by hand."""
    recipe: dict[str, Any] = {"epochs": 1, "schedule": "constant"}
    parts = trained(toy_network(1, "none"), plan_of(), toy_split(16), accumulate=2, **recipe)
    network = toy_network(1, "none").train()
    optimizer = loop.build_optimizer(network, Recipe(**(SGD | recipe)))
    for images, targets, _ in loop.epoch_batches(toy_split(16), 16, seed=3, epoch=0, device=torch.device("cpu")):
        video, _ = plan_of().training_video(images, targets, 0)
        for half, labels in ((video[:8], targets[:8]), (video[8:], targets[8:])):
            (nn.functional.cross_entropy(network(half)[:, 0], labels) / 2).backward()
    optimizer.step()
    for name, value in parts["weights"].items():
        assert torch.allclose(network.state_dict()[name], value, atol=1e-6), name


def two_workers(folder: Path) -> None:
    found = {
        "without": trained(without_norms(toy_network(3)), plan_of(MOVED), accumulate=4),
        "fewer": trained(without_norms(toy_network(3)), plan_of(MOVED), toy_split(5), accumulate=4),
        "synchronised": trained(toy_network(3), plan_of(MOVED), accumulate=2, sync_batch_norm=True),
    }
    torch.save(found, folder / f"{dist.get_rank()}.pt")


def test_two_workers_accumulate_like_one_process(
    in_two: InTwo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_two(two_workers, tmp_path)
    first, second = torch.load(tmp_path / "0.pt"), torch.load(tmp_path / "1.pt")
    for name, found in first.items():
        assert all(torch.equal(second[name]["weights"][key], value) for key, value in found["weights"].items())
    assert_close(first["without"], trained(without_norms(toy_network(3)), plan_of(MOVED)), 1e-5)

    def as_two_share(video: Tensor, targets: Tensor, number: int) -> Any:
        """In one process: micro-batch k is what both workers' micro-batches k are together."""
        halves = zip(video.tensor_split(2), targets.tensor_split(2), strict=True)
        for (one, own), (other, its) in zip(*(micro_batches(*half, number) for half in halves), strict=True):
            yield torch.cat([one, other]), torch.cat([own, its])

    monkeypatch.setattr(loop, "micro_batches", as_two_share)
    assert_close(first["synchronised"], trained(toy_network(3), plan_of(MOVED), accumulate=2), 1e-5)


def test_micro_batches_are_all_of_the_batch_in_order() -> None:
    video, targets = torch.rand(7, 3, 1, 2, 2), torch.arange(7)
    parts = list(micro_batches(video, targets, 3))
    assert [len(part) for part, _ in parts] == [3, 2, 2]
    assert torch.equal(torch.cat([labels for _, labels in parts]), targets)
    assert torch.equal(torch.cat([part for part, _ in parts]), video)


def test_a_batch_that_cannot_be_divided_is_refused_with_one_that_can() -> None:
    check_batch(64, 4, 4)
    with pytest.raises(
        UserError, match=r"A batch of 64 cannot .* into 3 micro-batches .* multiple of 3, such as .* 63\."
    ):
        check_batch(64, 1, 3)
    with pytest.raises(
        UserError, match=r"into 3 micro-batches for each of 4 workers .* multiple of 12, such as .* 60\."
    ):
        check_batch(64, 4, 3)
    with pytest.raises(UserError, match=r"cannot be combined with 2 workers"):
        Recipe(accumulate=2, compile=True).check(2, here=False)
