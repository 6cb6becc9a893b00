"""Tables and sentences of the committed studies: what the generated pages are made of."""

from __future__ import annotations

import itertools
import json
import statistics
import tomllib
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldshift.readings import READINGS
from fieldshift.report.intervals import Difference, estimate, paired_difference
from fieldshift.report.verdict import SURE
from fieldshift.search import load_space

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
BUDGETS = dict(zip(READINGS, ("epochs", "compute", "with search"), strict=True))
ENLARGED = ("dilated", "wide-field")
PASSES = 3
"""Passes that a training step is counted as."""
FIELDS = {
    "sigma along, px": ("effective, reference frame: sigma along, px", 1),
    "sigma across, px": ("effective, reference frame: sigma across, px", 1),
    "through other frames, %": ("effective, reference frame: share through other frames", 100),
    "sigma along over all frames, px": ("effective, all frames: sigma along, px", 1),
}
"""Columns of `fields_table`: the number of a row of `fields.json` and what it is multiplied by."""
NO_OPPONENT = ("das", "random-policy", "replicate")


@dataclass(frozen=True)
class Cell:
    """One comparison of a study.

    Attributes:
        name: its name in the study.
        numbers: its raw numbers, as `study.py` writes them.
    """

    name: str
    numbers: dict[str, Any]

    def row(self, arm: str, budget: str) -> dict[str, Any]:
        """The summary of an arm. Raises KeyError where it was not run."""
        for row in self.numbers["summary"]:
            if (row["arm"], row["reading"]) == (arm, budget):
                return dict(row)
        raise KeyError(f"{self.name}: {arm} at {budget}")

    def has(self, arm: str, budget: str) -> bool:
        return any((row["arm"], row["reading"]) == (arm, budget) for row in self.numbers["summary"])

    def arms(self, budget: str) -> list[str]:
        """The arms at a budget, the best judged mean first."""
        rows = [row for row in self.numbers["summary"] if row["reading"] == budget]
        return [row["arm"] for row in sorted(rows, key=lambda row: -row["judged_mean"])]

    def budgets(self) -> list[str]:
        found = {row["reading"] for row in self.numbers["summary"]}
        return [budget for budget in BUDGETS if budget in found]

    def score(self, arm: str, budget: str, *, averaged: bool = True) -> str:
        """The judged mean, or that without test-time averaging, and half of its 95 % interval, in percent."""
        row = self.row(arm, budget)
        kind = "tta_" if averaged and row["judged"] == "averaged" else ""
        low, high = row[f"{kind}low"], row[f"{kind}high"]
        half = "" if low is None else f" ± {50 * (high - low):.1f}"
        return f"{100 * row[f'{kind}mean']:.1f}{half}"

    def opponents(self, budget: str, *, enlarged: bool) -> list[str]:
        """The arms without motion: those of an enlarged field, or all others, the best judged mean first."""
        found = [arm for arm in self.arms(budget) if not arm.startswith(NO_OPPONENT)]
        return [arm for arm in found if arm.startswith(ENLARGED) == enlarged]

    def best(self, budget: str, arms: Iterable[str]) -> str:
        """The arm of the best judged mean among `arms`."""
        return max((arm for arm in arms if self.has(arm, budget)), key=lambda arm: self.row(arm, budget)["judged_mean"])

    def gap(self, arm: str, opponent: str, budget: str) -> Difference:
        """The paired difference over common seeds."""
        return paired(self, arm, self, opponent, budget)

    def judged(self, arm: str, budget: str, *, averaged: bool = True) -> dict[Hashable, float]:
        """The judged score of every seed, or that without test-time averaging."""
        row = self.row(arm, budget)
        return dict(zip(row["seeds"], row["judged_scores" if averaged else "scores"], strict=True))

    def claims_table(self, budgets: Iterable[str], arms: Iterable[str]) -> str:
        """The comparisons behind the verdict on some arms: opponent, difference, p raw and corrected, outcome."""
        rows = [
            [
                claim["reading"], claim["method"], f"{claim['question']}: {claim['opponent']}",
                f"{100 * claim['difference']:+.1f} ({100 * claim['low']:+.1f} to {100 * claim['high']:+.1f})",
                f"{chance(claim['p'])} / {chance(claim['holm_p'])}", claim["outcome"],
            ]
            for claim in self.numbers["claims"]
            if claim["reading"] in set(budgets) and claim["method"] in set(arms) and claim["holm_p"] is not None
        ]  # fmt: skip
        return markdown(["budget", "arm", "opponent", "points", "p / corrected", "outcome"], rows)

    def comparisons(self) -> int:
        """The number of different comparisons of trials among the claims: what their p values are corrected for."""
        return len({
            tuple(tuple(self.row(claim[role], claim["reading"])["judged_scores"]) for role in ("method", "opponent"))
            for claim in self.numbers["claims"]
            if claim["holm_p"] is not None
        })  # fmt: skip

    def motions(self, form: str = "folded") -> str:
        """The motions that the searches of a form ended in, in words, with how many found each."""
        found: dict[str, int] = {}
        for search in self.numbers["searches"]:
            if search["form"] == form:
                edges = search["policy"].get("edges", [])
                text = " and ".join(_steps(edge["steps"]) for edge in edges) or f"a motion per {self.unit}"
                found[text] = found.get(text, 0) + 1
        return ", ".join(f"{text} ({count})" for text, count in found.items())

    @property
    def unit(self) -> str:
        """What has a motion of its own in a policy of several motions, as the space of the search says."""
        space = load_space(self.numbers["config"]["space"])
        return "group of channels" if space.groups > 1 else space.per

    def seeds(self) -> int:
        """The number of seeds per arm."""
        return len({row["seed"] for row in self.numbers["rows"]})

    def seconds(self) -> float:
        """Seconds of all trainings and searches, each counted once."""
        trained = {(row["arm"], row["seed"], row["epochs"]): row["seconds"] for row in self.numbers["rows"]}
        return float(sum(trained.values()) + sum(search["seconds"] for search in self.numbers["searches"]))


def _steps(steps: list[dict[str, Any]]) -> str:
    moved = [f"{step['op']} {step['magnitude']:.3g}" for step in steps if step["op"] != "identity"]
    return " then ".join(moved) or "no motion"


@dataclass(frozen=True)
class Study:
    """The finished cells of a study.

    Attributes:
        name: the name of its configuration.
        question: what it asks.
        cells: its finished cells by name.
        baselines: for each cell that changes more than one setting of the default, the cell that differs in one.
    """

    name: str
    question: str
    cells: dict[str, Cell]
    baselines: dict[str, str]

    @classmethod
    def load(cls, name: str) -> Study:
        """The study of `benchmarks/results/NAME.json`; without cells where there is no such file."""
        file = RESULTS / f"{name}.json"
        kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"question": "", "cells": {}}
        cells = {cell: Cell(cell, numbers) for cell, numbers in kept["cells"].items()}
        baselines = tomllib.loads((HERE / f"{name}.toml").read_text()).get("baselines", {})
        return cls(name, kept["question"], cells, {cell: base for cell, base in baselines.items() if base in cells})

    def arms_table(
        self, budgets: Iterable[str] = BUDGETS, cells: Iterable[str] = (), only: Collection[str] = ()
    ) -> str:
        """One row per arm, or per one of `only`, one column per cell and budget; by the first cell's equal compute.

        The cells of the video form are those of `video_table`.
        """
        apart = self.names_of_videos()
        chosen = [self.cells[name] for name in (cells or self.cells) if name not in apart]
        columns = [(cell, budget) for cell in chosen for budget in budgets if budget in cell.budgets()]
        by = next((column for column in columns if column[1] == "equal compute"), columns[0])
        arms = dict.fromkeys(arm for column in (by, *columns) for arm in column[0].arms(column[1]))
        rows = []
        for arm in [arm for arm in arms if not only or arm in only]:
            shown = f"**{arm}**" if arm.startswith("das-folded") else arm
            rows.append(
                [shown, *(cell.score(arm, budget) if cell.has(arm, budget) else "-" for cell, budget in columns)]
            )
        return markdown(["arm", *(f"{cell.name}, {BUDGETS[budget]}" for cell, budget in columns)], rows)

    def budgets(self) -> list[str]:
        """The budgets of any cell that is not one of `video_table`."""
        apart = self.names_of_videos()
        found = {budget for cell in self.cells.values() if cell.name not in apart for budget in cell.budgets()}
        return [budget for budget in BUDGETS if budget in found]

    def seeds(self) -> str:
        """The number of seeds per arm in words, with the cells where they differ; without those of `video_table`."""
        cells: dict[int, list[str]] = {}
        apart = self.names_of_videos()
        for cell in self.cells.values():
            if cell.name not in apart:
                cells.setdefault(cell.seeds(), []).append(cell.name)
        if len(cells) == 1:
            return f"{next(iter(cells))} seeds per arm"
        return "seeds per arm: " + "; ".join(f"{count} in {', '.join(cells[count])}" for count in sorted(cells))

    def gaps_table(self, budget: str, arms: Iterable[str] = ("das-folded",)) -> str:
        """One row per cell and arm: its score, and its differences to the best 2D arm and the best enlarged field."""
        rows = []
        for cell, arm in itertools.product(self.cells.values(), arms):
            if not cell.has(arm, budget) or not cell.opponents(budget, enlarged=False):
                continue
            row = [cell.name, arm, cell.score(arm, budget)]
            for opponents in (cell.opponents(budget, enlarged=False), cell.opponents(budget, enlarged=True)):
                row.append(against(cell, arm, opponents[0], budget) if opponents else "-")
            rows.append([*row, cell.motions()])
        heads = ["cell", "arm", "score", "minus the best 2D arm", "minus the best enlarged field", "found"]
        return markdown(heads, rows)

    def claims(self, arm: str, question: str) -> list[tuple[Cell, dict[str, Any]]]:
        """The comparisons of an arm that answer a question at equal compute, without and with the search."""
        return [
            (cell, claim)
            for cell in self.cells.values()
            for claim in cell.numbers["claims"]
            if claim["method"] == arm and claim["question"] == question and claim["reading"] != "equal epochs"
        ]

    def significant(self, arm: str, question: str) -> str:
        """How many of the comparisons have p < 0.05 after correction."""
        found = [claim["holm_p"] < SURE for _, claim in self.claims(arm, question)]
        return f"{sum(found)} of {len(found)}"

    def losses(self, arm: str, budget: str, question: str) -> str:
        """Whether an arm loses to its opponent in every cell: "loses to", else "does not always lose to"."""
        outcomes = [claim["outcome"] for _, claim in self.claims(arm, question) if claim["reading"] == budget]
        return "loses to" if set(outcomes) == {"loses"} else "does not always lose to"

    def changes_table(self, table: str, budget: str = "equal epochs", arm: str = "das-folded") -> str:
        """One row per cell named `TABLE-...` and one for `default`, with the difference to its baseline."""
        rows = []
        for cell in (self.cells["default"], *(self.cells[name] for name in self.cells if name.startswith(f"{table}-"))):
            label = cell.name.removeprefix(f"{table}-")
            seconds = f"{cell.row(arm, budget)['search_device_seconds']:.0f}" if cell.numbers["searches"] else "-"
            gap = self.change(cell, arm, budget)
            rows.append([label, str(cell.seeds()), cell.score(arm, budget), gap, seconds, cell.motions() or "-"])
        return markdown([table, "seeds", "score", "minus default", "search, CPU s", "found (searches)"], rows)

    def change(self, cell: Cell, arm: str, budget: str) -> str:
        """The difference of a cell to its baseline in words; nothing for the default itself."""
        if cell.name == "default":
            return ""
        base = self.cells[self.baselines.get(cell.name, "default")]
        other = "" if base.name == "default" else f", against {base.name}"
        if cell.judged(arm, budget) == base.judged(arm, budget):
            return f"the same networks{other}"
        return f"{points(paired(cell, arm, base, arm, budget))}{other}"

    def against_table(self, name: str, arm: str, budget: str) -> str:
        """One row per cell and arm with its cost, and its difference to one cell's arm, or to that of its baseline."""
        rows = []
        for cell in self.cells.values():
            base = self.cells[self.baselines.get(cell.name, name)]
            for other in cell.arms(budget):
                numbers = next(row for row in cell.numbers["rows"] if row["arm"] == other)
                words = points(paired(cell, other, base, arm, budget)) + (
                    "" if base.name == name else f", against {base.name}"
                )
                rows.append([
                    cell.name, other, str(cell.seeds()), cell.score(other, budget), f"{numbers['flops'] / 1e6:.1f}",
                    f"{numbers['parameters']:,}", "" if (cell.name, other) == (name, arm) else words,
                ])  # fmt: skip
        heads = ["cell", "arm", "seeds", "score", "MFLOP per image", "parameters", f"minus {arm} of {name}"]
        return markdown(heads, rows)

    def video_cells(self) -> list[tuple[str, Cell]]:
        """The cells NAME-video, whose cell NAME trains for as many frames without video, with that name.

        Raises ValueError where it trains for more or fewer.
        """
        found = []
        for name, video in self.cells.items():
            plain = name.removesuffix("-video")
            if plain == name or plain not in self.cells or not self.cells[plain].has("das-folded", "equal compute"):
                continue
            epochs, frames = (video.row("das", "equal epochs")[each] for each in ("epochs", "frames"))
            if epochs * frames != self.cells[plain].row("das-folded", "equal compute")["epochs"]:
                raise ValueError(f"{self.name}: {name} and {plain} do not train for the same number of frames.")
            found.append((plain, video))
        return found

    def names_of_videos(self) -> set[str]:
        """The names of the cells that `video_table` shows."""
        return {video.name for _, video in self.video_cells()}

    def video_table(self) -> str:
        """One row per cell of `video_cells`: the video arms, the plain network and the folded form at the same compute."""
        rows = []
        for name, video in self.video_cells():
            plain = self.cells[name]
            scores = [video.score(arm, "equal epochs") for arm in ("replicate", "das")]
            scores += [plain.score(arm, "equal compute") for arm in ("none", "das-folded")]
            rows.append([name, str(video.seeds()), *scores, video.motions("video")])
        return markdown(["cell", "seeds", "replicate", "das", "none", "das-folded", "found, video form"], rows)

    def time_shares(self, arm: str, budget: str) -> list[float]:
        """The time of an epoch of an arm against the plain network's, in every cell that has both."""
        return [
            cell.row(arm, budget)["seconds_share"]
            for cell in self.cells.values()
            if cell.has(arm, budget) and cell.has("none", budget)
        ]


def device_table(cell: Cell, budget: str) -> str:
    """One row per arm: seconds of the device per epoch, per training and per search, as means over seeds."""
    rows = []
    for arm in cell.arms(budget):
        own = [row for row in cell.numbers["rows"] if (row["arm"], row["reading"]) == (arm, budget)]
        epoch, whole, search = (
            statistics.mean(row[name] for row in own)
            for name in ("device_seconds_per_epoch", "device_seconds", "search_device_seconds")
        )
        searched = f"{search:.0f}" if search else "-"
        rows.append([arm, str(len(own)), cell.score(arm, budget), f"{epoch:.2f}", f"{whole:.0f}", searched])
    heads = ["arm", "seeds", "accuracy", "s per epoch", "s per training", "s per search"]
    return markdown(heads, rows)


def fields_table(rows: Iterable[dict[str, Any]]) -> str:
    """One row per network: the numbers of `FIELDS` as means over seeds, with half of their 95 % interval."""
    networks: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        networks.setdefault(row["network"], []).append(row)
    cells = []
    for network, own in networks.items():
        found = [estimate([factor * row[name] for row in own]) for name, factor in FIELDS.values()]
        cells.append([network, *(f"{each.mean:.1f} ± {each.high - each.mean:.1f}" for each in found)])
    return markdown(["network", *FIELDS], cells)


def costs_table(studies: Iterable[Study], budget: str, arms: Collection[str]) -> str:
    """One row per cell: time of an epoch by arm, passes with `affine`, and a search against a training of das-folded."""
    rows = []
    for study in studies:
        for cell in study.cells.values():
            if not (cell.has("none", budget) and cell.has("das-folded", budget)):
                continue
            times = [f"{cell.row(arm, budget)['seconds_share']:.2f}" if cell.has(arm, budget) else "-" for arm in arms]
            joined = [cell.row(arm, budget)["passes"] for arm in cell.arms(budget) if arm.endswith("affine")]
            row = cell.row("das-folded", budget)
            training = PASSES * row["flops"] * row["epochs"] * cell.numbers["budget"]["images_per_epoch"]
            rows.append([
                f"{study.name}, {cell.name}", *times, f"{max(joined):.0f}" if joined else "-",
                f"{row['search_operations'] / training:.2f}",
            ])  # fmt: skip
    return markdown(["study, cell", *(f"time, {arm}" for arm in arms), "passes", "search"], rows)


def paired(cell: Cell, arm: str, other: Cell, opponent: str, budget: str, *, at: str | None = None) -> Difference:
    """The paired difference between two arms of two cells, over common seeds; `at`: the first one's budget, if it differs."""
    return paired_difference(cell.judged(arm, at or budget), other.judged(opponent, budget))


def against(cell: Cell, arm: str, opponent: str, budget: str) -> str:
    """The difference to an opponent in points with its interval and its name."""
    return f"{points(cell.gap(arm, opponent, budget))} {opponent}"


def points(gap: Difference) -> str:
    """A difference in points with its 95 % interval."""
    return f"{100 * gap.mean:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"


def tested(studies: Iterable[Study]) -> str:
    """The different numbers of test images of all cells."""
    counts = sorted(
        {row["tested"] for study in studies for cell in study.cells.values() for row in cell.numbers["rows"]}
    )
    return " or ".join(filter(None, [", ".join(f"{count:,}" for count in counts[:-1]), f"{counts[-1]:,} images"]))


def chance(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def outcome(gap: Difference) -> str:
    """Whether a difference can be told apart from none: "better", "worse" or "not told apart"."""
    return "better" if gap.low > 0 else "worse" if gap.high < 0 else "not told apart"


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; all columns but the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))
