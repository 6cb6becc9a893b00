"""A run folder with a policy for each form: every command reads that of its form."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldshift.cli import main
from fieldshift.experiment.policy_source import policy_of_form
from fieldshift.motions import Policy
from fieldshift.run_folder import read_result

QUICK = [
    "--loading.train_limit", "64", "--loading.test_limit", "40", "--recipe.epochs", "1", "--recipe.batch", "32",
    "--tracking.enabled", "false",
]  # fmt: skip
VIDEO, FOLDED = Policy.single("translate_x", 0.3, frames=3), Policy.single("translate_y", -0.2, frames=3)


@pytest.fixture
def study(tmp_path: Path) -> str:
    """The folder of a study that searched in both forms."""
    folder = tmp_path / "study"
    folder.mkdir()
    VIDEO.save(folder / "policy.json")
    FOLDED.save(folder / "policy-folded.json")
    return str(folder)


def operation(policy: dict[str, list[dict[str, list[dict[str, str]]]]]) -> str:
    return policy["edges"][0]["steps"][0]["op"]


def test_the_policy_of_another_form_is_that_of_its_file(study: str, tmp_path: Path) -> None:
    assert policy_of_form(study, "folded") == f"{study}/policy-folded.json"
    assert policy_of_form(study, "video") == study
    alone = tmp_path / "alone"
    alone.mkdir()
    content = {"schema": "fieldshift.policy"}
    for source in (f"{study}/policy.json", str(alone), "nowhere", "x" * 300, "a\0b", content, None):
        assert policy_of_form(source, "folded") == source


def test_a_training_reads_the_policy_of_its_form(
    study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for form, expected in (("video", "translate_x"), ("folded", "translate_y")):
        out = tmp_path / form
        assert main(["train", "--policy", study, "--form", form, "--out", str(out), *QUICK]) == 0
        assert operation(read_result(out)["config"]["policy"]) == expected
        assert (f"policy: {study}/policy-folded.json" in capsys.readouterr().out) == (form == "folded")


def test_a_comparison_reads_both_policies(study: str, tmp_path: Path) -> None:
    words = ["compare", "--policy", study, "--arms", "das", "das-folded", "--seeds", "1", "--budgets", "equal-epochs"]
    assert main([*words, "--cluster.trials_at_once", "0", "--out", str(tmp_path / "compared"), *QUICK]) == 0
    config = read_result(tmp_path / "compared")["config"]
    assert [operation(config[name]) for name in ("policy", "folded_policy")] == ["translate_x", "translate_y"]


@pytest.mark.parametrize(
    "words",
    [
        ["preview", "--out", "OUT"],
        ["receptive-field", "--network", "tiny-resnet"],
        ["describe", "--speed", "false", "--size", "96"],
    ],
)
def test_what_is_shown_is_the_policy_of_the_form(
    words: list[str], study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(tmp_path / "frames.png") if word == "OUT" else word for word in words]
    texts = []
    for policy in (study, f"{study}/policy-folded.json", f"{study}/policy.json"):
        assert main([*words, "--policy", policy, "--form", "folded"]) == 0
        texts.append(
            "\n".join(line for line in capsys.readouterr().out.splitlines() if not line.startswith("policy: "))
        )
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
