"""The committed notebooks: words before every cell, outputs that a reader enjoys, and none that names a machine.

pytest executes them too (nbmake).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
OWN = re.compile(r"(?<![\w.])/(?:tmp|root|home|work|usr|var|opt)/|\b\w+://(?:127|localhost)")
NOISE = re.compile(r"\d+%\s|\x1b\[|\d{4}-\d\d-\d\d \d\d:\d\d|WARNING|Warning:")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> Any:
    found = nbformat.read(request.param, as_version=4)
    nbformat.validate(found)
    return found


def outputs(notebook: Any) -> list[tuple[Any, Any]]:
    return [(cell, output) for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures(notebook: Any) -> list[Any]:
    return [
        cell for cell, output in outputs(notebook) if any(kind.startswith("image/") for kind in output.get("data", {}))
    ]


def test_every_cell_of_code_follows_words_and_ran_once_in_order(notebook: Any) -> None:
    cells = notebook.cells
    assert cells[0].source.startswith("# ")
    code = [place for place, cell in enumerate(cells) if cell.cell_type == "code"]
    assert all(cells[place - 1].cell_type == "markdown" for place in code)
    assert [cells[place].execution_count for place in code] == list(range(1, len(code) + 1))


def test_it_starts_from_the_pipelines_and_says_what_to_look_at(notebook: Any) -> None:
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    words = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert any(re.search(r"\bpipelines\.\w+\(", source) for source in code[:4])
    assert words.count("**Look at**") >= 5


def test_it_has_pictures_with_words_and_tables_or_text(notebook: Any) -> None:
    assert len(pictures(notebook)) >= 2
    for cell in pictures(notebook):
        assert len(cell.metadata.get("alt", "").split()) >= 6, cell.source
    assert len(outputs(notebook)) > len(pictures(notebook))


def test_its_outputs_are_neither_errors_nor_noise_and_name_no_machine(notebook: Any) -> None:
    for _, output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
        data = {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")}
        text = output.get("text", "") + "".join(map(str, data.values()))
        assert not OWN.search(text), text
        assert not NOISE.search(text), text


def test_there_are_five_in_order_and_all_are_small() -> None:
    assert [path.stem.split("_")[0] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]
    assert all(path.stat().st_size < 2**20 for path in NOTEBOOKS)
