"""The ranges that `fieldshift tune` searches: settings of a training, RandAugment's numbers, and the size of the motion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search_spaces.randaugment import randaugment_space

PARAMETERS = ("learning_rate", "weight_decay", "num_ops", "magnitude", "motion")
"""What can be tuned; `num_ops` and `magnitude` are RandAugment's N and M, `motion` a factor on the policy's magnitudes."""

MOTION_FACTORS = (0.5, 1.5)


def training_space(
    over: Sequence[str], *, learning_rate: float, weight_decay: float, largest_motion: float
) -> dict[str, Any]:
    """Ray Tune's domains for the parameters in `over`.

    Rates are sampled on a log scale, from a tenth of the recipe's to ten times that (a hundredth to ten times for weight
    decay, from 1e-6 where the recipe has none); motions from half of the policy's to `largest_motion` times that.
    """
    from ray import tune

    decay = weight_decay or 1e-4
    domains = {
        "learning_rate": tune.loguniform(learning_rate / 10, learning_rate * 10),
        "weight_decay": tune.loguniform(decay / 100, decay * 10),
        "motion": tune.uniform(MOTION_FACTORS[0], largest_motion),
        **randaugment_space(),
    }
    return {name: domains[name] for name in over}
