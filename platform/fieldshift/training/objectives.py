"""The loss and the score of each task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fieldshift.tasks import Task, check_task
from fieldshift.training.distributed import sum_across_workers

NO_LABEL = -100  # marks nothing as ignored, as in torch's cross_entropy


class Score(ABC):
    """A score in [0, 1] over every sample of all workers together, counted on the device without making the CPU wait."""

    @abstractmethod
    def update(self, logits: Float[Tensor, "batch classes ..."], targets: Int[Tensor, "batch ..."]) -> None:
        """Counts a batch."""

    @abstractmethod
    def compute(self) -> float:
        """The score so far. With several workers every rank must call it: their counts are added first."""


class Accuracy(Score):
    """The share of samples whose largest logit is that of their class; 0 without samples."""

    def __init__(self, device: torch.device | str) -> None:
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)  # right, all

    def update(self, logits: Float[Tensor, "batch classes ..."], targets: Int[Tensor, "batch ..."]) -> None:
        right = (logits.argmax(1) == targets).sum()
        self._counts += torch.stack([right, torch.full_like(right, targets.numel())])

    def compute(self) -> float:
        right, count = sum_across_workers(self._counts).cpu().double()
        return float(right / count.clamp(min=1))


class MeanIoU(Score):
    """The intersection over union of each class, averaged over the classes that occur in targets or predictions."""

    def __init__(self, num_classes: int, ignore_index: int | None, device: torch.device | str) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        # [target, prediction]; the last row counts the pixels that are ignored
        self._confusion = torch.zeros(num_classes + 1, num_classes, dtype=torch.int64, device=device)

    def update(self, logits: Float[Tensor, "batch classes ..."], targets: Int[Tensor, "batch ..."]) -> None:
        rows = targets if self.ignore_index is None else targets.where(targets != self.ignore_index, self.num_classes)
        cells = (rows * self.num_classes + logits.argmax(1)).flatten()
        self._confusion.view(-1).scatter_add_(0, cells, torch.ones_like(cells))

    def compute(self) -> float:
        confusion = sum_across_workers(self._confusion).cpu()[: self.num_classes].double()
        both, either = confusion.diag(), confusion.sum(0) + confusion.sum(1) - confusion.diag()
        counted = (either > 0).double()
        if self.ignore_index is not None and 0 <= self.ignore_index < self.num_classes:
            counted[self.ignore_index] = 0.0
        return float((counted * (both / either.clamp(min=1)) / counted.sum()).sum())


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
        ignored = NO_LABEL if self.ignore_index is None else self.ignore_index
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
        return (targets != (NO_LABEL if self.ignore_index is None else self.ignore_index)).sum()

    def new_score(self, device: torch.device | str = "cpu") -> Score:
        """A score of the task that has counted nothing yet."""
        if self.task == "classification":
            return Accuracy(device)
        return MeanIoU(self.num_classes, self.ignore_index, device)


def objective_for(
    task: str, num_classes: int, ignore_index: int | None = None, label_smoothing: float = 0.0
) -> Objective:
    """The objective of a task. Raises UserError for a task that is not one of `TASKS`."""
    check_task(task)
    if task == "classification":
        return Objective("classification", num_classes, None, label_smoothing)
    return Objective("segmentation", num_classes, ignore_index, label_smoothing)
