"""The targets that were set before the studies ran, beside what was measured on test data, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tables import Cell, Study, markdown

from fieldshift.report.intervals import estimate

COMPUTE, EPOCHS = "equal compute", "equal epochs"
SMALL_IMAGES = ("fashion-tiny", "cifar10-tiny", "fashion-resnet18", "cifar10-resnet18")


@dataclass(frozen=True)
class Target:
    """A number to reach.

    Attributes:
        text: what is to be reached, in words.
        where: study and cell.
        against: the arm that a difference is measured to; empty for a score.
        least: the smallest value that reaches it, in percent or points.
        mean, low, high: the measured value and its 95 % interval.
    """

    text: str
    where: str
    against: str
    least: float
    mean: float
    low: float
    high: float

    @property
    def outcome(self) -> str:
        """Whether it is reached; undecided where it lies within the interval."""
        return "undecided" if self.low < self.least < self.high else "met" if self.mean >= self.least else "NOT met"


def targets(studies: Mapping[str, Study]) -> list[Target]:
    """All targets whose cells were run."""
    found = []
    for name, cell in studies["digit-pairs"].cells.items():
        if cell.has("das-folded+affine", COMPUTE):
            row = cell.row("das-folded+affine", COMPUTE)
            words = "digit pairs: das-folded+affine, averaged, 93 %"
            found.append(score(words, f"digit-pairs, {name}", row["judged_scores"], 93))
    scenes = [("camvid", "tiny-96"), ("camvid", "tiny-96-chosen"), ("new-seeds", "camvid-tiny-96")]
    for study, name in [(study, name) for study, name in scenes if name in studies[study].cells]:
        cell, where = studies[study].cells[name], f"{study}, {name}"
        others = [
            arm for enlarged in (False, True) for arm in cell.opponents(COMPUTE, enlarged=enlarged) if arm != "none"
        ]
        found.append(gain("CamVid 96 x 128: 4 points above the plain network", where, cell, ["none"], 4))
        found.append(gain("CamVid 96 x 128: 2 points above the best other arm without motion", where, cell, others, 2))
    small = [("classification", name, COMPUTE) for name in SMALL_IMAGES]
    small += [("new-seeds", "cifar10-resnet18", COMPUTE), ("depth", "resnet18", EPOCHS)]
    for study, name, budget in small:
        if name in studies[study].cells and studies[study].cells[name].has("das-folded", budget):
            cell = studies[study].cells[name]
            opponents = cell.opponents(budget, enlarged=False)
            words = "Fashion-MNIST and CIFAR-10: at most 0.5 points below the best 2D arm"
            found.append(gain(words, f"{study}, {name}", cell, opponents, -0.5, budget))
    for name, cell in studies["cifar10"].cells.items():
        row = cell.row("none", EPOCHS)
        words = "CIFAR-10 on a GPU: the plain ResNet-18 near 96.0 % (within 0.5)"
        found.append(score(words, f"cifar10, {name}, {row['epochs']:.0f} epochs", row["judged_scores"], 95.5))
    return found


def score(text: str, where: str, scores: list[float], least: float) -> Target:
    """A target for the mean score of an arm over seeds, in percent."""
    found = estimate([100 * each for each in scores])
    return Target(text, where, "", least, found.mean, found.low, found.high)


def gain(
    text: str,
    where: str,
    cell: Cell,
    opponents: list[str],
    least: float,
    budget: str = COMPUTE,
    arm: str = "das-folded",
) -> Target:
    """A target for the paired difference of an arm to the best of some others, in points."""
    best = cell.best(budget, opponents)
    gap = cell.gap(arm, best, budget)
    return Target(text, where, best, least, 100 * gap.mean, 100 * gap.low, 100 * gap.high)


def targets_table(studies: Mapping[str, Study]) -> str:
    """One row per target and cell."""
    rows = []
    for each in targets(studies):
        sign = "+" if each.against else ""
        measured = f"{each.mean:{sign}.1f} ({each.low:{sign}.1f} to {each.high:{sign}.1f})"
        rows.append([each.text, each.where, " ".join(filter(None, [measured, each.against])), each.outcome])
    return markdown(["target", "study, cell", "measured", "outcome"], rows)
