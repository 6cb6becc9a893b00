"""The loss and the score of each task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fieldshift.tasks import Task, check_task

if TYPE_CHECKING:
    from torchmetrics import Metric


class Score:
    """Accuracy or mean intersection over union, in [0, 1], over every sample of all workers together."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def update(self, logits: Float[Tensor, "batch classes ..."], targets: Int[Tensor, "batch ..."]) -> None:
        self._metric.update(logits, targets)

    def compute(self) -> float:
        """The score so far. With several workers every rank must call it: their counts are added first."""
        return float(self._metric.compute())


@dataclass(frozen=True)
class Objective:
    """Cross-entropy for training; accuracy (classification) or mIoU (segmentation) as the score, higher is better."""

    task: Task
    num_classes: int
    ignore_index: int | None = None
    label_smoothing: float = 0.0

    @property
    def score_name(self) -> str:
        return "accuracy" if self.task == "classification" else "mIoU"

    def loss(
        self,
        logits: Float[Tensor, "batch classes ..."],
        targets: Int[Tensor, "batch ..."],
        reduction: str = "mean",
    ) -> Tensor:
        """Cross-entropy of fused logits; pixels of `ignore_index` are excluded.

        `reduction` is "mean" (a scalar), "sum" (a scalar) or "none" (one value per sample, averaged over pixels).
        """
        ignored = -100 if self.ignore_index is None else self.ignore_index
        each = F.cross_entropy(
            logits, targets, ignore_index=ignored, label_smoothing=self.label_smoothing, reduction="none"
        )
        counted = targets != ignored
        if reduction == "mean":
            return each.sum() / counted.sum().clamp(min=1)
        if reduction == "sum":
            return each.sum()
        return each.flatten(1).sum(1) / counted.flatten(1).sum(1).clamp(min=1) if each.dim() > 1 else each

    def counted(self, targets: Int[Tensor, "batch ..."]) -> Tensor:
        """Number of targets that contribute to the loss: all, or the pixels other than `ignore_index`."""
        return (targets != (-100 if self.ignore_index is None else self.ignore_index)).sum()

    def new_score(self, device: torch.device | str = "cpu") -> Score:
        if self.task == "classification":
            from torchmetrics.classification import MulticlassAccuracy

            accuracy = MulticlassAccuracy(num_classes=self.num_classes, average="micro", validate_args=False)
            return Score(accuracy.to(device))
        from torchmetrics.classification import MulticlassJaccardIndex

        overlap = MulticlassJaccardIndex(
            num_classes=self.num_classes, average="macro", ignore_index=self.ignore_index, validate_args=False
        )
        return Score(overlap.to(device))


def objective_for(
    task: str, num_classes: int, ignore_index: int | None = None, label_smoothing: float = 0.0
) -> Objective:
    """The objective of a task. Raises UserError for a task that is not one of `TASKS`."""
    check_task(task)
    if task == "classification":
        return Objective("classification", num_classes, None, label_smoothing)
    return Objective("segmentation", num_classes, ignore_index, label_smoothing)
