"""Run folders whose files were cut off, emptied or are of something else: every command that reads one says so in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldshift.cli import main

SMALL = ["--loading.train_limit", "40", "--loading.test_limit", "20", "--tracking.enabled", "false"]

FOREIGN: dict[str, list[bytes]] = {
    "result.json": [b"{}", b"[]", b"null", b'{"schema": "other", "version": 1}', b'{"schema": "fieldshift.result"}'],
    "network.json": [
        b"{}",
        b"[]",
        b'"text"',
        b'{"schema": "fieldshift.network", "version": 1}',
        b"\x89PNG\r\n\x1a\n\xff",
    ],
    "config.yaml": [b"[1, 2]\n", b"{unclosed\n", b"\xff\xfe\x00"],
    "weights.safetensors": [b"{}", b"\x00" * 64, b"PK\x03\x04"],
    "data.json": [b"{}", b"[]", b'{"schema": "fieldshift.data", "version": 1}'],
}
"""What another program may have written there."""


def damages(file: str, whole: bytes) -> dict[str, bytes]:
    """The contents that a damaged file has, by name."""
    cut = {"empty": b"", "half": whole[: len(whole) // 2], "one byte less": whole.rstrip()[:-1]}
    if file == "config.yaml":
        cut = {"empty": b""}  # half a YAML file is YAML: what is left of it is compared option by option
    return cut | {f"foreign {number}": content for number, content in enumerate(FOREIGN[file])}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged") / "run"
    assert main(["train", "--out", str(folder), "--recipe.epochs", "1", *SMALL]) == 0
    Image.fromarray(np.zeros((40, 40), dtype=np.uint8)).save(folder.parent / "image.png")
    return folder


# What each command reads of a run, and how it is called on the folder RUN.
READERS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "evaluate": (
        ["evaluate", "--run", "RUN"],
        ("network.json", "weights.safetensors", "config.yaml", "data.json"),
    ),
    "predict": (["predict", "--run", "RUN", "IMAGE"], ("network.json", "weights.safetensors")),
    "export": (["export", "--run", "RUN", "--out", "NEW"], ("network.json", "weights.safetensors")),
    "receptive-field": (
        ["compare-fields", "--runs", "RUN", "--out", "NEW", "--images", "2", "--tracking.enabled", "false"],
        ("network.json", "weights.safetensors", "config.yaml", "data.json"),
    ),
    "train --resume": (
        ["train", "--out", "RUN", "--recipe.epochs", "1", "--resume", *SMALL],
        ("result.json", "config.yaml"),
    ),
}
CASES = [
    (name, file, damage)
    for name, (_, files) in READERS.items()
    for file in files
    for damage in damages(file, b"0123456789")
]


@pytest.mark.parametrize(("name", "file", "damage"), CASES)
def test_a_damaged_file_is_one_line(
    name: str, file: str, damage: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    content = damages(file, (run / file).read_bytes())[damage]
    (folder / file).write_bytes(content)
    places = {"RUN": str(folder), "NEW": str(tmp_path / "new"), "IMAGE": str(run.parent / "image.png")}
    capsys.readouterr()
    status = main([places.get(word, word) for word in READERS[name][0]])
    error = capsys.readouterr().err
    assert (status, error.count("\n")) == (2, 1), error
    assert file in error or str(folder) in error
    assert (folder / file).read_bytes() == content
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("size", [0, 5]), ("size", ["x", 3]), ("size", [40]), ("size", [40.0, 40.0]), ("std", [0.0]), ("std", [-0.1]),
        ("std", [0.1, 0.1, 0.1]), ("mean", []), ("mean", [float("nan")]), ("mean", ["a"]), ("classes", []), ("classes", [1, 2]),
        ("channels", 0),
    ],
)  # fmt: skip
def test_a_value_that_no_image_can_be_read_with_is_named(
    entry: str, value: object, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    card = json.loads((folder / "network.json").read_text())
    (folder / "network.json").write_text(json.dumps({**card, entry: value}))
    capsys.readouterr()
    assert main(["predict", "--run", str(folder), str(run.parent / "image.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{folder / 'network.json'} has no usable {entry}" in line


@pytest.mark.parametrize("rows", [None, [], [1, 2], {"frames": 3}, [{"frames": 3, "seed": 0}], [{"frames": "x"}]])
def test_a_frame_sweep_that_lists_no_networks(rows: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {"schema": "fieldshift.result", "version": 1, "command": "sweep-frames", "rows": rows}
    (tmp_path / "result.json").write_text(
        json.dumps({key: value for key, value in values.items() if value is not None})
    )
    status = main(["compare-fields", "--runs", str(tmp_path), "--out", str(tmp_path / "new")])
    error = capsys.readouterr().err
    assert (status, error.count("\n")) == (2, 1), error
    assert "does not list the networks of a frame sweep" in error
    assert not (tmp_path / "new").exists()
