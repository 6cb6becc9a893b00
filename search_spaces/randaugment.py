"""The two numbers of RandAugment (Cubuk et al., 2020): N operations an image, magnitude M of torchvision's 31 levels."""

from __future__ import annotations

from typing import Any

DEFAULTS = {"num_ops": 2, "magnitude": 9}
"""torchvision's N and M."""

LARGEST = {"num_ops": 14, "magnitude": 30}
"""The number of torchvision's operations, and the last of its 31 levels."""


def randaugment_space() -> dict[str, Any]:
    """N in 1 .. 3 and M in 1 .. 30, as Ray Tune domains for Optuna."""
    from ray import tune

    return {"num_ops": tune.randint(1, 4), "magnitude": tune.randint(1, 31)}
