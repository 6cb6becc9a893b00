"""The epochs of every arm of a comparison at each reading, and the operations charged for its search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fieldshift.console import say
from fieldshift.errors import UserError, unknown_name
from fieldshift.readings import BUDGETS, EQUAL_COMPUTE, EQUAL_EPOCHS, READINGS, SEARCH_INCLUDED
from fieldshift.training import arm_named

TUNED = "randaugment"
"""The arm whose augmentation --tune_randaugment tunes."""


@dataclass(frozen=True, kw_only=True)
class TuningCost:
    """The cost of tuning an augmentation: `samples` trainings on `learned` images per epoch, `scored` images after each."""

    samples: int
    learned: int
    scored: int

    def operations(self, flops: int, epochs: int) -> int:
        """Floating-point operations, as if no sample was ended early; the last score is taken twice."""
        from fieldshift.training.cost import BACKWARD_FACTOR

        return self.samples * flops * (epochs * (BACKWARD_FACTOR * self.learned + self.scored) + self.scored)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The budget of a comparison's arms, in floating-point operations of one run.

    At equal compute an arm trains until it has spent what a video arm spends in the recipe's epochs. With the search
    included it may also spend the operations of the most expensive search: an arm pays for the search of its policy, the
    tuned RandAugment its tuning, and trains with what is left.

    Attributes:
        epochs: of the recipe.
        images: that one epoch learns from.
        video: floating-point operations of a video arm on one image forward.
        flops: those of each arm.
        searches: operations of the search that found each arm's policy, mean over seeds; 0 without a search, NaN where unknown.
        tuning: the cost of tuning RandAugment; None where it is not tuned.
    """

    epochs: int
    images: int
    video: int
    flops: Mapping[str, int]
    searches: Mapping[str, float]
    tuning: TuningCost | None = None

    def epochs_at(self, arm: str, reading: str) -> int:
        """The number of epochs that an arm trains for."""
        is_video = arm_named(arm).is_video
        if reading == EQUAL_EPOCHS or (reading == EQUAL_COMPUTE and is_video):
            return self.epochs
        if reading == EQUAL_COMPUTE:
            return max(1, round(self.epochs * self.video / self.flops[arm]))
        if self.is_tuned(arm):
            return self._tuned_epochs(arm)
        spent = self._epoch(self.flops[arm] if is_video else self.video) * self.epochs
        return max(1, round((spent + self.most_expensive - self.searches[arm]) / self._epoch(self.flops[arm])))

    def charged(self, arm: str, reading: str) -> float:
        """Operations of the arm's own search or tuning."""
        if self.tuning is not None and self.is_tuned(arm):
            return self.tuning.operations(self.flops[arm], self.epochs_at(arm, reading))
        return self.searches[arm]

    @property
    def most_expensive(self) -> float:
        """Operations of the most expensive search or tuning (at the epochs of equal compute); NaN where one is unknown."""
        tuned = [self.charged(arm, EQUAL_COMPUTE) for arm in self.flops if self.is_tuned(arm)]
        spent = [*self.searches.values(), *tuned]
        return math.nan if any(map(math.isnan, spent)) else max(spent, default=0.0)

    def is_tuned(self, arm: str) -> bool:
        return arm == TUNED and self.tuning is not None

    def record(self, readings: Sequence[str]) -> dict[str, Any]:
        """The budget as a result file holds it: its parts, and each arm's epochs and charge at each reading."""
        return {
            "epochs": self.epochs,
            "images_per_epoch": self.images,
            "video_flops": self.video,
            "dearest_search": self.most_expensive,
            "arms": {
                arm: {
                    "flops": self.flops[arm],
                    "search": {reading: self.charged(arm, reading) for reading in readings},
                    "epochs": {reading: self.epochs_at(arm, reading) for reading in readings},
                }
                for arm in self.flops
            },
        }

    def _epoch(self, flops: int) -> int:
        from fieldshift.training.cost import BACKWARD_FACTOR

        return BACKWARD_FACTOR * self.images * flops

    def _tuned_epochs(self, arm: str) -> int:
        """Tuning trains for the epochs that it is used with, so both grow together; never fewer than at equal compute."""
        assert self.tuning is not None
        flops = self.flops[arm]
        fixed = self.tuning.operations(flops, 0)
        each = self._epoch(flops) + self.tuning.operations(flops, 1) - fixed
        budget = self._epoch(self.video) * self.epochs + max([*self.searches.values(), 0.0])
        return max(self.epochs_at(arm, EQUAL_COMPUTE), math.floor((budget - fixed) / each))


def readings_of(budgets: Sequence[str] | None, default: Sequence[str] = READINGS) -> list[str]:
    """The readings at the budgets asked for, in the order of READINGS; a reading's own name stands for its budget, too.

    Raises UserError for an unknown budget.
    """
    for name in budgets or ():
        if name not in BUDGETS and name not in READINGS:
            raise unknown_name("budget", name, BUDGETS)
    asked = [BUDGETS.get(name, name) for name in budgets or default]
    return [name for name in READINGS if name in asked]


def check_tuning(samples: int, arms: Sequence[str]) -> None:
    """Raises UserError where there is no arm to tune; reports the arms whose N and M are not tuned."""
    if samples < 0:
        raise UserError(f"--tune_randaugment is {samples}, but must be 0 or more.")
    if samples == 0:
        return
    if TUNED not in arms:
        raise UserError(
            f"--tune_randaugment tunes the arm {TUNED}, which is not among the arms; add it to --arms, or leave the option out."
        )
    if joined := [name for name in arms if name.endswith(f"+{TUNED}")]:
        say(f"note: --tune_randaugment tunes only the arm {TUNED}; {', '.join(joined)} keep torchvision's N and M")


def with_known_costs(wanted: list[str], *, named: bool, searched: bool, unknown: Sequence[str]) -> list[str]:
    """The readings that are possible: the one that includes searches needs searches of known cost.

    `searched`: whether anything is searched or tuned, `unknown` names the policies whose search cost is unknown.
    Raises UserError where the reading was `named` and has an unknown cost; else it is skipped with a message.
    """
    if SEARCH_INCLUDED not in wanted:
        return wanted
    rest = [name for name in wanted if name != SEARCH_INCLUDED]
    if unknown:
        reason = f"{unknown[0]} does not record the cost of its search"
        if named:
            raise UserError(
                f"--budgets has search-included, but {reason}; give the policy of a search of this version, or leave that "
                "budget out."
            )
        say(f"without the reading at {SEARCH_INCLUDED}: {reason}")
        return rest
    if not searched and not named:
        say(f"without the reading at {SEARCH_INCLUDED}: nothing is searched or tuned")
        return rest
    return wanted
