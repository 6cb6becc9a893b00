"""`predict` of a classifier: files and folders of them, in batches and one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fieldshift.cli import main
from fieldshift.data.loading import LoadingConfig
from fieldshift.training import load_network
from pipelines import pictures, using

COUNT = 300  # more than the 256 of a batch


@pytest.fixture(scope="module")
def folder(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in folders of a folder, a hidden one, and a file that is none."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(COUNT):
        (root / f"{number % 3}").mkdir(exist_ok=True)
        made.noise(number).save(root / f"{number % 3}" / f"{number:03}.png")
    made.noise(0).save(root / ".hidden.png")
    (root / "notes.txt").write_text("no picture\n")
    return root


@pytest.mark.parametrize("memory", [0, 2048])
def test_a_folder_is_predicted_as_each_of_its_pictures(
    memory: int, made: Any, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the decoded pictures fit in memory, or are decoded again for the prediction."""
    from pipelines import run_data

    monkeypatch.setattr(run_data, "loading_of", lambda _run: LoadingConfig(memory=memory, workers=2))
    first = folder / "2" / "002.png"
    rows = using.predict(run=str(made.run), images=[str(first), str(folder)], top=2)
    assert "  reading 100%" in (said := capsys.readouterr().out)
    assert "  predicting 100%" in said
    files = [str(first), *map(str, sorted(folder.glob("[0-9]/*.png")))]
    assert [row["file"] for row in rows[::2]] == files
    assert len(files) == COUNT + 1
    network, card = load_network(made.run)
    reader = card.reader()
    for place in (0, 1, 255, 256, COUNT):
        with torch.no_grad():
            alone = network.fuse(network(card.plan().evaluation_video(reader.image(files[place])[None]))).softmax(-1)[0]
        found = {row["class"]: row["probability"] for row in rows[2 * place : 2 * place + 2]}
        assert found == pytest.approx(dict(zip(card.classes, alone.tolist(), strict=True)), abs=1e-5)


def test_json_has_nothing_else_in_its_output(made: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--run", str(made.run), "--json", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([json.loads(line)["file"] for line in lines]) == COUNT


def test_a_bad_picture_among_many_stops_before_any_is_predicted(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        made.noise(number).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"\x89PNG no picture")
    assert main(["predict", "--run", str(made.run), str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"{tmp_path / '1.png'} cannot be decoded" in " ".join(shown.err.split())


def test_a_folder_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture\n")
    with pytest.raises(ValueError, match=r"is a folder without pictures; name pictures, or a folder of them\.$"):
        pictures.picture_files([str(tmp_path)])
    (tmp_path / "link.png").symlink_to("/nowhere.png")
    with pytest.raises(
        ValueError, match=r"link\.png links to a missing file; copy the file there or delete the link\.$"
    ):
        pictures.picture_files([str(tmp_path)])
    with pytest.raises(ValueError, match=r"nothing\.png does not exist; check the path\.$"):
        pictures.picture_files([str(tmp_path / "nothing.png")])
