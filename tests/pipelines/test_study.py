"""The main job, in this process: every stage, what it leaves, going on, and the same numbers from the same seeds."""

from __future__ import annotations

import html.parser
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fieldshift.errors import UserError
from fieldshift.motions import Policy
from fieldshift.run_folder import read_result

RunStudy = Callable[..., object]


def test_a_study_leaves_policy_tables_fields_report_and_store(small_study: Path) -> None:
    result = read_result(small_study)
    policy = Policy.load(small_study / "policy.json")
    assert result["words"] == policy.describe()
    assert {row["arm"] for row in result["summary"]} == {"none", "affine", "das", "replicate", "das-folded+affine"}
    assert {(row["arm"], row["frames"]) for row in result["frames"]} == {("das", 1), ("das", 3), ("das-folded", 3)}
    assert {row["method"] for row in result["claims"]} == {"das", "das-folded+affine"}
    assert {row["network"] for row in result["receptive_field"]} == {"none", "replicate", "das"}
    assert (small_study / "mlflow.db").exists()
    assert (small_study / "receptive-field" / "receptive-fields.png").exists()


def test_equal_compute_trains_2d_arms_for_as_many_operations_as_the_video(small_study: Path) -> None:
    rows = read_result(small_study / "compare")["rows"]
    spent = {(row["arm"], row["reading"], row["seed"]): row["epochs"] * row["flops"] for row in rows}
    for seed in (0, 1):
        for arm in ("none", "das-folded+affine"):  # a folded network reads one frame, too
            assert spent[arm, "equal compute", seed] == pytest.approx(spent["das", "equal compute", seed], rel=0.03)
            assert spent[arm, "equal epochs", seed] < spent["das", "equal epochs", seed]


def test_every_seed_has_a_search_of_its_own_in_both_forms(small_study: Path) -> None:
    result = read_result(small_study)
    assert [(each["form"], each["seed"]) for each in result["searches"]] == [
        ("video", 0), ("video", 1), ("folded", 0), ("folded", 1)
    ]  # fmt: skip
    compared = {(row["arm"], row["seed"]): row for row in read_result(small_study / "compare")["rows"]}
    for each in result["searches"]:
        path = small_study / "searches" / f"{each['form']}-seed{each['seed']}"
        assert json.loads((path / "policy.json").read_text()) == each["policy"]
        assert each["policy"]["found"]["seed"] == each["seed"]
        row = compared["das" if each["form"] == "video" else "das-folded+affine", each["seed"]]
        card = json.loads((Path(row["folder"]) / "network.json").read_text())
        assert card["policy"] == each["policy"]  # the arm trained with the motions of its own seed
        assert row["search_seconds"] == each["seconds"] > 0
        assert row["motions"] == "one search per seed"
    assert {row["search_seconds"] for row in compared.values() if row["arm"] in {"none", "affine", "replicate"}} == {
        0.0
    }


def test_the_first_policy_of_each_form_lies_in_the_studys_folder(small_study: Path) -> None:
    found = {each["form"]: each["policy"] for each in read_result(small_study)["searches"] if each["seed"] == 0}
    for form, name in (("video", "policy.json"), ("folded", "policy-folded.json")):
        assert json.loads((small_study / name).read_text()) == found[form]


def test_the_sweep_takes_the_comparisons_trial_instead_of_training_it_again(small_study: Path) -> None:
    compared = {(row["arm"], row["seed"]): row for row in read_result(small_study / "compare")["rows"]}
    swept = {row["frames"]: row for row in read_result(small_study / "frames")["rows"] if row["arm"] == "das"}
    assert swept[3]["score"] == compared["das", 0]["score"]
    assert not (small_study / "frames" / "trials" / swept[3]["key"]).exists()


class References(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_the_report_needs_nothing_but_itself(small_study: Path) -> None:
    page = (small_study / "report.html").read_text()
    references = References()
    references.feed(page)
    assert [link for link in references.found if not link.startswith(("#", "data:"))] == []
    assert read_result(small_study)["words"][0].split(": ")[1] in page


def test_going_on_with_a_finished_study_trains_nothing(
    run_study: RunStudy, small_study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in small_study.rglob("weights.safetensors")}
    run_study(small_study, resume=True)
    assert "(kept from before)" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in small_study.rglob("weights.safetensors")} == before


def test_a_study_that_lost_a_stage_makes_only_that_again(run_study: RunStudy, small_study: Path) -> None:
    frames = small_study / "frames" / "result.json"
    kept = json.loads(frames.read_text())["rows"]
    frames.unlink()
    compared = (small_study / "compare" / "result.json").stat().st_mtime_ns
    run_study(small_study, resume=True)
    assert [row["score"] for row in json.loads(frames.read_text())["rows"]] == [row["score"] for row in kept]
    assert (small_study / "compare" / "result.json").stat().st_mtime_ns == compared


def test_a_study_of_another_version_is_printed_but_no_missing_stage_is_made(
    run_study: RunStudy, small_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its comparison's rows would stand in the frame sweep beside those of this version."""
    monkeypatch.setattr("fieldshift.run_folder.SEMANTICS", 3)
    run_study(small_study, resume=True)
    shutil.copytree(small_study, tmp_path / "study")
    shutil.rmtree(tmp_path / "study" / "frames")
    with pytest.raises(UserError, match=r"made by an earlier version.*\(frames is missing\); give another --out"):
        run_study(tmp_path / "study", resume=True)


def test_another_configuration_is_refused_before_any_work(run_study: RunStudy, small_study: Path) -> None:
    with pytest.raises(UserError, match="recipe.epochs is 1 there, 2 here"):
        run_study(small_study, epochs=2)
