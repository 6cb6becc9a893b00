"""What a search is given by each command that searches, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from fieldshift.cli import main
from pipelines.pages import search_view

SMALL = ["--loading.train_limit", "64", "--loading.test_limit", "16", "--tracking.enabled", "false"]
QUICK = ["--search.epochs", "1", "--search.tune_epochs", "0", "--search.batch", "16"]
RECIPE = ["--recipe.epochs", "1", "--recipe.batch", "16", "--recipe.crop", "2", "--recipe.flip", "0.5",
          "--recipe.scale", "1.2", "--recipe.label_smoothing", "0.1"]  # fmt: skip
HERE = ["--cluster.workers", "0", "--cluster.trials_at_once", "0"]
NAMES = ("flip", "crop", "scale", "label_smoothing")

SEARCHING = {
    "compare": ["compare", "--arms", "das-folded", "--seeds", "1", "--budgets", "equal-epochs", *RECIPE, *HERE],
    "study": ["study", "--form", "folded", "--arms", "none", "--seeds", "1", "--stages", "search", *RECIPE, *HERE],
}


def settings_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text())["found"]["settings"] for path in out.rglob("policy.json")]


@pytest.mark.parametrize(("edges", "are_all_folded"), [(2, True), (256, False)])
def test_the_saved_view_of_a_search_fits_for_many_edges(edges: int, are_all_folded: bool) -> None:
    labels = [f"operation {number} then rotate" for number in range(16)]
    names = [f"place layer{number // 8}.{number % 8}.conv2 group {number % 7}" for number in range(edges)]
    metrics = {f"{kind}/{name}/{label}" for kind in ("alpha", "harm") for name in names for label in labels}
    view = search_view("12345678", metrics | {f"margin/{name}" for name in names} | {"search/entropy", "train/loss"})
    assert view.fits
    folded = {section.name for section in view.sections if section.folded}
    assert folded >= {"search", "train", "val", "margin"}
    assert (folded >= {f"alpha/{name}" for name in names}) == are_all_folded


@pytest.mark.parametrize("command", SEARCHING)
def test_a_search_sees_what_its_training_sees(command: str, tmp_path: Path) -> None:
    assert main([*SEARCHING[command], *QUICK, *SMALL, "--out", str(tmp_path / "out")]) == 0
    found = settings_of(tmp_path / "out")
    assert found
    for settings in found:
        assert tuple(settings[name] for name in NAMES) == (0.5, 2, 1.2, 0.1)


def test_a_search_alone_has_options_of_its_own_and_draws_its_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", *QUICK, *SMALL, "--cluster.workers", "0"]
    assert main([*words, "--out", str(tmp_path / "default")]) == 0
    assert main([*words, "--search.crop", "3", "--out", str(tmp_path / "own")]) == 0
    shown = capsys.readouterr().out
    for folder in (tmp_path / "default", tmp_path / "own"):
        with Image.open(folder / "search.png") as figure:
            assert figure.size[0] > 600
        assert str(folder / "search.png") in "".join(shown.split("\n"))
        history = json.loads((folder / "result.json").read_text())["history"]
        table = pd.read_csv(folder / "result.csv")
        assert [*table["pass"]] == [row["pass"] for row in history]
        assert set(table.columns) >= {*history[0]}
    (default,), (own,) = settings_of(tmp_path / "default"), settings_of(tmp_path / "own")
    assert tuple(default[name] for name in NAMES) == (0.0, 0, 1.0, 0.0)
    assert tuple(own[name] for name in NAMES) == (0.0, 3, 1.0, 0.0)
