"""RandAugment is tuned for as many epochs as it is used with, at every reading, and what that costs is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

import fieldshift.experiment.tuning
from fieldshift.cli import main
from fieldshift.readings import EQUAL_COMPUTE, EQUAL_EPOCHS, SEARCH_INCLUDED
from fieldshift.run_folder import read_result

WORDS = [
    "compare", "--arms", "randaugment", "none", "--seeds", "1", "--tune_randaugment", "1", "--tta_copies", "0",
    "--loading.train_limit", "80", "--loading.test_limit", "20", "--recipe.epochs", "1", "--recipe.batch", "16",
    "--tracking.enabled", "false", "--cluster.trials_at_once", "0",
]  # fmt: skip


def test_tuning_takes_the_epochs_and_the_operations_of_its_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[tuple[int, int]] = []  # epochs, and convolutions and matrix products as torch counts them
    sample = fieldshift.experiment.tuning.run_tuning_trial

    def counted(payload: dict[str, Any], context: Any) -> dict[str, Any]:
        with FlopCounterMode(display=False) as counter:
            value = sample(payload, context)
        run.append((len(value["history"]), counter.get_total_flops()))
        return value

    monkeypatch.setattr(fieldshift.experiment.tuning, "run_tuning_trial", counted)
    assert main([*WORDS, "--out", str(tmp_path)]) == 0
    result = read_result(tmp_path)
    rows = {(row["arm"], row["reading"]): row for row in result["rows"]}
    tuned = result["randaugment"]
    assert set(tuned) == {EQUAL_EPOCHS, EQUAL_COMPUTE}  # with nothing dearer than the tuning, two readings are one
    assert [epochs for epochs, _ in run] == [1, 3]
    for reading, (epochs, operations) in zip(tuned, run, strict=True):
        assert rows["randaugment", reading]["epochs"] == tuned[reading]["epochs"] == epochs
        assert tuned[reading]["epochs_trained"] == epochs  # of its one sample
        charged = rows["randaugment", reading]["search_operations"]
        assert operations == pytest.approx(charged, rel=0.03)
    assert rows["randaugment", SEARCH_INCLUDED]["epochs"] == 3
    assert rows["none", SEARCH_INCLUDED]["epochs"] > rows["none", EQUAL_COMPUTE]["epochs"] == 3
    flops, charged = rows["none", EQUAL_COMPUTE]["flops"], rows["randaugment", SEARCH_INCLUDED]["search_operations"]
    budget = 3 * 80 * result["budget"]["video_flops"] + charged
    assert rows["none", SEARCH_INCLUDED]["epochs"] == round(budget / (3 * 80 * flops))
