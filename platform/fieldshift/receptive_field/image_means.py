"""Means over images, chunk by chunk: of maps of |gradient| with standard errors, and of the share through other frames.

Shape letters: B images of a chunk, C channels, H, W.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fieldshift.errors import UserError
from fieldshift.receptive_field.arrivals import Arrivals


def absolute(gradient: Float[Tensor, "batch channels H W"], layer: str) -> Float[Tensor, "batch H W"]:
    """The mean of |gradient| over channels, float64 on the CPU; raises UserError if it is not finite."""
    found = gradient.abs().mean(dim=1).double().cpu()
    if not bool(found.isfinite().all()):
        raise UserError(f"The gradient of layer '{layer}' is not finite; check the weights and mean and std.")
    return found


class MapMean:
    """A mean of maps (H, W) over images, and of their masses, with standard errors."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._totals = np.zeros((2, *size))
        self._masses: list[Tensor] = []

    def add(self, maps: Tensor) -> None:
        self._totals += np.stack([maps.sum(dim=0).numpy(), maps.square().sum(dim=0).numpy()])
        self._masses.append(maps.sum(dim=(1, 2)))

    @property
    def count(self) -> int:
        return sum(len(part) for part in self._masses)

    @property
    def mass(self) -> float:
        return float(torch.cat(self._masses).mean())

    def numbers(self) -> dict[str, Any]:
        """The measured fields of an effective field."""
        number = self.count
        values = self._totals[0] / number
        spread = np.sqrt(np.maximum(self._totals[1] / number - values**2, 0.0) / max(number - 1, 1))
        return {
            "values": torch.from_numpy(values),
            "standard_error": torch.from_numpy(spread) if number > 1 else None,
            "mass": self.mass,
            "mass_standard_error": float(torch.cat(self._masses).std()) / number**0.5 if number > 1 else None,
        }


class ShareMean:
    """The share of the mass that arrives through frames other than the unit's own: a ratio of sums over images."""

    def __init__(self) -> None:
        self.silent = 0
        self._masses: list[Tensor] = []  # (B, 2) each: own, others

    def add(self, found: Arrivals) -> None:
        self.silent += found.silent
        if found.others is not None:
            parts = [each.abs().mean(dim=1).sum(dim=(1, 2)).double().cpu() for each in (found.own, found.others)]
            self._masses.append(torch.stack(parts, dim=1))

    @property
    def share(self) -> float | None:
        own, others = self._sums
        return others / (own + others) if own + others > 0 else None

    @property
    def share_error(self) -> float | None:
        """The standard error of the ratio, to first order; None for a single image."""
        if self.share is None or len(masses := torch.cat(self._masses)) < 2:
            return None
        left = masses[:, 1] - self.share * masses.sum(dim=1)
        variance = float(left.square().sum()) / (len(left) * (len(left) - 1))
        return math.sqrt(variance) / float(masses.sum(dim=1).mean())

    @property
    def _sums(self) -> tuple[float, float]:
        own, others = torch.cat(self._masses).sum(dim=0).tolist() if self._masses else (0.0, 0.0)
        return own, others
