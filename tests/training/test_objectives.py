from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fieldshift.errors import UserError
from fieldshift.tasks import TASKS
from fieldshift.training.objectives import objective_for


def iou_by_counting(predicted: np.ndarray, target: np.ndarray, classes: int, ignore: int) -> float:
    kept = target != ignore
    overlaps = []
    for label in range(classes):
        union = ((predicted == label) | (target == label)) & kept
        if union.any():
            overlaps.append(((predicted == label) & (target == label) & kept).sum() / union.sum())
    return float(np.mean(overlaps))


def test_accuracy_is_the_share_of_right_answers() -> None:
    logits, targets = torch.randn(64, 5), torch.randint(5, (64,))
    score = objective_for("classification", 5).new_score()
    for part in range(0, 64, 20):
        score.update(logits[part : part + 20], targets[part : part + 20])
    assert score.compute() == int((logits.argmax(1) == targets).sum()) / 64


def test_a_share_has_no_digits_of_float32() -> None:
    """11 of 80 in float32 would be logged as 13.75000029802322 %."""
    score = objective_for("classification", 2).new_score()
    score.update(torch.eye(2)[[0] * 11 + [1] * 69], torch.zeros(80, dtype=torch.int64))
    assert score.compute() == 11 / 80


def test_mean_iou_agrees_with_counting_and_ignores_the_ignore_index() -> None:
    torch.manual_seed(1)
    logits, targets = torch.randn(6, 4, 9, 7), torch.randint(4, (6, 9, 7))
    targets[:, :2] = 255
    score = objective_for("segmentation", 4, 255).new_score()
    score.update(logits[:3], targets[:3])
    score.update(logits[3:], targets[3:])
    expected = iou_by_counting(logits.argmax(1).numpy(), targets.numpy(), 4, 255)
    assert score.compute() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("ignore", [None, 255, 1])
def test_scores_are_those_of_torchmetrics_up_to_its_float32(ignore: int | None) -> None:
    from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(7, 6, 5, 4, generator=generator)
    targets = torch.randint(5, (7, 5, 4), generator=generator)  # class 5 is predicted only
    logits[:, 4] -= 9
    if ignore is not None:
        targets[:, 1] = ignore
    theirs = MulticlassJaccardIndex(6, average="macro", ignore_index=ignore)
    ours = objective_for("segmentation", 6, ignore).new_score()
    for score in (theirs, ours):
        score.update(logits[:3], targets[:3])
        score.update(logits[3:], targets[3:])
    assert ours.compute() == pytest.approx(float(theirs.compute()), abs=1e-7)
    accuracy, labels = MulticlassAccuracy(6, average="micro"), targets[:, 0, 0]
    ours = objective_for("classification", 6).new_score()
    for score in (accuracy, ours):
        score.update(logits[:, :, 0, 0], labels)
    assert ours.compute() == pytest.approx(float(accuracy.compute()), abs=1e-7)


@pytest.mark.parametrize("task", TASKS)
def test_reductions_agree_with_torch(task: str) -> None:
    dense = task == "segmentation"
    logits = torch.randn(5, 3, 4, 4) if dense else torch.randn(5, 3)
    targets = torch.randint(3, (5, 4, 4) if dense else (5,))
    if dense:
        targets[0, 0] = 255
    objective = objective_for(task, 3, 255 if dense else None)
    ignored = 255 if dense else -100
    assert torch.allclose(objective.loss(logits, targets), F.cross_entropy(logits, targets, ignore_index=ignored))
    total = F.cross_entropy(logits, targets, ignore_index=ignored, reduction="sum")
    assert torch.allclose(objective.loss(logits, targets, "sum"), total)
    each = [F.cross_entropy(logits[i : i + 1], targets[i : i + 1], ignore_index=ignored) for i in range(5)]
    assert torch.allclose(objective.loss(logits, targets, "none"), torch.stack(each), atol=1e-6)


def test_a_batch_of_ignored_pixels_has_no_loss_instead_of_nan() -> None:
    objective = objective_for("segmentation", 3, 255)
    assert objective.loss(torch.randn(2, 3, 4, 4), torch.full((2, 4, 4), 255)).item() == 0.0


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'segmentation'"):
        objective_for("segmentacion", 3)
