"""The decision chart of docs/results.md: its questions, the comparisons that answer them, and the words of the answers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import combination
from scipy.stats import t as student
from tables import BUDGETS, ENLARGED, Cell, Study, chance, markdown, outcome, paired, points

from fieldshift.readings import READINGS
from fieldshift.report.claims import holm
from fieldshift.report.intervals import Difference
from fieldshift.report.verdict import SURE

EPOCHS, COMPUTE, INCLUDED = READINGS
ON_PAIRS = ("das-folded", "das-folded+affine")  # the second is the arm of the target that was set for this data set
Studies = Mapping[str, Study]


@dataclass(frozen=True)
class Comparison:
    """One arm against another at one budget, paired over seeds.

    Attributes:
        where: study and cell.
        budget: the budget of both.
        arm: the arm that the question is about.
        opponent: the other arm, with its cell where that is another one.
        gap: the difference arm - opponent.
    """

    where: str
    budget: str
    arm: str
    opponent: str
    gap: Difference


@dataclass(frozen=True)
class Question:
    """A question of a practitioner.

    Attributes:
        text: the question.
        comparisons: what answers it.
        note: what a reader of the answer has to know.
    """

    text: str
    comparisons: list[Comparison]
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """All questions; p values are corrected for all different comparisons of the chart.

    Attributes:
        questions: the questions.
        aside: comparisons of the studies that no question has.
    """

    questions: list[Question]
    aside: list[Comparison]

    @cached_property
    def corrected(self) -> dict[Comparison, float]:
        """Holm's p of every different comparison."""
        each = list(dict.fromkeys(found for question in self.questions for found in question.comparisons))
        return dict(zip(each, holm([found.gap.p for found in each]), strict=True))

    def answer(self, question: Question) -> str:
        """Yes, in part, mixed, no or not shown; all but the last need a comparison that is told apart after correction."""
        sure = {outcome(found.gap) for found in question.comparisons if self.corrected[found] < SURE}
        if sure == {"better", "worse"}:
            return "Mixed"
        if "better" in sure:
            return "Yes" if all(outcome(found.gap) == "better" for found in question.comparisons) else "In part"
        return "No" if "worse" in sure else "Not shown"

    def counts(self, question: Question) -> str:
        """How many of the comparisons are told apart, and how many of them after correction."""
        counts = []
        for kind in ("better", "worse"):
            found = [each for each in question.comparisons if outcome(each.gap) == kind]
            counts.append((len(found), sum(self.corrected[each] < SURE for each in found)))
        (better, sure), (worse, surely_worse) = counts
        return (
            f"better in {better} of {len(question.comparisons)} comparisons ({sure} after correction), worse in {worse} "
            f"({surely_worse})"
        )

    def left_out(self) -> str:
        """How the comparisons aside end, without correction."""
        ends = [outcome(each.gap) for each in self.aside]
        (arm,) = {each.arm for each in self.aside}
        return (
            f"In the other studies `{arm}` is better than the best 2D arm or enlarged field in {ends.count('better')} of "
            f"{len(ends)} comparisons and worse in {ends.count('worse')}."
        )

    def power(self) -> str:
        """How large a difference has to be for p < 0.05 after correction, in a comparison of the fewest seeds."""
        count, fewest = len(self.corrected), min(each.gap.pairs for each in self.corrected)
        few = [each for each in self.corrected if each.gap.pairs == fewest]
        least = student.isf(SURE / count / 2, fewest - 1) / math.sqrt(fewest)
        passed = sum(self.corrected[each] < SURE for each in few)
        return (
            f"the smallest of {count} p is below {SURE} after correction where the mean difference of {fewest} seeds is "
            f"{least:.0f} times its standard deviation between seeds. {len(few)} comparisons have {fewest} seeds; of these "
            f"{passed} {'is' if passed == 1 else 'are'} significant."
        )

    def significant(self, study: str, arm: str, *, enlarged: bool) -> str:
        """How many differences of an arm to the best 2D arm or enlarged field of a study have p < 0.05 after correction.

        Of the budgets of equal compute, without and with the search.
        """
        found = [
            p < SURE
            for each, p in self.corrected.items()
            if each.where.startswith(f"{study}, ") and (each.arm, each.budget) in {(arm, COMPUTE), (arm, INCLUDED)}
            and each.opponent.strip("`").startswith(ENLARGED) == enlarged and "random" not in each.opponent
        ]  # fmt: skip
        return f"{sum(found)} of {len(found)}"

    def answers(self) -> str:
        """One row per question."""
        rows = [[each.text, f"**{self.answer(each)}**: {self.counts(each)}"] for each in self.questions]
        return markdown(["question", "answer"], rows).replace("---:", "---")

    def table(self, question: Question) -> str:
        """One row per comparison."""
        rows = [
            [
                found.where, BUDGETS[found.budget], f"`{found.arm}`", found.opponent, str(found.gap.pairs), points(found.gap),
                f"{chance(found.gap.p)} / {chance(self.corrected[found])}", outcome(found.gap),
            ]
            for found in question.comparisons
        ]  # fmt: skip
        heads = ["study, cell", "budget", "arm", "against", "seeds", "points", "p / corrected", "outcome"]
        return markdown(heads, rows)


def chart(studies: Studies) -> Chart:
    """The chart of the committed studies."""
    camvid, pairs, again = studies["camvid"], studies["digit-pairs"], studies["new-seeds"]
    short, in_pairs = studies["short-search"], ["digits-left", "digits-top"]
    natural = ["camvid-tiny-96", "camvid-tiny-180", "cifar10-64"]
    small_field = ["tiny-96", "tiny-96-chosen", "tiny-180", "tiny-180-chosen"]
    wide_field = ["resnet18-96", "resnet18-180"]
    sizes, classes = studies["object-size"], studies["classification"]
    small_classes = ["fashion-tiny", "cifar10-tiny"]
    aside = [
        found
        for study, budget in itertools.product((camvid, sizes, classes), READINGS)
        for found in against_2d(study, ON_PAIRS[1], budget)
    ]
    return Chart(aside=aside, questions=[
        Question(
            "Does it help a small network if the label depends on something outside a unit's receptive field?",
            [found for arm in ON_PAIRS for found in against_2d(pairs, arm, COMPUTE)],
            "One synthetic task. The digits are 16 to 20 px apart; the search space has translations up to 18 px, enough with "
            "a field of 15 px. The scores of arms with `+affine` are means over 9 passes, those of the others of one.",
        ),
        Question(
            "Does it help there if the number of epochs is fixed, and compute does not matter?",
            [found for arm in ON_PAIRS for found in against_2d(pairs, arm, EPOCHS)],
            "Larger kernels (`wide-field`, 2.3 times the FLOPs) learn faster.",
        ),
        Question(
            "Does it help with natural images if the number of epochs is fixed, and compute does not matter?",
            [found for study in (camvid, sizes, classes) for found in against_2d(study, "das-folded", EPOCHS)],
            "These are few epochs (4 to 6), after which no arm has converged.",
        ),
        Question(
            "Does it help segmentation by a network whose field is small against the image?",
            [
                *against_2d(camvid, "das-folded", COMPUTE, small_field),
                *against_2d(again, "das-folded", COMPUTE, ["camvid-tiny-96", "camvid-tiny-180"]),
                *against_2d(camvid, "das-folded", INCLUDED, small_field),
                *against_2d(short, "das-folded", INCLUDED, ["camvid-tiny-96", "camvid-tiny-180"]),
                *between(camvid, "tiny-96-chosen", "tiny-96-chosen-identity", "das-folded", COMPUTE),
            ],
            "The cells `chosen` have GSF and a motion per stage; `none` and `dilated` were not tuned. In "
            "`tiny-96-chosen-identity` GSF moves no channel.",
        ),
        Question(
            "Does it help a small network to classify small natural images?",
            [
                *against_2d(sizes, "das-folded", COMPUTE),
                *against_2d(classes, "das-folded", COMPUTE, small_classes),
                *against_2d(again, "das-folded", COMPUTE, ["cifar10-64"]),
            ],
            "In the study of object sizes the same images grow; the side of the image is "
            "1.1, 1.6, 2.1, 3.2 and 4.3 times the field. `affine` is scored by the mean of 9 passes, `das-folded` by one.",
        ),
        Question(
            "Does it help a deep network whose field covers the image?",
            [
                *against_2d(classes, "das-folded", COMPUTE, ["fashion-resnet18", "cifar10-resnet18"]),
                *against_2d(camvid, "das-folded", COMPUTE, wide_field),
                *against_2d(studies["depth"], "das-folded", EPOCHS, ["resnet18"]),
                *against_2d(again, "das-folded", COMPUTE, ["cifar10-resnet18", "camvid-resnet18-96"]),
                *against_2d(studies["cifar10"], "das-folded", EPOCHS),
            ],
            "Trained from scratch, all but `cifar10` on few images and far below usual scores; on CamVid `fcn_resnet18` "
            "(stride 32) scores below the small network. `depth`, resnet18 and `classification`, cifar10-resnet18 are the same "
            "configuration with the same seeds, on two processors: how much three seeds say.",
        ),
        Question(
            "Is the search better than random motions?",
            [
                *against(pairs, "das-folded", "random-policy-folded", COMPUTE),
                *against(camvid, "das-folded", "random-policy-folded", COMPUTE, small_field),
                *against(again, "das-folded", "random-policy-folded", COMPUTE),
                *against(classes, "das-folded", "random-policy-folded", COMPUTE, small_classes),
                *against(studies["cifar10"], "das-folded", "random-policy-folded", EPOCHS),
                *between(studies["ablations"], "default", "selection-random", "das-folded", EPOCHS),
            ],
            "A random policy is one draw per seed from the same few motions, so its scores vary widely. In *ablations* "
            "only the rule that chooses differs; its section below has every motion trained without a search.",
        ),
        Question(
            "Does motion help in the video form, against a video of equal frames?",
            [found for study in (pairs, camvid, sizes, classes) for found in against(study, "das", "replicate", EPOCHS)],
            "Both are the same network on videos of 3 frames.",
        ),
        Question(
            "Is the video form better than the folded form at the same compute?",
            [
                *against(pairs, "das", "das-folded", COMPUTE),
                *(found for study in (camvid, sizes, classes) for found in across_forms(study)),
            ],
            "A video of 3 frames trains for a third of the epochs.",
        ),
        Question(
            "Do dilated kernels help instead, without motion or search?",
            [
                *against(pairs, "dilated", "none", COMPUTE),
                *against(camvid, "dilated", "none", COMPUTE, ["tiny-96", "tiny-180", *wide_field]),
                *against(again, "dilated", "none", COMPUTE),
                *against(sizes, "dilated", "none", COMPUTE),
                *against(classes, "dilated", "none", COMPUTE, small_classes),
                *against(studies["cifar10"], "dilated", "none", EPOCHS),
            ],
            "The same FLOPs as `none`; the time per epoch is in *Costs*.",
        ),
        Question(
            "Does motion add to dilated kernels?",
            [
                found
                for name, _, cell in combination.pairs(studies["combined"])
                for found in (
                    compared(studies["combined"], cell, "das-folded", "none", COMPUTE),
                    *between(studies["combined"], cell.name, name, "das-folded", COMPUTE),
                )
            ],
            "The network has both in the cells `-dilated`: against `none` there, which has dilated kernels alone, and against "
            "the same arm without dilation, in the other cell. *Dilated kernels and motion* has all four scores.",
        ),
        Question(
            "Does it help if the label depends on something outside the field, and the cost of the search is counted?",
            [
                *(found for arm in ON_PAIRS for found in against_2d(pairs, arm, INCLUDED)),
                *(found for arm in ON_PAIRS for found in against_2d(short, arm, INCLUDED, in_pairs)),
            ],
            "The digit pairs again. In `digit-pairs` the search that is counted is that of the video form, the most expensive "
            f"one: the other arms of one frame have {more_epochs(pairs)} times the epochs of `das-folded`. In `short-search` "
            f"it is a folded one of 6 epochs: {more_epochs(short, cells=in_pairs)} times. The scores of arms with `+affine` "
            "are means over 9 passes.",
        ),
        Question(
            "Does it help with natural images if the cost of the search is counted?",
            [
                *(found for study in (camvid, sizes, classes) for found in against_2d(study, "das-folded", INCLUDED)),
                *against_2d(short, "das-folded", INCLUDED, natural),
            ],
            "The search that is counted is that of the folded form: the other arms have "
            f"{more_epochs(camvid, sizes, classes)} times the epochs of `das-folded`, in `short-search`, whose searches have 6 "
            f"epochs in place of 12, {more_epochs(short, cells=natural)} times. In classification `affine` is scored by the "
            "mean of 9 passes, `das-folded` by one.",
        ),
    ])  # fmt: skip


def more_epochs(*studies: Study, cells: Iterable[str] | None = None) -> str:
    """How many times the epochs of `das-folded` the plain network has if the search is counted, in all cells or in these."""
    found = [cell for study in studies for cell in cells_of(study, cells, INCLUDED) if cell.has("das-folded", INCLUDED)]
    epochs = [[cell.row(arm, INCLUDED)["epochs"] for arm in ("none", "das-folded")] for cell in found]
    times = sorted(plain / folded for plain, folded in epochs)
    return " to ".join(dict.fromkeys(f"{each:.1f}" for each in (times[0], times[-1])))


def cells_of(study: Study, names: Iterable[str] | None, budget: str) -> Iterator[Cell]:
    """The finished cells of these names at a budget; by default all."""
    for name in study.cells if names is None else names:
        if name in study.cells and budget in study.cells[name].budgets():
            yield study.cells[name]


def against_2d(study: Study, arm: str, budget: str, cells: Iterable[str] | None = None) -> Iterator[Comparison]:
    """An arm against the 2D arm and the enlarged field of the best means on the test images, in every cell that has the arm."""
    for cell in cells_of(study, cells, budget):
        if not cell.has(arm, budget):
            continue
        for enlarged in (False, True):
            for other in cell.opponents(budget, enlarged=enlarged)[:1]:
                yield compared(study, cell, arm, other, budget)


def against(
    study: Study, arm: str, opponent: str, budget: str, cells: Iterable[str] | None = None
) -> Iterator[Comparison]:
    """An arm against a named one, in every cell that has both."""
    for cell in cells_of(study, cells, budget):
        if cell.has(arm, budget) and cell.has(opponent, budget):
            yield compared(study, cell, arm, opponent, budget)


def between(study: Study, name: str, other: str, arm: str, budget: str) -> Iterator[Comparison]:
    """The same arm in two cells of a study."""
    if name in study.cells and other in study.cells:
        ours, theirs = study.cells[name], study.cells[other]
        yield Comparison(f"{study.name}, {name}", budget, arm, other, paired(ours, arm, theirs, arm, budget))


def across_forms(study: Study) -> Iterator[Comparison]:
    """`das` in every cell NAME-video against `das-folded` in the cell NAME, which trains for as many frames."""
    for name, ours in study.video_cells():
        theirs = study.cells[name]
        gap = paired(ours, "das", theirs, "das-folded", COMPUTE, at=EPOCHS)
        yield Comparison(f"{study.name}, {name}", COMPUTE, "das", "`das-folded`", gap)


def compared(study: Study, cell: Cell, arm: str, opponent: str, budget: str) -> Comparison:
    return Comparison(f"{study.name}, {cell.name}", budget, arm, f"`{opponent}`", cell.gap(arm, opponent, budget))
