"""What every arm may spend, against sums made by hand; and where the cost of a search is not known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldshift.cli import main
from fieldshift.data.published.digit_pairs import scenes
from fieldshift.errors import UserError
from fieldshift.experiment.budget import Budget, TuningCost, readings_of, with_known_costs
from fieldshift.motions import Policy
from fieldshift.readings import BUDGETS, EQUAL_COMPUTE, EQUAL_EPOCHS, READINGS, SEARCH_INCLUDED
from fieldshift.run_folder import plain, read_result
from fieldshift.search import load_space
from pipelines.builtin_data import notes_on
from search_spaces import motion_spaces

QUICK = [
    "--loading.train_limit", "80", "--loading.test_limit", "40", "--recipe.epochs", "2", "--recipe.batch", "32",
    "--tracking.enabled", "false", "--cluster.trials_at_once", "0", "--tta_copies", "1",
]  # fmt: skip
SEARCHED = ["--search.epochs", "1", "--search.tune_epochs", "0", "--search.batch", "32"]

# Operations in units of one image forward through the plain network; an epoch has 100 images and costs 3 units per image.
PLAIN, VIDEO = 10, 30
SEARCHES = {"das": 27_000.0, "das-folded": 9_000.0, "none": 0.0, "affine": 0.0, "replicate": 0.0, "wide-field": 0.0}
FLOPS = {"das": VIDEO, "das-folded": PLAIN, "none": PLAIN, "affine": PLAIN, "replicate": VIDEO, "wide-field": 2 * PLAIN}
EPOCHS = {  # 6 epochs of the video cost 6 * 3 * 100 * 30 = 54,000
    "das": (6, 6, 6),  # the dearest search is its own
    "das-folded": (6, 18, 24),  # 54,000 + 27,000 - 9,000 = 72,000, an epoch costs 3,000
    "none": (6, 18, 27),  # 81,000 / 3,000
    "affine": (6, 18, 27),
    "replicate": (6, 6, 9),  # 81,000 / 9,000
    "wide-field": (6, 9, 14),  # 81,000 / 6,000 = 13.5
}


@pytest.mark.parametrize("arm", EPOCHS)
def test_epochs_are_what_the_budget_leaves(arm: str) -> None:
    budget = Budget(epochs=6, images=100, video=VIDEO, flops=FLOPS, searches=SEARCHES)
    assert tuple(budget.epochs_at(arm, reading) for reading in READINGS) == EPOCHS[arm]
    assert budget.charged(arm, SEARCH_INCLUDED) == SEARCHES[arm]
    spent = 3 * 100 * FLOPS[arm] * budget.epochs_at(arm, SEARCH_INCLUDED) + budget.charged(arm, SEARCH_INCLUDED)
    assert spent == pytest.approx(81_000, abs=3 * 100 * FLOPS[arm] / 2)
    record = budget.record(READINGS)
    assert record["dearest_search"] == 27_000
    assert tuple(record["arms"][arm]["epochs"].values()) == EPOCHS[arm]


@pytest.mark.parametrize(
    ("samples", "search", "epochs"),
    [
        # A sample costs 10 * (E * (3 * 80 + 20) + 20) = 2,600 E + 200; two of 18 epochs 94,000: dearer than the search, so
        # every arm may spend it, and RandAugment trains as long as at equal compute.
        (2, 27_000.0, 18),
        # 54,000 + 400,000 - 400 = 453,600 is left for E * (3,000 + 2 * 2,600): 55.3.
        (2, 400_000.0, 55),
    ],
)
def test_randaugment_pays_its_tuning_at_the_epochs_it_is_used_with(samples: int, search: float, epochs: int) -> None:
    tuning = TuningCost(samples=samples, learned=80, scored=20)
    flops, searches = (
        {"randaugment": PLAIN, "das": VIDEO, "none": PLAIN},
        {"randaugment": 0.0, "das": search, "none": 0.0},
    )
    budget = Budget(epochs=6, images=100, video=VIDEO, flops=flops, searches=searches, tuning=tuning)
    assert budget.epochs_at("randaugment", EQUAL_COMPUTE) == 18
    assert budget.epochs_at("randaugment", SEARCH_INCLUDED) == epochs
    assert budget.charged("randaugment", SEARCH_INCLUDED) == samples * (2_600 * epochs + 200)
    dearest = max(search, samples * (2_600 * 18 + 200))
    assert budget.most_expensive == dearest
    assert budget.epochs_at("none", SEARCH_INCLUDED) == round((54_000 + dearest) / 3_000)
    spent = 3_000 * epochs + budget.charged("randaugment", SEARCH_INCLUDED)
    assert spent <= 54_000 + dearest


@pytest.mark.parametrize("unknown", SEARCHES)
def test_the_dearest_search_is_unknown_where_one_is(unknown: str) -> None:
    searches = {**SEARCHES, unknown: math.nan}
    budget = Budget(epochs=6, images=100, video=VIDEO, flops=FLOPS, searches=searches)
    assert math.isnan(budget.most_expensive)
    assert plain(budget.record(READINGS[:2]))["dearest_search"] is None


def test_where_nothing_is_searched_the_readings_at_equal_compute_are_one() -> None:
    budget = Budget(epochs=6, images=100, video=VIDEO, flops=FLOPS, searches=dict.fromkeys(FLOPS, 0.0))
    for arm in FLOPS:
        assert budget.epochs_at(arm, SEARCH_INCLUDED) == budget.epochs_at(arm, EQUAL_COMPUTE)


def test_the_reading_with_searches_needs_their_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert readings_of(None) == list(READINGS)
    assert readings_of([SEARCH_INCLUDED, EQUAL_EPOCHS]) == [EQUAL_EPOCHS, SEARCH_INCLUDED]
    assert readings_of(["search-included", "equal-epochs"]) == [EQUAL_EPOCHS, SEARCH_INCLUDED]
    with pytest.raises(UserError, match="Did you mean 'search-included'"):
        readings_of(["serch-included"])
    everything = list(READINGS)
    assert with_known_costs(everything, named=True, searched=True, unknown=[]) == everything
    assert with_known_costs(everything, named=False, searched=False, unknown=[]) == everything[:2]
    assert with_known_costs(everything, named=True, searched=False, unknown=[]) == everything
    assert with_known_costs(everything[:2], named=True, searched=True, unknown=["p.json"]) == everything[:2]
    capsys.readouterr()
    assert with_known_costs(everything, named=False, searched=True, unknown=["p.json"]) == everything[:2]
    assert "p.json does not record the cost of its search" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(UserError, match=r"p\.json does not record the cost of its search"):
        with_known_costs(everything, named=True, searched=True, unknown=["p.json"])


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison at all readings that made its own search."""
    out = tmp_path_factory.mktemp("compared") / "out"
    words = ["compare", "--arms", "das-folded", "none", "affine", "--seeds", "1", "--out", str(out), *QUICK, *SEARCHED]
    assert main(words) == 0
    return out


def test_a_comparison_trains_for_the_search_that_it_counted(compared: Path) -> None:
    result = read_result(compared)
    rows = {(row["arm"], row["reading"]): row for row in result["rows"]}
    assert {reading for _, reading in rows} == set(READINGS)
    cost = result["searches"][0]["policy"]["found"]["cost"]
    # One pass over halves of 40 images in batches of 32; one decision between the whole and 11 candidates, on one half.
    assert (cost["weights"], cost["alpha"], cost["scored"]) == (
        32,
        32,
        40 * (1 + len(load_space("affine-one").operations)),
    )
    assert cost["operations"] == cost["flops"] * (3 * 32 + 2 * 32 + cost["scored"])
    video = result["budget"]["video_flops"]
    for arm in ("none", "affine", "das-folded"):
        own = cost["operations"] if arm == "das-folded" else 0
        per_epoch = 3 * 64 * rows[arm, SEARCH_INCLUDED]["flops"]
        budget = 3 * 64 * video * 2 + cost["operations"]
        assert rows[arm, SEARCH_INCLUDED]["epochs"] == round((budget - own) / per_epoch)
        assert rows[arm, SEARCH_INCLUDED]["search_operations"] == own
        assert rows[arm, EQUAL_EPOCHS]["epochs"] == 2
        assert rows[arm, EQUAL_COMPUTE]["epochs"] == 6
    trials = {path.parent.name for path in compared.rglob("weights.safetensors")}
    assert len(trials) == 8  # das-folded trains as long at the readings of equal compute: its search is the dearest
    assert rows["affine", EQUAL_EPOCHS]["views"] == 2
    assert rows["affine", EQUAL_EPOCHS]["device_seconds"] > 0


def test_a_searched_policy_brings_its_cost_and_a_written_one_has_none(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "--arms", "das-folded", "none", "--seeds", "1", *QUICK, "--policy"]
    searched = compared / "searches" / "folded-seed0"
    assert main([*words, str(searched), "--budgets", "search-included", "--out", str(tmp_path / "searched")]) == 0
    there, here = (
        {row["arm"]: row["epochs"] for row in read_result(out)["rows"] if row["reading"] == SEARCH_INCLUDED}
        for out in (compared, tmp_path / "searched")
    )
    assert here == {arm: there[arm] for arm in here}
    config = (tmp_path / "searched" / "config.yaml").read_text()
    assert "operations:" in config  # so that the configuration runs again
    written = str(Policy.single("translate_x", 0.4, frames=3).save(tmp_path / "policy.json"))
    capsys.readouterr()
    assert main([*words, written, "--budgets", *BUDGETS, "--out", str(tmp_path / "refused")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "policy.json does not record the cost of its search" in error
    assert not (tmp_path / "refused").exists()
    assert main([*words, written, "--out", str(tmp_path / "without")]) == 0
    assert "without the reading at equal compute, search included" in " ".join(capsys.readouterr().out.split())
    rows = read_result(tmp_path / "without")["rows"]
    assert {row["reading"] for row in rows} == set(READINGS[:2])
    assert {(row["arm"], row["search_operations"]) for row in rows} == {("das-folded", None), ("none", 0.0)}


def test_a_comparison_of_before_is_shown_again(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results of before know no passes, no device seconds and no charges: what is unknown is a dash, nothing crashes."""
    path = compared / "result.json"
    whole = path.read_text()
    result = json.loads(whole)
    del result["budget"]
    for row in result["rows"]:
        for name in ("views", "device_seconds_per_epoch", "search_operations"):
            del row[name]
    words = [
        "compare",
        "--arms",
        "das-folded",
        "none",
        "affine",
        "--seeds",
        "1",
        "--out",
        str(compared),
        *QUICK,
        *SEARCHED,
    ]
    try:
        path.write_text(json.dumps(result))
        assert main([*words, "--resume"]) == 0
    finally:
        path.write_text(whole)
    assert "At equal compute, search included, das-folded (accuracy" in capsys.readouterr().out


def test_the_note_on_the_built_in_data_is_true() -> None:
    (note,) = notes_on("digit-pairs-top")
    assert "18 px or 0.45 of the side on average" in note
    assert notes_on("folder:x") == notes_on("cifar10") == []
    made = scenes("left", True, 0, 400)
    columns = np.arange(40)
    distances = []
    for image, mask in zip(made["images"][:, 0] / 255.0, made["masks"], strict=True):
        ink = np.where(image > 0.3, image, 0.0)
        left = np.flatnonzero(mask.any(0))
        first = ink[:, : left.max() + 1].sum(0) @ columns[: left.max() + 1] / ink[:, : left.max() + 1].sum()
        rest = ink[:, left.max() + 2 :].sum(0) @ columns[left.max() + 2 :] / ink[:, left.max() + 2 :].sum()
        distances.append(rest - first)
    assert np.mean(distances) / 40 == pytest.approx(0.45, abs=0.01)
    grids: dict[str, Any] = {name: load_space(name).grid for name in motion_spaces.names()}
    largest = {name: max(map(abs, grid["translate_x"])) for name, grid in grids.items() if "translate_x" in grid}
    assert len(largest) >= 2
    assert set(largest.values()) == {0.45}
