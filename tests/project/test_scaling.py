"""The model of docs/scaling.md, against an all-reduce that is played step by step; and what its page shows of a record."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module("pages")


def played(workers: int, size: float) -> tuple[float, int]:
    """Bytes that each worker of a ring sends until all hold every sum, and the number of its messages."""
    held = [[float(10 * worker + part) for part in range(workers)] for worker in range(workers)]
    sums = [sum(parts[part] for parts in held) for part in range(workers)]
    sent, messages = 0.0, 0
    for gathers in (False, True):  # partial sums travel once around, then whole ones
        for step in range(workers - 1):
            moving = [(worker, (worker + gathers - step) % workers) for worker in range(workers)]
            for worker, part, value in [(worker, part, held[worker][part]) for worker, part in moving]:
                following = held[(worker + 1) % workers]
                following[part] = value if gathers else following[part] + value
            sent, messages = sent + size / workers, messages + 1
    assert held == [sums] * workers
    return sent, messages


@pytest.mark.parametrize("workers", [2, 3, 8, 64])
def test_an_exchange_takes_as_long_as_a_ring_that_is_played(workers: int, scripts: Any) -> None:
    parameters, link, latency, step = 25e6, 25e9, 2e-5, 0.01
    sent, messages = played(workers, 4 * parameters)
    found = scripts.scaling.predicted(step, parameters, workers, bytes_per_second=link, latency=latency)
    assert found.exchange == pytest.approx(sent / link + messages * latency)
    assert found.step == pytest.approx(step + found.exchange)
    assert found.overlapped == pytest.approx(max(step, step / 3 + found.exchange))
    assert found.images_per_second(64)[0] == pytest.approx(workers * 64 / found.step)


def test_one_worker_exchanges_nothing(scripts: Any) -> None:
    alone = scripts.scaling.predicted(0.2, 25e6, 1, bytes_per_second=1.0)
    assert (alone.exchange, alone.step, alone.overlapped) == (0.0, 0.2, 0.2)


def test_a_prediction_from_own_numbers_is_printed(scripts: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--predict", "--step_ms", "100", "--parameters", "25e6", "--gpus", "1", "2", "--gigabytes_per_s", "1"]
    scripts.scaling.main(
        [*words, "--microseconds", "0", "--images_per_gpu", "10", "--images", "3600", "--epochs", "100"]
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert " ".join(lines[1]) == "1 - 0.00 100.0 to 100.0 100 to 100 100 to 100 % 1.0 to 1.0"
    assert lines[2][:6] == ["2", "1", "100.00", "133.3", "to", "200.0"]
    with pytest.raises(SystemExit):
        scripts.scaling.options_of(["--gpus", "1", "8", "64", "--gigabytes_per_s", "25"])


def test_the_page_is_made_of_the_record(scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scripts.scaled(tmp_path / "scaling.json") is None
    record = sys.modules["record"]
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    kept = record.Record("scaling", "A question?", vars(scripts.scaling.options_of([])))
    seconds = {"alone": [0.1, 0.1], "apart": [0.2, 0.2], "exchange": [0.05, 0.05]}
    sizes = {"bytes": 4e6, "parameters": 1_000_000, "buffers": 80}
    scripts.scaling.record_case(kept, "tiny-resnet", "video", {**seconds, **sizes, "together": [0.26, 0.25]})
    scripts.scaling.record_case(kept, "tiny-resnet", "folded", {**seconds, **sizes, "together": [0.5, 0.5]})
    kept.row("resnet50, video: an image", "parameters", [25.0], unit="million")
    kept.row("resnet50, video: an image", "operations of a forward pass", [10.0], unit="GFLOP")
    kept.finish()
    found = scripts.scaled(tmp_path / "scaling.json")
    assert found["verdicts"][0].startswith(
        "tiny-resnet, video: the step of two workers is 1.02 times the model's (1.00 to 1.04"
    )
    assert ["supports" in line for line in found["verdicts"]] == [True, False]
    assert "| tiny-resnet, video: 64 images of 40 x 40 | 100 | 200 | 50.0 | 255 | 250 | 1.000 |" in found["measured"]
    assert found["predicted"]["video"]["step"] == "38.4"  # 3 x 64 images x 10 GFLOP at 50 TFLOP/s
    assert json.loads((tmp_path / "scaling.json").read_text())["settings"]["teraflops"] == 50
