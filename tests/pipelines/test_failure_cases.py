"""A segmentation run leaves a page of its worst and best images, with what stands beside the mIoU."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import pipelines
from fieldshift.training import Recipe
from fieldshift.training.map_table import read_maps


def test_training_and_evaluation_leave_the_page(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = pipelines.train(
        data=f"voc:{scenes}", network="tiny-resnet-fcn", recipe=Recipe(epochs=1, batch=4), out=str(tmp_path / "train")
    )
    assert "failures.html" in capsys.readouterr().out
    maps = read_maps(trained.folder)
    assert [each.index for each in maps] == list(range(7))
    assert trained.row["boundary_f"] == pytest.approx(np.mean([each.boundary for each in maps]))
    assert trained.row["extra_components"] == pytest.approx(np.mean([each.extra_components for each in maps]))
    page = (trained.folder / "failures.html").read_text()
    worst, best = (part(maps, key=lambda each: (each.overlap, each.boundary)) for part in (min, max))
    for each in (worst, best):
        assert f"test{each.index}" in page
    assert "mIoU" in page
    assert "boundary F-score" in page
    pipelines.evaluate(run=str(trained.folder), out=str(tmp_path / "evaluate"))
    assert read_maps(tmp_path / "evaluate") == maps
    with (tmp_path / "evaluate" / "maps.csv").open(newline="") as stream:  # each row names its image
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == [str(scenes / "JPEGImages" / f"test{each.index}.jpg") for each in maps]
    assert (tmp_path / "evaluate" / "failures.html").is_file()


def test_names_of_files_that_are_not_utf_8_are_escaped_on_the_page(scenes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for folder, copied in (("JPEGImages", "images"), ("SegmentationClass", "masks")):
        (data / copied).mkdir(parents=True)
        for path in (scenes / folder).iterdir():
            shutil.copyfile(path, data / copied / os.fsdecode(b"caf\xe9" + path.name.encode()))
    trained = pipelines.train(
        data=f"voc:{data}", network="tiny-resnet-fcn", recipe=Recipe(epochs=1, batch=4), out=str(tmp_path / "train")
    )
    assert "caf\\udce9" in (trained.folder / "failures.html").read_text()
    pipelines.evaluate(run=str(trained.folder), out=str(tmp_path / "evaluate"))
    assert (tmp_path / "evaluate" / "result.json").is_file()


def test_a_classification_run_has_no_such_page(tmp_path: Path) -> None:
    from fieldshift.data import LoadingConfig

    trained = pipelines.train(
        recipe=Recipe(epochs=1, batch=16), loading=LoadingConfig(train_limit=32, test_limit=16), out=str(tmp_path / "t")
    )
    assert not (trained.folder / "failures.html").exists()
    assert "boundary_f" not in trained.row
