"""result.csv beside result.json: the same numbers, one row per trial, sample, arm, layer or pass."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fieldshift.result_table import TABLES, result_table
from fieldshift.run_folder import open_run_folder

ROWS = [{"arm": "none, plain", "score": 0.5, "history": [{"loss": 1.0}]}, {"arm": "das", "seed": 1, "size": [3, 4]}]


@pytest.mark.parametrize("name", TABLES)
def test_a_results_rows_are_written_beside_it(tmp_path: Path, name: str) -> None:
    folder = open_run_folder(tmp_path, "compare", {}, resume=False)
    written = folder.write_result({name: ROWS, "notes": ["text"]})
    assert written[name] == ROWS
    found = pd.read_csv(tmp_path / "result.csv", dtype=str, keep_default_na=False)
    assert found.to_dict("records") == [
        {"arm": "none, plain", "score": "0.5", "seed": "", "size": ""},
        {"arm": "das", "score": "", "seed": "1", "size": "3 4"},
    ]


def test_a_single_networks_numbers_are_one_row() -> None:
    of_training = result_table({"row": {"arm": "das", "score": 0.5}, "data": {"digest": "x"}, "seconds": 3})
    assert of_training == "arm,score\ndas,0.5\n"
    of_evaluation = result_table({"score": 0.25, "samples": 8, "data": {"digest": "x"}, "maps": {"mean": 0.5}})
    assert of_evaluation == "score,samples,maps.mean\n0.25,8,0.5\n"


@pytest.mark.parametrize("values", [{}, {"rows": []}, {"searches": [{"seed": 1}], "seconds": 3}])
def test_a_result_without_a_table_has_no_file(tmp_path: Path, values: dict[str, object]) -> None:
    open_run_folder(tmp_path, "study", {}, resume=False).write_result(values)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "result.json"]
