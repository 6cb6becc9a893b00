"""Student-t intervals of a mean and of a paired difference, and their values for too few runs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
ROUNDING = 1e-12
"""Differences of scores up to this one are those of rounding, and count as none."""

FEWEST_PAIRS_FOR_WILCOXON = 6  # 2 / 2 ** n, the smallest two-sided exact p, is below 0.05 for 6 or more pairs


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over runs with its 95 % interval; low, high and std are NaN for a single run."""

    n: int
    mean: float
    low: float
    high: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The mean of paired differences with its 95 % interval and two-sided p values.

    p is that of the paired t test; wilcoxon_p is NaN for fewer than 6 pairs, where the signed-rank test cannot reach 0.05.
    Without a common key all but pairs are NaN; with one, and where all differences are equal but not zero, all but pairs
    and mean.
    """

    pairs: int
    mean: float
    low: float
    high: float
    p: float
    wilcoxon_p: float

    @property
    def outcome(self) -> str:
        """One of 'wins', 'loses', 'cannot be told apart', and 'cannot be told' if there is no interval."""
        if math.isnan(self.low):
            return "cannot be told"
        if self.low > 0:
            return "wins"
        return "loses" if self.high < 0 else "cannot be told apart"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of runs with its Student-t interval: mean +- t(n - 1) * std / sqrt(n), std with n - 1.

    A NaN among the values makes every number NaN, so that a missing run is never skipped silently.
    """
    from scipy.stats import t

    n = len(values)
    if n == 0:
        return Estimate(n=0, mean=math.nan, low=math.nan, high=math.nan, std=math.nan)
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if n == 1:
        return Estimate(n=1, mean=mean, low=math.nan, high=math.nan, std=math.nan)
    std = float(sample.std(ddof=1))
    reach = float(t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * std / math.sqrt(n)
    return Estimate(n=n, mean=mean, low=mean - reach, high=mean + reach, std=std)


def paired_difference(ours: Mapping[Hashable, float], theirs: Mapping[Hashable, float]) -> Difference:
    """The mean difference ours - theirs over common keys (seeds), with its interval and p values.

    If all differences are equal, their spread is not known: scores are multiples of 1 / images, and few of them are often
    equal by chance. There is then no interval and no p, unless all are zero: the interval is then zero, and p is 1.
    """
    from scipy.stats import ttest_1samp

    differences = [ours[key] - theirs[key] for key in ours if key in theirs]
    gaps = [0.0 if abs(each) <= ROUNDING else each for each in differences]
    gap = estimate(gaps)
    if gap.n < 2 or math.isnan(gap.mean):
        return Difference(pairs=gap.n, mean=gap.mean, low=gap.low, high=gap.high, p=math.nan, wilcoxon_p=math.nan)
    # Rounding gives equal differences a tiny spread, which is not evidence.
    if gap.std <= ROUNDING:
        if abs(gap.mean) <= ROUNDING:
            return Difference(pairs=gap.n, mean=0.0, low=0.0, high=0.0, p=1.0, wilcoxon_p=math.nan)
        return Difference(pairs=gap.n, mean=gap.mean, low=math.nan, high=math.nan, p=math.nan, wilcoxon_p=math.nan)
    p = float(ttest_1samp(gaps, 0.0).pvalue)
    return Difference(pairs=gap.n, mean=gap.mean, low=gap.low, high=gap.high, p=p, wilcoxon_p=_wilcoxon(gaps))


def _wilcoxon(gaps: Sequence[float]) -> float:
    from scipy.stats import wilcoxon

    moved = [gap for gap in gaps if gap != 0]
    if len(moved) < FEWEST_PAIRS_FOR_WILCOXON:
        return math.nan
    ties = len({round(abs(gap), 12) for gap in moved}) < len(moved)
    return float(wilcoxon(moved, method="approx" if ties else "exact").pvalue)
