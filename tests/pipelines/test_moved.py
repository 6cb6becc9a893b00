"""Run folders that were moved: they go on without training anything again, and name their files where these are now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fieldshift.cli import main
from fieldshift.motions import Policy
from fieldshift.run_folder import moved_between, read_result

UNTRACKED = ["--tracking.enabled", "false"]
FEW = ["--loading.train_limit", "48", "--loading.test_limit", "16", *UNTRACKED]
TRAINING = [*FEW, "--recipe.epochs", "1", "--recipe.batch", "16"]
TRIALS = [*TRAINING, "--cluster.trials_at_once", "0"]
SEARCHING = ["--search.epochs", "1", "--search.tune_epochs", "0", "--search.batch", "16"]
FOLDED = ["--form", "folded", "--policy", "POLICY"]
STUDY = ["--form", "folded", "--arms", "none", "das-folded", "--seeds", "1", *SEARCHING, *TRIALS, "--stages"]
GOES_ON = {
    "search": [*FEW, *SEARCHING, "--cluster.workers", "0"],
    "train": [*FOLDED, *TRAINING, "--cluster.workers", "0"],
    "compare": ["--arms", "none", "das-folded", "--seeds", "1", "--budgets", "equal-epochs", *SEARCHING, *TRIALS],
    "sweep-frames": [*FOLDED, "--frame_counts", "3", "5", "--seeds", "1", *TRIALS],
    "tune": ["--arm", "das-folded", *FOLDED, "--samples", "2", *TRIALS],
    "study": [*STUDY, "search", "compare"],
}


def words_of(command: str, folder: Path) -> list[str]:
    """The command with a policy file in the folder."""
    policy = folder / "policy.json"
    Policy.single("translate_x", 0.3, frames=3).save(policy)
    return [command, *(str(policy) if word == "POLICY" else word for word in GOES_ON[command])]


def written(folder: Path) -> dict[str, int]:
    """When every file of weights was written, by its path in the folder."""
    files = [file for file in folder.rglob("*") if file.suffix in {".safetensors", ".pt"}]
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}


@pytest.mark.parametrize("is_finished", [False, True])
@pytest.mark.parametrize("command", sorted(set(GOES_ON) - {"search", "train"}))
def test_a_moved_run_trains_nothing_again(command: str, is_finished: bool, tmp_path: Path) -> None:
    words = words_of(command, tmp_path)
    before, now = tmp_path / "runs" / "one", tmp_path / "elsewhere" / "two"
    assert main([*words, "--out", str(before)]) == 0
    if not is_finished:
        for result in before.rglob("result.json"):
            result.unlink()
    now.parent.mkdir()
    before.rename(now)
    trained = written(now)
    assert trained or command == "tune"  # whose samples leave no weights
    assert main([*words, "--out", str(now), "--resume"]) == 0
    assert written(now) == trained
    assert not before.exists()
    assert str(before) not in str(read_result(now))


@pytest.mark.parametrize("command", ["search", "train"])
def test_a_moved_run_of_one_network_is_read(command: str, tmp_path: Path) -> None:
    words = words_of(command, tmp_path)
    before, now = tmp_path / "one", tmp_path / "two"
    assert main([*words, "--out", str(before)]) == 0
    before.rename(now)
    trained = written(now)
    assert main([*words, "--out", str(now), "--resume"]) == 0
    assert written(now) == trained
    assert str(before) not in str(read_result(now))


def test_the_networks_of_a_moved_sweep_are_found(tmp_path: Path) -> None:
    before, now, fields = (tmp_path / name for name in ("one", "two", "fields"))
    assert main([*words_of("sweep-frames", tmp_path), "--out", str(before)]) == 0
    before.rename(now)
    assert main(["compare-fields", "--runs", str(now), "--images", "2", "--out", str(fields), *UNTRACKED]) == 0
    assert (fields / "receptive-fields.png").exists()


def test_a_moved_study_goes_on_with_its_later_stages(tmp_path: Path) -> None:
    before, now, latest = (tmp_path / name for name in ("one", "two", "three"))
    assert main(["study", *STUDY, "search", "compare", "--out", str(before)]) == 0
    before.rename(now)
    stages = ["search", "compare", "receptive-field", "report"]
    assert main(["study", *STUDY, *stages, "--out", str(now), "--resume"]) == 0
    assert (now / "report.html").exists()
    now.rename(latest)
    (latest / "result.json").unlink()
    (latest / "report.html").unlink()
    assert main(["study", *STUDY, *stages, "--out", str(latest), "--resume"]) == 0
    assert (latest / "report.html").exists()


def test_a_message_that_begins_with_the_former_folder_is_no_path(tmp_path: Path) -> None:
    before, now = tmp_path / "one", tmp_path / "two"
    assert main([*words_of("train", tmp_path), "--out", str(before)]) == 0
    file = before / "result.json"
    result = json.loads(file.read_text())
    message = f"{before}/network.json is not a checkpoint ({'x' * 300})"
    file.write_text(json.dumps({**result, "failed": {"das": message}, "kept": f"{before}/network.json"}))
    before.rename(now)
    found = read_result(now)
    assert found["failed"] == {"das": message}
    assert found["kept"] == f"{now}/network.json"


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        ("/a/study/compare", "/b/study/compare", ("/a", "/b")),
        ("/a/study/compare", "/a/again/compare", ("/a/study", "/a/again")),
        ("/a/study", "/b/c/other", ("/a/study", "/b/c/other")),
        ("/a/study", "/a/study", ("/a/study", "/a/study")),
    ],
)
def test_the_folder_that_was_moved_is_told_from_its_parts(before: str, now: str, found: tuple[str, str]) -> None:
    assert moved_between(Path(before), Path(now)) == (Path(found[0]), Path(found[1]))
