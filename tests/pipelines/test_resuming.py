"""What goes on after an interruption, or is printed again: on the same data only; and what runs of before do not tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fieldshift.cli import main
from fieldshift.data import load_dataset
from fieldshift.errors import UserError
from fieldshift.experiment import Experiment
from fieldshift.experiment.data_record import keep_record, read_record, write_record
from fieldshift.motions import Policy
from fieldshift.run_folder import RunFolder, read_result
from pipelines.run_data import different_data

UNTRACKED = ["--tracking.enabled", "false"]
QUICK = ["--recipe.epochs", "1", "--recipe.batch", "8", *UNTRACKED]
HERE = ["--cluster.workers", "0", "--cluster.trials_at_once", "0"]

RESUMED = {
    "train": [*QUICK, "--cluster.workers", "0"],
    "compare": ["--arms", "none", "affine", "--seeds", "1", "--budgets", "equal-epochs", *QUICK, *HERE,
                "--tta_copies", "0"],
    "sweep-frames": ["--policy", "POLICY", "--frame_counts", "1", "--seeds", "1", *QUICK, *HERE],
    "search": ["--search.epochs", "1", "--search.tune_epochs", "0", "--search.batch", "4", "--tracking.enabled", "false",
               "--cluster.workers", "0"],
    "compare-fields": ["--images", "2", "--tracking.enabled", "false", "--runs", "RUN"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "finished"), [("train", False), ("compare", False), *((name, True) for name in RESUMED)]
)
def test_whatever_goes_on_does_so_on_the_same_data_only(
    command: str, finished: bool, trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, out = tmp_path / "policy.json", tmp_path / "out"
    Policy.single("translate_x", 0.3, frames=3).save(policy)
    stand_in = {"POLICY": str(policy), "RUN": str(trained.run)}
    words = [command, *(stand_in.get(word, word) for word in RESUMED[command]), "--out", str(out)]
    words += [] if command == "compare-fields" else ["--data", f"folder:{trained.root}", "--loading.workers", "0"]
    assert main([*words, *([] if finished else ["--resume"])]) == 0
    assert (f"nothing to resume in {out}" in capsys.readouterr().out) == (not finished)
    assert (out / "data.json").exists()
    if not finished:
        (out / "result.json").unlink()
    assert main([*words, "--resume"]) == 0
    capsys.readouterr()
    left = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    trained.relabel(trained.path(tested=True))
    assert main([*words, "--resume"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "1 relabelled" in error
    assert "give another --out" in error
    assert left == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kept", [True, False])
def test_a_worker_that_meets_other_data_than_its_run_stops(kept: bool, trained: Any) -> None:
    experiment = Experiment.from_plain(
        {
            **{name: value for name, value in read_result(trained.run)["config"].items()
               if name in ("data", "task", "network", "temporal", "frames", "architecture", "loading")},
        }
    )  # fmt: skip
    digest = experiment.load().digest
    if kept:
        assert experiment.load(digest).digest == digest
        return
    trained.relabel(trained.path(tested=False))
    with pytest.raises(UserError, match="has changed since this run began"):
        experiment.load(digest)


def test_a_run_of_before_is_used_and_what_is_unknown_is_said(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trained.run / "data.json").unlink()
    again = ["train", "--data", f"folder:{trained.root}", "--out", str(trained.run), *trained.words, "--resume"]
    for words in (again, ["evaluate", "--run", str(trained.run), "--out", str(tmp_path / "scored")]):
        assert main(words) == 0
        lines = capsys.readouterr().out.splitlines()
        assert sum("has no data.json" in line and "is unknown" in line for line in lines) == 1
    assert read_result(tmp_path / "scored")["score"] == read_result(trained.run)["row"]["score"]


@pytest.mark.parametrize("changed", [True, False])
def test_arrays_of_before_are_known_by_the_digest_of_their_result(
    changed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path, "train", {}, resumed=True)
    dataset = load_dataset("digit-pairs-left", train_limit=8, test_limit=8)
    folder.write_result({"data": {**dataset.record(), **({"digest": "0" * 16} if changed else {})}})
    if changed:
        with pytest.raises(UserError, match="digit-pairs-left has changed since"):
            keep_record(folder, dataset)
    else:
        keep_record(folder, dataset)
    assert capsys.readouterr().out == ""


def test_a_trial_finds_the_record_of_its_run_and_no_other(tmp_path: Path) -> None:
    dataset = load_dataset("digit-pairs-left", train_limit=8, test_limit=8)
    trial, stranger = tmp_path / "run" / "trials" / "das", tmp_path / "run" / "elsewhere" / "das"
    for folder in (trial, stranger):
        folder.mkdir(parents=True)
    write_record(tmp_path / "run", dataset)
    record = read_record(trial)
    assert record is not None
    assert (record.name, record.digest, record.identity) == (dataset.name, dataset.digest, None)
    assert read_record(stranger) is None


@pytest.mark.parametrize("content", ["", "[]", '{"schema": "other"}', '{"schema": "fieldshift.data", "version": 99}'])
def test_a_record_that_is_none_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(UserError, match="data.json") as refusal:
        read_record(tmp_path)
    assert len(str(refusal.value).splitlines()) == 1


def test_runs_of_one_name_trained_on_other_data_are_told_apart(trained: Any, tmp_path: Path) -> None:
    trained.relabel(trained.path(tested=False))
    other = tmp_path / "other"
    assert main(["train", "--data", f"folder:{trained.root}", "--out", str(other), *trained.words]) == 0
    assert different_data([trained.run, trained.run]) == []
    (line,) = different_data([trained.run, other])
    assert "1 relabelled" in line


@pytest.mark.parametrize(
    ("command", "found", "used"),
    [("train", 3, 3), ("train", 3, 5), ("train", 5, 3), ("compare", 5, 3), ("motions", 5, 3)],
)
def test_a_policy_of_another_length_is_said(
    command: str, found: int, used: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, run = tmp_path / "policy.json", tmp_path / "run"
    Policy.single("translate_x", 0.3, frames=found).save(policy)
    small = ["--loading.train_limit", "16", "--loading.test_limit", "8", "--frames", str(used), *QUICK]
    words = {
        "train": ["train", "--policy", str(policy), *small],
        "compare": ["compare", "--policy", str(policy), "--arms", "das", "--seeds", "1", *HERE, *small],
        "motions": ["compare-fields", "--runs", str(run), "--motions", str(policy), "--images", "2", *UNTRACKED],
    }
    if command == "motions":
        Policy.single("rotate", 30, frames=used).save(tmp_path / "own.json")
        assert main(["train", "--policy", str(tmp_path / "own.json"), *small, "--out", str(run)]) == 0
    capsys.readouterr()
    assert main([*words[command], "--out", str(tmp_path / "out")]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "The policy was made with" in line]
    assert [f"made with {found} frames and is used with {used}:" in line for line in lines] == [True] * (found != used)


@pytest.mark.parametrize("interrupted", ["fieldshift.run_folder.RunFolder.write_result", "record_history"])
def test_a_training_that_is_done_is_not_trained_again_where_its_result_was_not_written(
    interrupted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ["train", "--loading.train_limit", "16", "--loading.test_limit", "8", *QUICK, "--out", str(out)]
    home = "" if "." in interrupted else "fieldshift.experiment.training_runs."

    def stopped(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"{home}{interrupted}", stopped)
        assert main(words) == 130
    assert (out / "checkpoint.pt").exists()
    with monkeypatch.context() as patched:
        patched.setattr("fieldshift.training.loop.epoch_batches", lambda *_, **__: pytest.fail("it trains again"))
        assert main([*words, "--resume"]) == 0
    assert len(read_result(out)["row"]["history"]) == 1
    assert not (out / "checkpoint.pt").exists()
