"""The losses of a pass, kept on the device, and the end of a run whose loss is not finite.

Reading a number makes the CPU wait for all pending work of a GPU. The loops therefore read their numbers once per log
interval, `READ_EVERY` steps or a pass if that is shorter, and never at every step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fieldshift.errors import UserError

READ_EVERY = 50
"""Steps of a pass between two reads of its losses."""
NAMED = 8  # images in the message about a loss that is not finite


class LossLog:
    """The losses of one pass by kind, one number per step, read from the device together.

    `describe(kind, loss, step, images)` gives the message about a loss that is not finite: its value, the step, counted from
    1, and the indices of its first images.
    """

    def __init__(self, describe: Callable[[str, float, int, list[int]], str]) -> None:
        self._describe = describe
        self._pending: list[tuple[str, Tensor, Tensor]] = []
        self._steps: dict[str, int] = defaultdict(int)
        self._losses: dict[str, list[float]] = defaultdict(list)

    def add(self, kind: str, loss: Float[Tensor, ""], images: Int[Tensor, " batch"]) -> None:
        """Adds the loss of a step on these images. Raises UserError as `read` at the end of a log interval."""
        self._pending.append((kind, loss.detach(), images[:NAMED]))
        self._steps[kind] += 1
        if self._steps[kind] % READ_EVERY == 0:
            self.read()

    def read(self) -> dict[str, list[float]]:
        """The losses so far, by kind, in order. Raises UserError for the first that is not finite, in order of the steps."""
        if self._pending:
            numbers = torch.stack([loss.double() for _, loss, _ in self._pending]).tolist()
            for (kind, _, images), number in zip(self._pending, numbers, strict=True):
                self._losses[kind].append(number)
                if not -float("inf") < number < float("inf"):
                    raise UserError(self._describe(kind, number, len(self._losses[kind]), images.tolist()))
            self._pending.clear()
        return self._losses


def are_finite(tensors: Iterable[Tensor]) -> Bool[Tensor, ""]:
    """Whether all numbers of all tensors are finite, as a tensor on their device."""
    return torch.stack([tensor.detach().isfinite().all() for tensor in tensors]).all()


def check_weights(parameters: Iterable[Tensor], message: str) -> None:
    """Raises UserError with the message where a learned weight is not finite: the loss of the last step may not show it."""
    if not are_finite(each for each in parameters if each.requires_grad):
        raise UserError(message)
