"""A comparison that searches: one search for all seeds where asked, kept under --resume, and every mistake in one line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from fieldshift.cli import main
from fieldshift.experiment.dataset import constant_notes
from fieldshift.motions import Policy
from fieldshift.motions.placed import PlacedMotion, PlacedPolicy, load_policy
from fieldshift.report.intervals import estimate
from fieldshift.run_folder import read_result
from fieldshift.search.explain import close_decisions
from fieldshift.training import ARMS
from pipelines.arms import check_arms, searched_forms
from pipelines.study_plan import STUDY_ARMS, study_arms

QUICK = [
    "--loading.train_limit", "80", "--loading.test_limit", "40", "--recipe.epochs", "1", "--recipe.batch", "32",
    "--tracking.enabled", "false", "--cluster.trials_at_once", "0", "--tta_copies", "1",
]  # fmt: skip
SEARCHED = ["--search.epochs", "1", "--search.tune_epochs", "0", "--search.batch", "32"]
EQUAL_EPOCHS = ["--budgets", "equal-epochs"]
NOT_SEARCHED = "no search found this policy"


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policies")
    Policy.single("translate_x", 0.4, frames=3).save(folder / "x.json")
    Policy.single("translate_y", 0.4, frames=3).save(folder / "y.json")
    Policy.single("brightness", 0.2, frames=3).save(folder / "colour.json")
    placed = PlacedMotion(("blocks.9.conv1",), (Policy.single("translate_x", 0.4, frames=3),))
    PlacedPolicy(motions=(placed,)).save(folder / "placed.json")
    return folder


def test_one_search_serves_all_seeds_where_asked_and_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [
        "compare",
        "--form",
        "folded",
        "--arms",
        "das",
        "none",
        "--seeds",
        "2",
        "--searches",
        "one",
        "--out",
        str(out),
    ]
    words += [*QUICK, *SEARCHED, *EQUAL_EPOCHS]
    assert main(words) == 0
    assert "Motions of das-folded: one search, of seed 0, for all seeds." in " ".join(capsys.readouterr().out.split())
    result = read_result(out)
    assert [(each["form"], each["seed"]) for each in result["searches"]] == [("folded", 0)]
    rows = [row for row in result["rows"] if row["arm"] == "das-folded"]
    cards = [json.loads((Path(row["folder"]) / "network.json").read_text()) for row in rows]
    assert [card["policy"] for card in cards] == 2 * [result["searches"][0]["policy"]]
    searched = (out / "searches" / "folded-seed0" / "search.pt").stat().st_mtime_ns
    (out / "result.json").unlink()
    assert main([*words, "--resume"]) == 0
    assert [row["score"] for row in read_result(out)["rows"]] == [row["score"] for row in result["rows"]]
    assert (out / "searches" / "folded-seed0" / "search.pt").stat().st_mtime_ns == searched


def test_the_folded_arms_may_have_a_policy_of_their_own(policies: Path, tmp_path: Path) -> None:
    words = [
        "compare",
        "--policy",
        str(policies / "x.json"),
        "--folded_policy",
        str(policies / "y.json"),
        "--seeds",
        "1",
    ]
    words += ["--arms", "das", "das-folded", *QUICK, *EQUAL_EPOCHS, "--out", str(tmp_path / "out")]
    assert main(words) == 0
    rows = read_result(tmp_path / "out")["rows"]
    cards = {row["arm"]: json.loads((Path(row["folder"]) / "network.json").read_text()) for row in rows}
    steps = {arm: card["policy"]["edges"][0]["steps"][0]["op"] for arm, card in cards.items()}
    assert steps == {"das": "translate_x", "das-folded": "translate_y"}
    assert {row["motions"] for row in rows} == {"a given policy that no search found"}
    assert not (tmp_path / "out" / "searches").exists()


def test_the_search_of_a_given_run_folder_is_charged_in_seconds_too(
    policies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search, copied = tmp_path / "search", tmp_path / "copied.json"
    few = ["--loading.train_limit", "80", "--loading.test_limit", "40", "--tracking.enabled", "false"]
    assert main(["search", "--form", "folded", *few, *SEARCHED, "--out", str(search)]) == 0
    shutil.copy(search / "policy.json", copied)
    spent = read_result(search)
    expected = {
        str(search): (spent["seconds"], spent["device_seconds"]),
        str(search / "policy.json"): (spent["seconds"], spent["device_seconds"]),
        str(copied): (None, None),  # of which nothing says how long it took
        str(policies / "x.json"): (0.0, 0.0),  # written by hand
    }
    for number, (source, seconds) in enumerate(expected.items()):
        out = tmp_path / str(number)
        words = ["compare", "--folded_policy", source, "--seeds", "1", "--arms", "das-folded", *QUICK, *EQUAL_EPOCHS]
        assert main([*words, "--out", str(out)]) == 0
        (row,) = read_result(out)["rows"]
        assert (row["search_seconds"], row["search_device_seconds"]) == seconds
        shown = " ".join(capsys.readouterr().out.split())
        (hours,) = re.findall(r" das-folded 1 21,346 \S+ 1 \S+ (\S+) (\S+) ", shown)
        assert hours[0] == ("-" if seconds[0] is None else f"{seconds[1]:.1f}")
        assert (hours[1] == "-") == (seconds[0] is None)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 1 / 3, 0.36, 0.4, 2 / 3])
@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_networks_that_name_one_class_are_noted(share: float, seeds: int) -> None:
    frequent = {"class": "cat", "share": share}
    scores = {"none": estimate([share] * seeds).mean, "das": share + 0.001, "affine": share / 2}
    (note,) = constant_notes(frequent, scores)
    assert note.startswith(f"Always naming cat, the most frequent class of the test images, would score {share:.1%}; ")
    assert note.endswith("no better: none, affine.")
    assert constant_notes(frequent, {"das": share + 0.001}) == constant_notes(None, scores) == []


def test_close_choices_and_a_policys_other_form_are_said(
    policies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "--arms", "das-folded", "--seeds", "1", *QUICK, *SEARCHED, *EQUAL_EPOCHS]
    assert main([*words, "--out", str(tmp_path / "searched")]) == 0
    found = tmp_path / "searched" / "searches" / "folded-seed0"
    said = " ".join(capsys.readouterr().out.split())
    assert ("a close choice, see `fieldshift explain" in said) == bool(
        close_decisions(load_policy(found / "policy.json"))
    )
    spent = read_result(tmp_path / "searched")["searches"][0]["seconds"]
    given = ["compare", "--seeds", "1", *QUICK, *EQUAL_EPOCHS]
    line = "The policy was found in the folded form and is used in the video form."
    for arms, warned in ((["das"], True), (["das-folded"], False), (["das", "das-folded"], False)):
        out = tmp_path / "".join(arms)
        assert main([*given, "--policy", str(found), "--arms", *arms, "--out", str(out)]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert (line in said) == warned
        assert NOT_SEARCHED not in said
        assert {row["search_seconds"] for row in read_result(out)["rows"]} == {spent}
    out = str(tmp_path / "trained")
    few = ["--loading.train_limit", "80", "--loading.test_limit", "40", "--recipe.epochs", "1"]
    train = ["train", "--policy", str(found), *few, "--tracking.enabled", "false", "--out", out]
    assert main(train) == 0
    assert line in " ".join(capsys.readouterr().out.split())
    by_hand = [
        "train",
        "--policy",
        str(policies / "x.json"),
        *few,
        "--tracking.enabled",
        "false",
        "--out",
        f"{out}-by-hand",
    ]
    assert main(by_hand) == 0
    assert NOT_SEARCHED in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("searches", [False, True])
def test_few_steps_of_a_search_are_noted_where_one_runs(
    searches: bool, policies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "--arms", "das-folded", "--seeds", "1", "--loading.train_limit", "100", "--loading.test_limit", "40",
             "--recipe.epochs", "1", "--cluster.trials_at_once", "0", "--tracking.enabled", "false", "--budgets",
             "equal-epochs", "--out", str(tmp_path / "run")]  # fmt: skip
    given = ["--search.epochs", "1"] if searches else ["--folded_policy", str(policies / "x.json")]
    assert main([*words, *given]) == 0
    said = capsys.readouterr().out
    assert "--recipe.batch 25 makes" in said
    assert ("50 training images per half in batches of 64 make 1 step per epoch and 1 in all" in said) == searches


def test_the_default_arms_of_each_form() -> None:
    everything = set(ARMS)
    assert set(check_arms(None, "video", "tsm")) == everything - {"identity-folded"}  # with tsm it is the arm none
    assert set(check_arms(None, "video", "gsf")) == everything
    folded = set(check_arms(None, "folded", "tsm"))
    assert {name for name in folded if ARMS[name].moves} == {"das-folded", "random-policy-folded"}
    assert "policy-2d" not in folded
    assert study_arms(None, None, "tsm") == list(STUDY_ARMS)
    assert {name for name in STUDY_ARMS if "folded" in name}.isdisjoint(study_arms(None, "video", "tsm"))
    assert {"das", "random-policy"}.isdisjoint(study_arms(None, "folded", "tsm"))
    assert {"das-folded+affine", "dilated+affine"} <= set(study_arms(None, "folded", "tsm"))


def test_with_form_folded_arms_are_named_by_their_video() -> None:
    named = ["none", "das", "das+affine", "random-policy", "das-folded"]
    assert check_arms(named, "folded", "tsm") == ["none", "das-folded", "das-folded+affine", "random-policy-folded"]


@pytest.mark.parametrize(
    ("arms", "given", "forms"),
    [
        (["none", "dilated+affine"], [], []),
        (["das", "das-folded+affine"], [], ["video", "folded"]),
        (["das", "das-folded"], ["folded"], ["video"]),
        (["policy-2d", "random-policy-folded"], [], ["video"]),
    ],
)
def test_a_form_is_searched_where_an_arm_needs_it_and_no_policy_is_given(
    arms: list[str], given: list[str], forms: list[str]
) -> None:
    assert searched_forms(arms, given) == forms  # type: ignore[arg-type]


MISTAKES = {
    "form": (["compare", "--form", "foldd"], "must be video, folded"),
    "study form": (["study", "--form", "foldd"], "must be video, folded"),
    "searches": (["compare", "--searches", "per-sed"], "Did you mean 'per-seed'"),
    "searches with a policy": (["compare", "--policy", "x.json", "--searches", "one"], "there is no search"),
    "search without need": (["compare", "--arms", "none", "--search.epochs", "3"], "there is no search"),
    "augmentation": (["compare", "--arms", "das-folded+affin"], "Did you mean 'affine'"),
    "no folded form": (["compare", "--form", "folded", "--arms", "no-shift"], "the arm 'no-shift' has none"),
    "two frames": (["compare", "--arms", "das-folded", "--frames", "2"], "give 3 or more"),
    "two frames, form": (["study", "--form", "folded", "--frames", "2"], "give 3 or more"),
    "causal": (["compare", "--arms", "das-folded", "--temporal", "tsm-causal"], "tsm-causal"),
    "conv3d": (["study", "--form", "folded", "--temporal", "conv3d"], "conv3d"),
    "colour": (["compare", "--policy", "colour.json", "--arms", "das-folded"], "changes colours"),
    "colour space": (["study", "--form", "folded", "--space", "affine-colour"], "colour"),
    "places": (["compare", "--policy", "placed.json", "--form", "folded", "--arms", "das"], "blocks.9.conv1"),
    "placed as video": (["compare", "--policy", "placed.json", "--arms", "das"], "use the form folded"),
    "folded policy file": (["compare", "--folded_policy", "nowhere.json"], "nowhere.json"),
    "arm of the other form": (["study", "--form", "video", "--arms", "das-folded"], "leave out --form"),
    "sweep": (["sweep-frames", "--policy", "x.json", "--form", "folded", "--frame_counts", "1", "3"], "give 3 or more"),
    "study's steps": (["study", "--form", "folded", "--frame_counts", "1"], "give 3 or more"),
    "describe": (["describe", "--form", "folded", "--frames", "2"], "give 3 or more"),
    "describe a video's policy": (["describe", "--policy", "x.json"], "--policy applies to --form folded only"),
    "preview": (["preview", "--policy", "colour.json", "--form", "folded"], "changes colours"),
    "preview of a video": (["preview", "--policy", "placed.json"], "use the form folded"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(
    name: str, policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words, said = MISTAKES[name]
    assert main([str(policies / word) if (policies / word).exists() else word for word in words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert said in error
    assert list(tmp_path.iterdir()) == []
