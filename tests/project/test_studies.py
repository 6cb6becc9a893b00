"""The studies whose raw numbers are committed: they continue where they stopped, and leave no path of a machine."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

import pipelines
from fieldshift.command_parser import command_parser
from fieldshift.data.published.digit_pairs import scenes, source_digits
from fieldshift.readings import READINGS
from fieldshift.search import SearchConfig
from fieldshift.training import arm_named

ROOT = Path(__file__).resolve().parents[2]


def script(file: str) -> Any:
    name = f"study_{file}"
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / "studies" / f"{file}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, with a configuration of its own and its results in an empty folder."""
    module = script("study")
    (tmp_path / "configurations").mkdir()
    (tmp_path / "configurations" / "small.toml").write_text(SMALL)
    monkeypatch.setattr(module, "HERE", tmp_path / "configurations")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return module


SMALL = """
question = "Does it run?"

[options]
data = "digit-pairs-left"
arms = ["none", "das-folded", "affine"]
seeds = 1
tta_copies = 1
loading = { train_limit = 80, test_limit = 40 }
search = { epochs = 1, batch = 32 }
recipe = { epochs = 1, batch = 32 }

[cells.first]

[cells.held-out]
data = "npz:{left-held-out}"
arms = ["das-folded"]
budgets = ["equal-epochs"]
recipe = { batch = 16 }
"""


def test_a_study_runs_continues_and_keeps_its_raw_numbers(study: Any, tmp_path: Path) -> None:
    words = ["small", "--at-once", "0"]
    assert study.main(words) == 0
    file = tmp_path / "results" / "small.json"
    kept = json.loads(file.read_text())
    assert kept["question"] == "Does it run?"
    assert list(kept["cells"]) == ["first", "held-out"]
    first, other = kept["cells"].values()
    assert {row["reading"] for row in first["rows"]} == set(READINGS)
    assert first["searches"][0]["policy"]["found"]["cost"]["operations"] > 0
    assert set(first["budget"]["arms"]) == {"none", "das-folded", "affine"}
    assert any(line.startswith("At equal compute, search included, das-folded (") for line in first["verdict"])
    assert [row["arm"] for row in other["rows"]] == ["das-folded"]
    assert other["config"]["recipe"] == {**first["config"]["recipe"], "batch": 16}
    assert str(tmp_path) not in file.read_text()
    assert str(Path.home()) not in file.read_text()
    runs = tmp_path / "runs" / "studies" / "small"
    begun = [(runs / cell / "commit").read_text().strip() for cell in ("first", "held-out")]
    assert [
        cell["machine"]["commit"] for cell in (first, other)
    ] == begun  # results that a cell wrote are no changed files
    trained = {path: path.stat().st_mtime_ns for path in runs.rglob("weights.safetensors")}
    (runs / "first" / "result.json").unlink()
    assert study.main([*words, "--cells", "first"]) == 0
    assert json.loads(file.read_text())["cells"]["first"]["rows"] == first["rows"]
    assert {path: path.stat().st_mtime_ns for path in trained} == trained


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["smal"], "Unknown study 'smal'. Did you mean 'small'?"),
        (["small", "--cells", "frist"], "Unknown cell 'frist'. Did you mean 'first'?"),
        (["pictures"], "This study reads the data set 'cifar10'; give its path with --data cifar10=PATH."),
    ],
)
def test_bad_words_get_one_line(words: list[str], line: str, study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (study.HERE / "pictures.toml").write_text('question = ""\n[options]\ndata = "npz:{cifar10@16}"\n[cells.one]\n')
    assert study.main(words) == 2
    assert line in capsys.readouterr().err


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks/studies").glob("*.toml")), ids=lambda file: file.stem)
def test_committed_configurations_are_whole(file: Path) -> None:
    study = script("study")
    settings = study.configuration(file.stem)
    assert settings["question"].endswith("?")
    parser = command_parser("compare", pipelines.compare)
    paths = {name: f"/data/{name}" for name in DATA} | {"studies": str(file.parent)}
    for cell in settings["cells"].values():
        options = study.filled(study.merged(settings["options"], cell), paths)
        values = parser.instantiate(parser.parse_object(options))
        searched = any(arm_named(arm).needs_policy for arm in values.arms) and values.folded_policy is None
        assert "search" in options if searched else values.search == SearchConfig()


DATA = (
    "camvid", "camvid-held-out", "cifar10", "fashion-mnist", "left-held-out",
    *(f"cifar10@{side}" for side in (16, 24, 32, 48, 64)),
)  # fmt: skip


def test_a_trial_with_other_options_leaves_the_committed_numbers(study: Any, tmp_path: Path) -> None:
    words = ["small", "--cells", "held-out", "--at-once", "0", "--set", "recipe.epochs=2"]
    words += ["--set", "search.criterion=score"]  # added to those before, not in their place
    assert study.main(words) == 0
    assert not (tmp_path / "results").exists()
    kept = json.loads((tmp_path / "runs" / "studies" / "small.json").read_text())["cells"]["held-out"]["config"]
    assert (kept["recipe"]["epochs"], kept["recipe"]["batch"], kept["search"]["criterion"]) == (2, 16, "score")
    assert study.main([*words[:-1], "recipe"]) == 2


def test_held_out_scenes_share_no_digit_with_those_for_training() -> None:
    """Found again among the scenes that they were chosen from, by their pixels."""
    held_out = script("data_files").held_out_file("left")
    drawn = scenes("left", train=True, seed=0, count=6000)
    sources = {image.tobytes(): pair for image, pair in zip(drawn["images"][:, 0], drawn["sources"], strict=True)}
    with np.load(held_out) as arrays:
        parts = {part: arrays[f"{part}_images"] for part in ("train", "test")}
        digits = {
            part: {int(s) for image in images for s in sources[image.tobytes()]} for part, images in parts.items()
        }
    assert len(parts["train"]) == 2000
    assert len(parts["test"]) > 600
    assert not digits["train"] & digits["test"]
    assert not digits["test"] & {int(s) for s in source_digits(train=False, seed=0)}


def test_the_generated_pages_are_made_from_the_committed_numbers() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "pages.py", "--check"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)])},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def neighbours(*names: str) -> list[Any]:
    """Scripts of the studies, which import one another by name."""
    sys.path.insert(0, str(ROOT / "benchmarks" / "studies"))
    try:
        return [script(name) for name in names]
    finally:
        sys.path.pop(0)


def test_gaps_and_scores_are_those_of_the_trials() -> None:
    """Against scipy's paired interval on the raw rows."""
    tables = script("tables")
    cell = tables.Study.load("digit-pairs").cells["left"]
    scores = {
        arm: np.array(
            [row["score"] for row in cell.numbers["rows"] if (row["arm"], row["reading"]) == (arm, "equal compute")]
        )
        for arm in ("das-folded", "none")
    }
    found = scipy.stats.ttest_rel(scores["das-folded"], scores["none"]).confidence_interval()
    gap = cell.gap("das-folded", "none", "equal compute")
    assert (gap.low, gap.high) == pytest.approx(found)
    assert (
        tables.points(gap) == f"{100 * (scores['das-folded'] - scores['none']).mean():+.1f} ({100 * found.low:+.1f} to"
        f" {100 * found.high:+.1f})"
    )
    assert cell.score("none", "equal compute").startswith(f"{100 * scores['none'].mean():.1f} ± ")
    assert tables.outcome(gap) == "better"
    assert tables.outcome(cell.gap("none", "das-folded", "equal compute")) == "worse"
    assert cell.best("equal compute", ["das-folded", "das-folded+affine"]) == "das-folded+affine"
    assert cell.opponents("equal compute", enlarged=True)[0] == "dilated+affine"
    assert cell.opponents("equal compute", enlarged=False)[0] == "affine"


def test_the_headline_has_the_scores_with_and_without_averaging() -> None:
    """Against scipy on the raw rows, whose `score` is that of a single view."""
    headline, tables = neighbours("headline", "tables")
    study = tables.Study.load("digit-pairs")
    trials = {
        arm: np.array(
            [
                row["score"]
                for row in study.cells["top"].numbers["rows"]
                if (row["arm"], row["reading"]) == (arm, "equal compute")
            ]
        )
        for arm in study.cells["top"].arms("equal compute")
    }
    arm, budgets = "das-folded+affine", ["equal compute"]
    _, _, row, *_ = headline.headline_table(study, budgets, [arm, "none"]).splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    interval = scipy.stats.t.interval(0.95, 4, trials[arm].mean(), scipy.stats.sem(trials[arm]))
    assert cells[:4] == [
        f"**{arm}**",
        "9",
        study.cells["left"].score(arm, "equal compute"),
        study.cells["top"].score(arm, "equal compute"),
    ]
    assert cells[5] == f"{100 * trials[arm].mean():.1f} ± {50 * (interval[1] - interval[0]):.1f}"
    enlarged = max(
        (name for name in trials if name.startswith(("dilated", "wide-field"))), key=lambda name: trials[name].mean()
    )
    found = scipy.stats.ttest_rel(trials[arm], trials[enlarged]).confidence_interval()
    gap = 100 * (trials[arm] - trials[enlarged]).mean()
    last = headline.gains_table(study, arm, budgets).splitlines()[-1].strip("| ").split(" | ")
    assert last[0] == "best enlarged field, not averaged"
    assert last[2] == f"{gap:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def test_the_targets_are_judged_from_the_trials() -> None:
    """Against scipy on the raw rows; a target within the interval is undecided."""
    targets, tables = neighbours("targets", "tables")
    studies = {
        name: tables.Study.load(name)
        for name in ("digit-pairs", "camvid", "classification", "depth", "cifar10", "new-seeds")
    }
    found = {(each.text[:15], each.where, each.against): each for each in targets.targets(studies)}
    cell = studies["camvid"].cells["tiny-96-chosen"]
    trials = {
        arm: np.array([row["score"] for row in cell.numbers["rows"] if row["arm"] == arm])
        for arm in ("none", "dilated", "das-folded")
    }
    for against, least in (("none", 4), ("dilated", 2)):
        each = found["CamVid 96 x 128", "camvid, tiny-96-chosen", against]
        expected = scipy.stats.ttest_rel(trials["das-folded"], trials[against])
        interval = expected.confidence_interval()
        assert each.mean == pytest.approx(100 * (trials["das-folded"] - trials[against]).mean())
        assert (each.low, each.high) == pytest.approx((100 * interval.low, 100 * interval.high))
        assert each.least == least
    left = found["digit pairs: da", "digit-pairs, left", ""]
    assert (left.least, left.outcome) == (93, "met")
    made = [targets.Target("", "", "", 2.0, mean, mean - 1, mean + 1).outcome for mean in (0.5, 1.5, 2.5, 3.5)]
    assert made == ["NOT met", "undecided", "undecided", "met"]


def test_dilation_and_motion_are_compared_from_the_trials() -> None:
    """Also holds the sentence of the results: nowhere are both better than the better one of the two."""
    combination, tables = neighbours("combination", "tables")
    study = tables.Study.load("combined")
    rows = combination.combination_table(study).splitlines()[2:]
    assert len(rows) == len(study.cells) / 2 == 4
    for row in rows:
        name, seeds, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        scores = [
            {trial["seed"]: 100 * trial["score"] for trial in study.cells[cell].numbers["rows"] if trial["arm"] == arm}
            for arm in ("none", "das-folded")
            for cell in (name, f"{name}-dilated")
        ]
        assert [cell.split()[0] for cell in cells[:4]] == [f"{np.mean(list(each.values())):.1f}" for each in scores]
        *_, dilated, motion, both = ([each[seed] for seed in sorted(scores[0])] for each in scores)
        assert len(both) == int(seeds)
        for cell, alone in zip(cells[4:6], (dilated, motion), strict=True):
            expected = scipy.stats.ttest_rel(both, alone).confidence_interval()
            gap = np.subtract(both, alone).mean()
            assert cell == f"{gap:+.1f} ({expected.low:+.1f} to {expected.high:+.1f})"
        better = max(dilated, motion, key=np.mean)
        assert scipy.stats.ttest_rel(both, better).confidence_interval().low < 0


def test_the_chart_answers_from_the_trials() -> None:
    """Every difference and p against scipy on the raw rows; Holm's by its definition; the words by the outcomes."""
    chart, tables = neighbours("chart", "tables")
    names = (
        "digit-pairs",
        "camvid",
        "object-size",
        "classification",
        "depth",
        "ablations",
        "cifar10",
        "new-seeds",
        "short-search",
        "combined",
    )
    found = chart.chart({name: tables.Study.load(name) for name in names})
    raw: list[float] = []
    for each in found.corrected:
        study, cell = each.where.split(", ")
        cells = json.loads((ROOT / "benchmarks" / "results" / f"{study}.json").read_text())["cells"]
        other = each.opponent.strip("`")
        places = [(cell, each.arm, each.budget), (cell, other, each.budget)]
        if other in cells:
            places[1] = (other, each.arm, each.budget)
        elif (each.arm, other) == ("das", "das-folded") and f"{cell}-video" in cells:
            places[0] = (
                f"{cell}-video",
                each.arm,
                "equal epochs",
            )  # of three frames each, a third of the epochs of `cell`
        ours, theirs = (
            {row["seed"]: row["score"] if row["score_tta"] is None else row["score_tta"] for row in cells[place]["rows"]
             if (row["arm"], row["reading"]) == (arm, budget)}
            for place, arm, budget in places
        )  # fmt: skip
        operations = [
            {
                row["flops"] * row["epochs"]
                for row in cells[place]["rows"]
                if (row["arm"], row["reading"]) == (arm, budget)
            }
            for place, arm, budget in places
        ]
        assert each.budget != "equal compute" or max(operations[0]) == pytest.approx(max(operations[1]), rel=0.1)
        common = sorted(ours.keys() & theirs.keys())
        assert len(common) == each.gap.pairs >= 3
        expected = scipy.stats.ttest_rel([ours[seed] for seed in common], [theirs[seed] for seed in common])
        assert each.gap.p == pytest.approx(expected.pvalue)
        raw.append(expected.pvalue)
    ordered = sorted(raw)
    steps = [min(1.0, (len(ordered) - place) * p) for place, p in enumerate(ordered)]
    assert sorted(found.corrected.values()) == pytest.approx(list(np.maximum.accumulate(steps)))
    for question in found.questions:
        outcomes = [tables.outcome(each.gap) for each in question.comparisons]
        sure = {word for word, each in zip(outcomes, question.comparisons, strict=True) if found.corrected[each] < 0.05}
        some = {
            frozenset(): "Not shown",
            frozenset({"better"}): "Yes" if set(outcomes) == {"better"} else "In part",
            frozenset({"worse"}): "No",
            frozenset({"better", "worse"}): "Mixed",
        }
        assert found.answer(question) == some[frozenset(sure)]
        assert len(outcomes) >= 4
