"""Losses are read at the end of a log interval, and a run that diverges ends there, in one line, without writing NaN."""

from __future__ import annotations

import pytest
import torch

from fieldshift.data import TensorSplit
from fieldshift.errors import UserError
from fieldshift.networks import video_network
from fieldshift.training import FramePlan, Recipe, objective_for, train_network
from fieldshift.training.checkpoint import read_checkpoint
from fieldshift.training.loss_log import READ_EVERY, LossLog, check_weights

IMAGES = torch.arange(20, 40)


def message(kind: str, loss: float, step: int, images: list[int]) -> str:
    return f"{kind} {loss} step {step} images {images}"


def test_losses_come_back_by_kind_and_in_order_as_they_were() -> None:
    log = LossLog(message)
    losses = torch.rand(7)
    for loss in losses:
        log.add("weights", loss.requires_grad_(), IMAGES)
        log.add("alpha", 2 * loss, IMAGES)
    assert log.read() == {"weights": losses.tolist(), "alpha": (2 * losses).tolist()}
    assert log.read()["weights"] == losses.tolist()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_loss_that_is_not_finite_is_named_at_the_end_of_its_interval(value: float) -> None:
    log = LossLog(message)
    for _ in range(READ_EVERY + 5):
        log.add("weights", torch.tensor(1.0), IMAGES)
    for step in range(3):
        log.add("weights", torch.tensor(value if step == 1 else 2.0), IMAGES + step)
    with pytest.raises(UserError, match=rf"^weights {value} step {READ_EVERY + 7} images \[21, 22, .*28\]$"):
        log.read()
    log = LossLog(message)
    log.add("weights", torch.tensor(value), IMAGES)
    for _ in range(READ_EVERY - 2):
        log.add("weights", torch.tensor(1.0), IMAGES)
    with pytest.raises(UserError, match=rf"^weights {value} step 1 "):  # a long pass does not go on to its end
        log.add("weights", torch.tensor(1.0), IMAGES)


@pytest.mark.parametrize(
    ("every", "moves"), [(1, [0.125 * n for n in range(1, 8)]), (10, [10 / 24, 20 / 24]), (50, [])]
)
def test_a_bar_moves_at_log_intervals_within_an_epoch(
    every: int, moves: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fieldshift.training.loop.READ_EVERY", every)
    network = video_network("tiny-resnet", temporal="none", frames=1, num_classes=2, in_channels=1)
    split = TensorSplit(torch.randint(0, 255, (48, 1, 12, 12), dtype=torch.uint8), torch.arange(48) % 2)
    seen: list[float] = []
    train_network(
        network, split, plan=FramePlan(policy=None), recipe=Recipe(epochs=2, batch=2), seed=0,
        objective=objective_for("classification", 2), progress=seen.append,
        report=lambda _row, epoch: seen.append(float(epoch)),
    )  # fmt: skip
    assert seen == pytest.approx([*moves, 1.0, *(1.0 + done for done in moves), 2.0])


def test_weights_are_checked_where_they_are_learned() -> None:
    good, bad = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.tensor([1.0, torch.inf]))
    check_weights([good], "no")
    with pytest.raises(UserError, match="^lost$"):
        check_weights([good, bad], "lost")
    bad.requires_grad_(False)
    check_weights([good, bad], "no")


def test_the_last_step_of_an_epoch_may_break_the_weights_and_no_checkpoint_has_them(tmp_path) -> None:
    network = video_network("tiny-resnet", temporal="none", frames=1, num_classes=2, in_channels=1)
    split = TensorSplit(torch.randint(0, 255, (8, 1, 12, 12), dtype=torch.uint8), torch.arange(8) % 2)

    def break_the_next_step(_row: dict[str, float], _epoch: int) -> None:  # its loss is finite, what it does is not
        next(network.parameters()).register_hook(lambda gradient: gradient * torch.inf)

    with pytest.raises(
        UserError, match=r"^The weights after epoch 2 are not finite; the last checkpoint is kept"
    ) as caught:
        train_network(
            network, split, plan=FramePlan(policy=None), recipe=Recipe(epochs=2, batch=8), seed=0,
            objective=objective_for("classification", 2), checkpoint=tmp_path / "checkpoint.pt",
            report=break_the_next_step,
        )  # fmt: skip
    assert "\n" not in str(caught.value)
    state = read_checkpoint(tmp_path / "checkpoint.pt")
    assert state["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in state["network"].values())
